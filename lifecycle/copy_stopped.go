package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"platelayer/containers/native"
)

// openStopped assembles the root of a station that does not run, as its next
// start will, and keeps it from starting until the side is closed. Beside may be
// a side that does so already.
func openStopped(ctx context.Context, l Layout, s CopySide, beside *copySide, notRunning error) (_ *copySide, err error) {
	side := &copySide{check: noCheck, locked: s.Topology}
	if beside == nil || beside.locked != s.Topology {
		unlock, err := lock(l, s.Topology)
		if err != nil {
			return nil, err
		}
		side.give = append(side.give, unlock)
	}
	defer func() {
		if err != nil {
			side.close()
		}
	}()
	if c, err := running(l, s.Topology, s.Station); err == nil { // it has started since
		side.close()
		return openRunning(c, s)
	}
	intent, err := readIntent(l, s.Topology)
	if err != nil {
		return nil, err
	}
	state, err := readState(l, s.Topology)
	if unknown := new(NotKnown); errors.As(err, &unknown) { // as after a reboot
		return nil, notRunning
	}
	if err != nil {
		return nil, err
	}
	name := intent.Topology.ContainerName(s.Station)
	i := slices.IndexFunc(state.Stations, func(c *ContainerState) bool { return c.Container == name })
	if i < 0 || !slices.Contains([]string{Stopped, Exited, Created, Refused}, state.Stations[i].State) {
		return nil, notRunning // and might start at any time
	}
	if s.Station.Writable == "memory" {
		return nil, fmt.Errorf("%w, and what it writes is kept in memory while it runs", notRunning)
	}
	engine, err := native.New(native.Config{Cgroup: cgroup(s.Topology)})
	if err != nil {
		return nil, err
	}
	side.give = append(side.give, func() { engine.Close() })
	r := &root{spec: site{layout: l, builtin: intent.Builtin, program: "/bin/platelayer", images: intent.Images}.station(intent.Topology, s.Station), station: s.Station}
	if _, err := layer(l, s.Topology, name, rootOf(s.Station)); err != nil {
		return nil, err
	}
	for i, v := range s.Station.Volumes {
		if v.Source == "" && v.Name == "" { // gone with what it wrote, after rm
			if err := os.MkdirAll(r.spec.Mounts[i].Source, 0o755); err != nil {
				return nil, fmt.Errorf("cannot make a volume of %q: %w", name, err)
			}
		}
	}
	if err := errors.Join(confine(l, intent.project(), r), furnish(r)); err != nil {
		return nil, err
	}
	// Only the root is wanted: what is for its command alone may be missing.
	r.spec.Stdout, r.spec.Stderr, r.spec.User, r.spec.WorkingDir = "", "", "", ""
	r.spec.Groups, r.spec.Devices, r.spec.Sysctls, r.spec.Sealed = nil, nil, nil, nil
	r.spec.TTY, r.spec.Init = false, false
	r.spec.Hosts, r.spec.ResolvConf = "", ""
	if r.container, err = engine.Prepare(ctx, r.spec); err != nil {
		return nil, err
	}
	side.container = r.container
	side.give = append(side.give, func() { discard([]*root{r}) })
	if n, ok := r.container.(native.Noticer); ok && len(n.Notices()) > 0 {
		return nil, errors.Join(notRunning, errors.New(n.Notices()[0]))
	}
	side.CopySide = rooted(s, r.container.Root())
	side.Passing = []string{"/dev", "/dev/shm"}
	for _, t := range r.spec.Tmpfs {
		side.Passing = append(side.Passing, t.Target)
	}
	return side, nil
}
