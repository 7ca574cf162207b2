package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"platelayer/containers/native"
	"platelayer/netplan/kernel"
)

// operate does what a caller asks of a running topology's keeper.
func (k *keeper) operate(ctx context.Context, r *request) error {
	switch r.Op {
	case opChange:
		if r.Intent != nil && r.Intent.Topology != nil {
			r.Intent = r.Intent.withOneOffs(k.intent)
		}
		return k.change(ctx, r)
	case opMend:
		if r.Intent != nil && r.Intent.Fingerprint != k.intent.Fingerprint {
			return &Busy{k.name} // another was, between the caller's look at it and now
		}
		return k.mend(ctx)
	case opRun:
		if r.Station == nil || r.OneOff == nil {
			return errors.New("cannot run nothing")
		}
		return k.runOneOff(ctx, r)
	}
	members, err := k.chosen(r.Stations)
	if err != nil {
		return err
	}
	if r.Op == opStart || r.Op == opRestart {
		if members, err = k.lasting(members, r.Stations); err != nil {
			return err
		}
	}
	switch r.Op {
	case opStart:
		return unfinished(k.startStopped(ctx, k.withNeeds(members)))
	case opStop:
		k.announce(members)
		k.endAll(members, Stopped)
		return nil
	case opRestart:
		return unfinished(k.restart(ctx, members))
	case opPause:
		return k.freeze(members, true)
	case opUnpause:
		return k.freeze(members, false)
	case opRemove:
		return k.remove(members)
	}
	return fmt.Errorf("the keeper of topology %q does not know how to %q", k.name, r.Op)
}

// mend brings the wiring back to what the plan says, whatever has been done to
// it, and tells whose it was.
func (k *keeper) mend(ctx context.Context) error {
	if err := kernel.Extend(ctx, k.plan, k.kernelOptions()); err != nil {
		return err
	}
	mended, err := kernel.Mend(ctx, k.plan, k.kernelOptions())
	names := map[string]string{k.plan.Fabric.NetNS: "the switches"}
	for _, n := range k.plan.Nodes {
		if names[n.NetNS] = "the backbone"; n.Station != "" {
			names[n.NetNS] = n.Cluster + "/" + n.Station
		}
	}
	for i, netns := range mended {
		mended[i] = names[netns]
	}
	if len(mended) > 0 {
		k.tell(Progress{Notice: "the wiring was not as planned, and is again: " + strings.Join(mended, ", ")})
	}
	return err
}

// announce tells which stations will be told about.
func (k *keeper) announce(members []*member) {
	var ids []string
	for _, m := range members {
		ids = append(ids, m.definition().ID())
	}
	k.tell(Progress{Stations: ids})
}

// startStopped begins a life of each member that does not run.
func (k *keeper) startStopped(ctx context.Context, members []*member) error {
	k.announce(members)
	var idle []*member
	for _, m := range members {
		if c, _, _ := m.now(); c.alive() {
			m.phase(PhaseKept, "", 0)
			continue
		}
		m.end(Waiting) // one that waits for its next try makes it now
		idle = append(idle, m)
	}
	beginAll(idle, nil)
	if err := k.comeUp(ctx, idle); err != nil {
		return err
	}
	return k.settleDebts(ctx)
}

// restart ends the members and starts them again, on the layers they wrote, and
// after them those that ask to be restarted with them.
func (k *keeper) restart(ctx context.Context, members []*member) error {
	members = slices.DeleteFunc(k.sharers(members), k.stray) // which end with them
	all := slices.DeleteFunc(k.withFollowers(members), k.stray)
	k.announce(all)
	// One that could not start again is not stopped either.
	for _, m := range all {
		if err := k.rehearseAnew(ctx, m); err != nil {
			if refused := new(IntegrityError); errors.As(err, &refused) {
				m.event(Event{Kind: EventIntegrity, Detail: err.Error()})
			}
			return err
		}
	}
	k.owe(slices.DeleteFunc(all, func(m *member) bool { return slices.Contains(members, m) }))
	if err := k.again(ctx, members); err != nil {
		return err
	}
	return k.settleDebts(ctx)
}

// owe notes that members are to be restarted once what they depend on is ready:
// that may take until a later command.
func (k *keeper) owe(members []*member) {
	for _, m := range members {
		m.set(func(c *ContainerState) { c.Owed = true })
	}
}

// settleDebts restarts the members that this is owed to.
func (k *keeper) settleDebts(ctx context.Context) error {
	all, err := k.chosen(nil)
	if err != nil {
		return err
	}
	return k.again(ctx, slices.DeleteFunc(all, func(m *member) bool {
		c, _, _ := m.now()
		return !c.Owed || !m.runs(&c) || k.stray(m)
	}))
}

// again ends members and starts them anew.
func (k *keeper) again(ctx context.Context, members []*member) error {
	if len(members) == 0 {
		return nil
	}
	k.endAll(members, Waiting)
	beginAll(members, nil)
	return k.comeUp(ctx, members)
}

// remove throws away what stopped members wrote, and their logs.
func (k *keeper) remove(members []*member) error {
	for _, m := range members {
		if c, _, _ := m.now(); c.alive() || m.alive() {
			return fmt.Errorf("station %q runs: stop it first", c.Container)
		}
	}
	var errs []error
	for _, m := range members {
		errs = append(errs, k.forget(m))
		m.set(func(c *ContainerState) {
			*c = ContainerState{Container: c.Container, Station: c.Station, State: Created}
		})
		m.event(Event{Kind: EventRemoved})
		m.phase(PhaseRemoved, "", 0)
	}
	return errors.Join(errs...)
}

// alive tells whether a life of the member is under way.
func (m *member) alive() bool {
	m.k.mu.Lock()
	defer m.k.mu.Unlock()
	return m.present()
}

// forget removes what a stopped member wrote, its logs, its output streams and
// its cgroup.
func (k *keeper) forget(m *member) error {
	c, _, _ := m.now()
	if err := native.RemoveCgroup(k.cgroup(c.Container)); err != nil {
		return err
	}
	errs := []error{k.forgetLayer(c.Container), removeLogs(logPath(k.layout, k.name, c.Container))}
	for _, which := range []string{"stdin", "stdout", "stderr"} { // stdin: an earlier version made one
		err := os.Remove(stream(k.layout, k.name, c.Container, which))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("cannot remove an output stream of %q: %w", c.Container, err))
		}
	}
	return errors.Join(errs...)
}

func (k *keeper) forgetLayer(container string) error {
	for _, dir := range []string{k.layout.writable(k.name, container), filepath.Dir(k.layout.anonymous(k.name, container, ""))} {
		if err := native.RemoveAll(dir); err != nil {
			return fmt.Errorf("cannot remove the writable layer of %q: %w", container, err)
		}
	}
	return nil
}
