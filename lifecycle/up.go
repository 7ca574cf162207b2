package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"platelayer/containers"
	"platelayer/containers/image"
	"platelayer/containers/native"
	"platelayer/netplan"
	"platelayer/netplan/kernel"
	"platelayer/topology"
)

// UpOptions are the choices of `up`.
type UpOptions struct {
	File string // the topology file, absolute
	Keep bool   // leave what a failed launch made
	// Progress is told each finished step and each notice.
	Progress func(Progress)
}

// UpResult says what `up` did.
type UpResult struct {
	Unchanged bool // the topology was up already, from the same file
	Stations  int
	Took      time.Duration
}

// Up brings a topology up and returns when every station runs. It is the
// caller's half: the keeper, started here, does the work in launch. Whatever
// fails is undone, unless o.Keep.
func Up(ctx context.Context, l Layout, t *topology.Topology, o UpOptions) (*UpResult, error) {
	began := time.Now()
	if _, err := netplan.Build(t); err != nil {
		return nil, err
	}
	if err := needRoot("bring a topology up"); err != nil {
		return nil, err
	}
	if err := checkSources(t); err != nil {
		return nil, err
	}
	unlock, err := lock(l, t.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()

	intent, err := newIntent(l, t, o.File)
	if err != nil {
		return nil, err
	}
	result := &UpResult{Stations: len(stations(t))}
	if result.Unchanged, err = claim(ctx, l, intent, o.Progress); err != nil || result.Unchanged {
		return result, err
	}
	if err := record(l, intent); err != nil {
		return nil, errors.Join(err, dismantle(l, t.Name))
	}
	err = launchInKeeper(ctx, l, intent, o)
	if err != nil && !o.Keep {
		if undo := dismantle(l, t.Name); undo != nil {
			err = errors.Join(err, fmt.Errorf("cannot undo all of it: %w", undo))
		}
	}
	result.Took = time.Since(began)
	return result, err
}

// launch is the keeper's half of up, in the order of DESIGN.md section 5.
func (k *keeper) launch(ctx context.Context) error {
	step := stepper(ctx, k.report)

	var roots []*root
	defer func() { discard(roots) }()
	return errors.Join(
		step("network", func() error {
			return kernel.Apply(ctx, k.plan, kernel.Options{PinDir: k.layout.pins(k.name), NetNSDir: k.layout.NetNS})
		}),
		step("roots", func() (err error) {
			roots, err = k.assemble(ctx)
			return err
		}),
		step("seals", func() error { return checkSeals(ctx, roots) }),
		step("backbone", func() error { return k.startBackbone(ctx, roots[0]) }),
		step("stations", func() error { return k.startStations(ctx, roots[1:]) }),
		step("state", func() error { return k.become(StatusUp) }),
	)
}

// stepper runs steps one after the other until one fails, and reports each.
func stepper(ctx context.Context, report func(Progress)) func(string, func() error) error {
	failed := false
	return func(name string, do func() error) error {
		if failed {
			return nil
		}
		began := time.Now()
		err := ctx.Err()
		if err == nil {
			err = do()
		}
		failed = err != nil
		if !failed {
			report(Progress{Step: name, Took: time.Since(began)})
		}
		return err
	}
}

// newIntent puts the program into the store, from where the keeper and the
// built-in image use it, and says what is to be made.
func newIntent(l Layout, t *topology.Topology, file string) (*Intent, error) {
	builtin, binary, err := image.Builtin(l.Lib)
	if err != nil {
		return nil, err
	}
	print, err := fingerprint(t)
	if err != nil {
		return nil, err
	}
	return &Intent{
		Version: formatVersion, File: file, Fingerprint: print,
		Binary: binary, Builtin: builtin, Topology: t,
	}, nil
}

// claim looks at what there is under the name already. What an interrupted
// launch left is removed; a running topology is left alone.
func claim(ctx context.Context, l Layout, want *Intent, progress func(Progress)) (unchanged bool, err error) {
	name := want.Topology.Name
	have, err := readIntent(l, name)
	if unknown := new(NotKnown); errors.As(err, &unknown) {
		// Also where an earlier `up` was killed before it wrote anything.
		return false, dismantle(l, name)
	} else if err != nil {
		return false, err
	}
	state, err := readState(l, name)
	if unknown := new(NotKnown); err != nil && !errors.As(err, &unknown) {
		return false, err
	}
	if state == nil || !anyAlive(state) {
		progress(Progress{Notice: fmt.Sprintf("removing what an earlier %q left", name)})
		return false, dismantle(l, name)
	}
	switch {
	case state.Status != StatusUp:
		return false, fmt.Errorf("topology %q is here already, in state %q: take it down first", name, state.Status)
	case !native.Alive(state.Keeper):
		return false, &KeeperGone{name}
	case have.Fingerprint != want.Fingerprint:
		return false, &Differs{name}
	}
	for _, c := range append(state.Stations, state.Backbone) {
		if c.State == Exited || !native.Alive(c.Process) {
			return false, &StationError{Container: c.Container, Exit: c.Exit, While: "while the topology was up"}
		}
	}
	return true, nil
}

// record writes the intent to disk before anything of the kernel is touched.
func record(l Layout, i *Intent) error {
	name := i.Topology.Name
	for _, dir := range []string{l.run(name), l.logs(name)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("cannot make the state folder of %q: %w", name, err)
		}
	}
	return write(l.intent(name), i, true)
}

// checkSources finds folders and files of the machine that stations need and
// that are not there, all at once and before anything is made.
func checkSources(t *topology.Topology) error {
	var errs []error
	for _, s := range stations(t) {
		sources := []string{}
		if s.Rootfs != "" && s.Rootfs != "host" {
			sources = append(sources, s.Rootfs)
		}
		for _, v := range s.Volumes {
			sources = append(sources, v.Source)
		}
		for _, path := range sources {
			if _, err := os.Stat(path); err != nil {
				errs = append(errs, fmt.Errorf("station %q cannot have its root or volume: %w", s.ID(), err))
			}
		}
	}
	return errors.Join(errs...)
}

func needRoot(what string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return &containers.Unsupported{Feature: "root privilege", Err: fmt.Errorf("only root can %s", what)}
}

// KeeperGone is a topology whose stations run without their keeper.
type KeeperGone struct{ Name string }

func (e *KeeperGone) Error() string {
	return fmt.Sprintf("the keeper of topology %q is gone, its stations still run", e.Name)
}

// Differs is a running topology that was brought up from another content of
// its file.
type Differs struct{ Name string }

func (e *Differs) Error() string {
	return fmt.Sprintf("topology %q is up already, with a different file", e.Name)
}
