package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/netplan/kernel"
	"platelayer/topology"
)

// DownResult says what `down` did.
type DownResult struct {
	Found    bool     // there was something to take down
	Stations int      // that were running
	Volumes  []string // that were removed
	Took     time.Duration
}

// Down takes a topology down by its name alone, in whatever state it is, and
// leaves the machine as it was before `up`.
//
// With volumes its named ones go too, those of earlier times as well, but not
// one that another topology still has; and its certificate authority.
func Down(ctx context.Context, l Layout, name string, volumes bool, progress func(Progress)) (_ *DownResult, err error) {
	began := time.Now()
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := needRoot("take a topology down"); err != nil {
		return nil, err
	}
	unlock, err := lock(l, name)
	if err != nil {
		return nil, err
	}
	defer unlock()

	result := new(DownResult)
	if volumes {
		// At the end, when nothing uses them any more.
		defer func() {
			var removeErr error
			result.Volumes, removeErr = removeVolumes(l, name)
			err = errors.Join(err, removeErr, removeAuthority(l, name))
		}()
	}
	for _, dir := range []string{l.run(name), l.lib(name)} {
		if _, err := os.Lstat(dir); err == nil {
			result.Found = true
		}
	}
	if !result.Found {
		return result, releaseImages(l, name) // of one that was killed at its end
	}
	var routes []netip.Prefix
	if state, err := readState(l, name); err == nil && state.Uplink != nil {
		routes = state.Uplink.Routes
	}
	tellKeeper(l, name, opRetire)
	result.Stations = stopAll(ctx, l, name, progress)
	tellKeeper(l, name, opDrain)
	if err = dismantle(l, name); err == nil && len(routes) > 0 {
		inherit(l, routes)
	}
	result.Took = time.Since(began)
	return result, err
}

// tellKeeper asks the keeper for a part in going down. One that does not answer
// is ended with the rest.
func tellKeeper(l Layout, name, op string) {
	state, err := readState(l, name)
	if err != nil || state.API != apiVersion || !native.Alive(state.Keeper) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = ask(ctx, l, name, request{Op: op}, nil)
}

// stopAll stops the stations, dependents before what they depend on, each with
// its stop signal and grace period. The keeper lives on meanwhile and reads
// their last output. It does what the state allows and reports no errors:
// dismantle ends whatever is left.
func stopAll(ctx context.Context, l Layout, name string, progress func(Progress)) (running int) {
	state, err := readState(l, name)
	if err != nil {
		return 0
	}
	intent, err := readIntent(l, name)
	if err != nil {
		return 0
	}
	states := map[string]*ContainerState{}
	for _, c := range state.Stations {
		if c.alive() {
			states[c.Container] = c
		}
	}
	t := intent.Topology
	var list []*topology.Station
	var ids []string
	for _, s := range t.Stations() {
		if states[t.ContainerName(s)] != nil {
			list = append(list, s)
			ids = append(ids, s.ID())
		}
	}
	progress(Progress{Stations: ids})
	dependentsFirst(list, func(s *topology.Station) {
		began := time.Now()
		c := states[t.ContainerName(s)]
		progress(Progress{Station: s.ID(), Phase: PhaseStopping})
		// Whatever the state says: its keeper may have ended within a pause.
		_ = native.Freeze(cgroup(name)+"/"+c.Container, false)
		stop(ctx, s, c.Process)
		progress(Progress{Station: s.ID(), Phase: PhaseStopped, Took: time.Since(began)})
	})
	return len(list)
}

// stop sends the station's stop signal and waits for its end. A process 1 that
// has no handler for the signal never gets it: no use waiting for that.
func stop(ctx context.Context, s *topology.Station, ref containers.ProcessRef) {
	sig := syscall.Signal(s.Signal())
	process, err := native.OpenProcess(ref)
	if err != nil {
		return
	}
	ended := make(chan struct{})
	go func() {
		process.Wait()
		close(ended)
	}()
	if !native.IgnoresSignal(ref, sig) && process.Signal(sig) == nil {
		grace := time.NewTimer(s.StopGracePeriod)
		defer grace.Stop()
		select {
		case <-ended:
			return
		case <-grace.C:
		case <-ctx.Done():
		}
	}
	if process.Signal(syscall.SIGKILL) != nil {
		return
	}
	// A process 1 waits for those below it, and dismantle ends whoever is to
	// reap them.
	const most = 10 * time.Second
	select {
	case <-ended:
	case <-time.After(most):
	}
}

// dismantle removes everything of a topology: processes, namespaces, mounts,
// cgroups, folders. It goes by names only, so that it works on any half-made
// state, and removes the state folder last, so that it can be run again.
func dismantle(l Layout, name string) error {
	if err := clear(l, name); err != nil {
		return err
	}
	// The intent first: what is left without it is known to be remains.
	for _, path := range []string{l.intent(name), l.lib(name)} {
		if err := native.RemoveAll(path); err != nil {
			return fmt.Errorf("cannot remove %s: %w", path, err)
		}
	}
	return errors.Join(dropFreshVolumes(l, name), releaseImages(l, name))
}

// clear removes everything of a topology but what its stations wrote and its
// intent.
func clear(l Layout, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	// Cgroups go by name alone: with the name they belong to another --root.
	ours := l.elsewhere(name) == ""
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if ours {
		if err := native.KillCgroup(ctx, cgroup(name)); err != nil {
			return fmt.Errorf("cannot end the processes of %q: %w", name, err)
		}
	}
	if err := kernel.Remove(l.kernelOptions(name)); err != nil {
		return fmt.Errorf("cannot remove the network of %q: %w", name, err)
	}
	if ours {
		if err := (outside{l}).clear(name); err != nil {
			return err
		}
		if err := native.RemoveCgroup(cgroup(name)); err != nil {
			return fmt.Errorf("cannot remove the cgroups of %q: %w", name, err)
		}
	}
	if err := os.RemoveAll(l.run(name)); err != nil {
		return fmt.Errorf("cannot remove %s: %w", l.run(name), err)
	}
	return nil
}

// Undo removes what a failed launch made, where the `up` that began it can't.
func Undo(l Layout, name string) error {
	unlock, err := lock(l, name)
	if err != nil {
		return err
	}
	defer unlock()
	if found, err := look(l, name); err == nil && found.running {
		return nil // another `up` was faster
	}
	intent, err := readIntent(l, name)
	return undo(l, name, err == nil && intent.Launched)
}

// Resolve finds the topology that a command is about: by name, or by its
// file, parsed or else as recorded when it came up.
func Resolve(l Layout, file, parsedName string) (string, error) {
	all, err := names(l)
	if err != nil {
		return "", err
	}
	if slices.Contains(all, parsedName) {
		return parsedName, nil
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	var recorded []string
	for _, n := range all {
		if i, err := readIntent(l, n); err == nil && i.File == abs {
			recorded = append(recorded, n)
		}
	}
	switch {
	case len(recorded) == 1:
		return recorded[0], nil
	case parsedName != "":
		return parsedName, nil
	case len(recorded) > 1:
		return "", fmt.Errorf("%s is up under several names (%v): name one", file, recorded)
	}
	return "", fmt.Errorf("%s has never been brought up, or is down", file)
}
