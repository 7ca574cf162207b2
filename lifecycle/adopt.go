package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"

	"platelayer/containers"
	"platelayer/containers/image"
	"platelayer/containers/native"
)

// adopt takes over what an earlier keeper left running: its stations through
// their pidfds, their output where it stood in the pipes, the backbone through
// its socket. A station that has ended meanwhile is treated as its policy says
// for a failure: nobody knows its code.
func (k *keeper) adopt(ctx context.Context) error {
	if err := os.MkdirAll(k.layout.streams(k.name), 0o700); err != nil {
		return fmt.Errorf("cannot make the folder of output streams: %w", err)
	}
	k.mu.Lock()
	k.state.OneOff = false // whatever was under way did not finish
	k.mu.Unlock()
	members, err := k.chosen(nil)
	if err != nil {
		return err
	}
	var begin []*member // once all are known to run or not
	for _, m := range members {
		again, err := k.adoptStation(ctx, m)
		if err != nil {
			return err
		}
		if again {
			begin = append(begin, m)
		}
	}
	for _, m := range begin {
		c, _, _ := m.now()
		m.begin(nil, nil, c.Restarts)
	}
	if err := k.adoptBackbone(ctx); err != nil {
		k.tell(Progress{Notice: fmt.Sprintf("the backbone does not answer yet: %v", err)})
		go k.reviveBackbone(0)
	}
	k.takeTerminals(ctx)
	k.takePorts(ctx)
	k.mindAll()
	k.event(Event{Kind: EventAdopted})
	return k.flush() // who asked for a keeper reads the state next
}

// adoptStation takes over a station that runs, and tells of one that doesn't
// whether it is to be started.
func (k *keeper) adoptStation(ctx context.Context, m *member) (again bool, err error) {
	c, _, _ := m.now()
	if c.alive() {
		process, err := native.OpenContainer(c.Process, k.cgroup(c.Container))
		if err == nil {
			return false, k.takeOver(m, process)
		}
		if !errors.Is(err, os.ErrProcessDone) {
			return false, err
		}
	}
	if err := k.endUnknown(ctx, c.Container); err != nil {
		return false, err
	}
	switch c.State {
	case Waiting, Starting, Running, Paused, Restarting:
		if k.stray(m) {
			m.set(func(c *ContainerState) { c.State, c.Health = Stopped, "" })
			return false, nil
		}
	}
	switch c.State {
	case Running, Paused:
		m.set(func(c *ContainerState) { c.State, c.Exit, c.Health = Exited, nil, "" })
		m.event(Event{Kind: EventDied, Detail: "while it had no keeper"})
		if s := m.definition(); !shouldRestart(s.Restart, nil, c.Restarts) {
			return false, nil
		}
		m.event(Event{Kind: EventRestarted})
		m.forgetPast(c.Restarts + 1)
		return true, nil
	case Waiting, Starting, Restarting:
		m.forgetPast(c.Restarts)
		return true, nil
	}
	return false, nil
}

// endUnknown ends what runs in a container that the state says is not running:
// the earlier keeper may have ended between a start and its record, and two
// processes would share one root. The cgroup goes too: some kernels that have
// cgroup.kill go on killing what is born in a cgroup on which it was used.
func (k *keeper) endUnknown(ctx context.Context, container string) error {
	if err := native.KillCgroup(ctx, k.cgroup(container)); err != nil {
		return err
	}
	return native.RemoveCgroup(k.cgroup(container))
}

// takeOver begins a life of a station that runs already.
func (k *keeper) takeOver(m *member, process containers.Process) error {
	output, err := k.collect(m.container(), m.definition().Logging)
	if err != nil {
		return err
	}
	if !m.definition().TTY { // takeTerminals
		output.release() // the station holds its streams open itself
	}
	k.mu.Lock()
	m.process, m.output = process, output
	if m.state.Made == "" { // format 1 did not say
		m.state.Made = madeFrom(m.station)
	}
	if m.state.State == Paused && m.state.Held { // who held it is not known here
		m.state.State, m.state.Held = Running, false
	}
	c := *m.state
	k.mu.Unlock()
	if c.State != Paused { // the earlier keeper may have ended within a pause
		_ = native.Freeze(k.cgroup(c.Container), false)
	}
	m.begin(nil, process, c.Restarts)
	return nil
}

// OtherMachine is a topology that was brought up in another network namespace
// than the command runs in: a keeper from here would connect its stations to
// what is outside of this one.
type OtherMachine struct{ Name, NetNS string }

func (e *OtherMachine) Error() string {
	return fmt.Sprintf("topology %q was brought up in another network namespace, %s", e.Name, e.NetNS)
}

// netNS names the network namespace that this program runs in, or is "" where
// that can't be told (namespaces(7)).
func netNS() string {
	name, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return ""
	}
	return name
}

// attend makes sure that a topology that runs has a keeper that this program
// can talk to: where there is none, one of another version, or one whose socket
// somebody has removed, a new one adopts the stations. With newest, a keeper of any other program is replaced.
// Its notices go to progress, which may be nil. The lock is held.
func attend(ctx context.Context, l Layout, intent *Intent, state *State, newest bool, progress func(Progress)) error {
	name := intent.Topology.Name
	builtin, binary, err := image.Builtin(l.Lib)
	if err != nil {
		return err
	}
	running := native.Alive(state.Keeper)
	switch {
	case running && state.API > apiVersion:
		return &OtherAPI{name, state.API, apiVersion}
	case running && state.API == apiVersion && (!newest || state.Binary == binary) && answers(l, name):
		return nil
	}
	if here := netNS(); state.NetNS != "" && here != state.NetNS && state.Boot == native.BootID() {
		return &OtherMachine{name, state.NetNS}
	}
	if running {
		if err := endKeeper(state.Keeper); err != nil {
			return err
		}
	}
	next := *intent
	next.Version, next.Binary, next.Builtin = formatVersion, binary, builtin
	if state.Status != StatusStarting {
		next.Launched = true // format 1 did not say
	}
	if err := record(l, &next); err != nil {
		return err
	}
	*intent = next
	conn, err := startKeeper(l, &next)
	if err != nil {
		return err
	}
	defer conn.Close()
	return converse(ctx, conn, name, request{Op: opAdopt}, func(p Progress) {
		if progress != nil && p.Notice != "" { // what stations do is not the command's
			progress(Progress{Notice: p.Notice})
		}
	})
}

// answers tells whether somebody listens on the keeper's socket.
func answers(l Layout, name string) bool {
	conn, err := dialKeeper(l, name)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// endKeeper ends a keeper without its stations: they are not tied to it.
func endKeeper(ref containers.ProcessRef) error {
	process, err := native.OpenProcess(ref)
	if err != nil {
		return nil // it has ended by itself
	}
	if err := process.Signal(9); err != nil {
		return nil
	}
	if _, err := process.Wait(); err != nil {
		return fmt.Errorf("cannot end the old keeper: %w", err)
	}
	return nil
}

// Tend gives a running topology whose keeper is gone a new one. Where another
// program is at work on it already, that one does. The new keeper's
// notices go to progress, which may be nil.
func Tend(ctx context.Context, l Layout, name string, progress func(Progress)) error {
	state, err := readState(l, name)
	if err != nil || native.Alive(state.Keeper) || !anyAlive(state) || os.Geteuid() != 0 {
		return nil // nothing to tend, or others say what is wrong
	}
	unlock, err := lock(l, name)
	if err != nil {
		return nil
	}
	defer unlock()
	intent, err := readIntent(l, name)
	if err != nil {
		return nil
	}
	if state, err = readState(l, name); err != nil || !anyAlive(state) {
		return nil
	}
	if state.Status == StatusStarting || state.Status == StatusFailed {
		return nil
	}
	return attend(ctx, l, intent, state, false, progress)
}
