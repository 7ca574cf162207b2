package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
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
	File     string   // the topology file, absolute
	Keep     bool     // leave what a failed launch made
	Hosts    bool     // put the stations into the machine's hosts file
	Recreate bool     // start stations anew, without what they wrote
	Only     []string // of a topology that is up, touch these ("cluster/station") and what they need; nil is all
	// SameImages keeps what Only names, and more of the same, on the images that it
	// is up with, too.
	SameImages bool
	AtBoot     *bool         // bring it up at the machine's start too; nil leaves it as it is
	Timeout    time.Duration // for all stations to be ready; 0 is none
	Images     ImageOptions
	// Admitted is called when neither a policy nor an image is in the way any
	// more, and nothing has changed yet; may be nil.
	Admitted func()
	// Progress is told each finished step and each notice.
	Progress func(Progress)
}

// UpResult says what `up` did.
type UpResult struct {
	Unchanged bool     // the topology was up already, from the same file
	Changed   bool     // the topology was up already, from another
	Changes   []Change // then
	Stations  int
	Took      time.Duration
}

// Up brings a topology up, or changes a running one to what its file says now,
// and returns when every station is ready. It is the caller's half: the keeper
// does the work in launch or change. Whatever fails is undone, unless o.Keep.
func Up(ctx context.Context, l Layout, t *topology.Topology, o UpOptions) (*UpResult, error) {
	began := time.Now()
	_, err := netplan.Build(t)
	if err != nil {
		return nil, err
	}
	if err := needRoot("bring a topology up"); err != nil {
		return nil, err
	}
	if err := checkMachine(l, t); err != nil {
		return nil, err
	}
	if err := checkPorts(l, t, o.File); err != nil {
		return nil, err
	}
	noteContents(t)
	if o.Images.gate, err = newGate(l, t, o.File, o.Images.Registry); err != nil {
		return nil, err
	}
	if err := o.Images.gate.admit(t.Stations()); err != nil {
		return nil, err
	}
	if o.Images.gate.lock == nil {
		o.Images.stay = staying(l, t, o)
	}
	images, provided, err := provideImages(ctx, l, t.Stations(), o.Images)
	if err != nil {
		return nil, err
	}
	defer provided()
	if o.Admitted != nil {
		o.Admitted()
	}
	unlock, err := lock(l, t.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	intent, err := newIntent(l, t, images, o)
	if err != nil {
		return nil, err
	}
	result := &UpResult{Stations: len(t.Stations())}
	awaitKilled(l, t.Name)
	found, err := look(l, t.Name)
	if err == nil && !found.running {
		err = clearAway(l, t.Name, found, o)
	}
	if err != nil {
		return nil, err
	}
	// What was cleared away has let go of its images, which may be these.
	if err := holdImages(ctx, l, t.Name, images, true); err != nil {
		return nil, err
	}
	provided()
	defer dropStrayHold(l, t.Name)
	if found.running {
		err = changeRunning(ctx, l, found, intent, o, result)
		images = intent.withOneOffs(found.intent).Images
	} else {
		err = launchAnew(ctx, l, found, intent, o)
	}
	if err == nil {
		err = holdImages(ctx, l, t.Name, images, false)
	}
	if err == nil {
		err = nameStations(l, t, o.Hosts, o.Progress)
	}
	result.Took = time.Since(began)
	return result, err
}

// launchAnew starts a keeper that makes everything, and follows it until the
// topology is up or has failed.
func launchAnew(ctx context.Context, l Layout, found *situation, intent *Intent, o UpOptions) error {
	if found.asleep {
		intent.Launched = !o.Recreate
		if err := errors.Join(outdate(l, found.intent.Topology, intent.Topology), forgetOneOffs(l, found.intent)); err != nil {
			return err
		}
	}
	err := record(l, intent)
	if err == nil {
		var conn net.Conn
		if conn, err = startKeeper(l, intent); err == nil {
			// After the undoing: a keeper whose caller is gone undoes by itself.
			defer conn.Close()
			r := request{Op: opLaunch, Keep: o.Keep, Timeout: o.Timeout}
			err = converse(ctx, conn, intent.Topology.Name, r, o.Progress)
		}
	}
	if err != nil && !o.Keep {
		if undo := undo(l, intent.Topology.Name, intent.Launched); undo != nil {
			err = errors.Join(err, fmt.Errorf("cannot undo all of it: %w", undo))
		}
	}
	return err
}

// launch is the keeper's half of up, in the order of DESIGN.md section 5.
func (k *keeper) launch(ctx context.Context) error {
	step := stepper(ctx, k.tell)

	var roots []*root
	defer func() { discard(roots) }()
	return firstError(
		step("ports", func() error {
			err := k.openPorts()
			if err == nil {
				k.switchPorts()
			}
			return err
		}),
		step("network", func() error { return kernel.Apply(ctx, k.plan, k.kernelOptions()) }),
		step("machine's bridges", k.warnOfFilter),
		step("uplink", k.reach),
		step("roots", func() (err error) {
			roots, err = k.assemble(ctx)
			return err
		}),
		step("seals", func() error { return checkSeals(ctx, roots) }),
		step("backbone", func() error { return k.startBackbone(ctx, roots[0]) }),
		step("stations", func() error {
			beginAll(k.members, roots[1:])
			return k.allReady(ctx, k.members)
		}),
		step("state", func() error {
			if err := k.launched(); err != nil {
				return err
			}
			k.event(Event{Kind: EventUp})
			return nil
		}),
	)
}

// changeRunning has the keeper of a running topology make it what the intent
// says, where there is anything to do. What a command that was killed has begun
// goes on for a moment, and may be about to stop what still runs: only after it
// can be told what there is to do.
func changeRunning(ctx context.Context, l Layout, found *situation, intent *Intent, o UpOptions, result *UpResult) error {
	const (
		most  = 10 * time.Second
		pause = 20 * time.Millisecond
	)
	for until := time.Now().Add(most); ; time.Sleep(pause) {
		err := changeNow(ctx, l, found, intent, o, result)
		if busy := new(Busy); !errors.As(err, &busy) || ctx.Err() != nil || time.Now().After(until) {
			return err
		}
		now, lookErr := look(l, intent.Topology.Name)
		if lookErr != nil || !now.running {
			return errors.Join(err, lookErr)
		}
		found = now
	}
}

func changeNow(ctx context.Context, l Layout, found *situation, intent *Intent, o UpOptions, result *UpResult) error {
	if err := attend(ctx, l, found.intent, found.state, true, o.Progress); err != nil {
		return err
	}
	// Somebody may have thrown the logs away, and their folder with them.
	if err := os.MkdirAll(l.logs(intent.Topology.Name), 0o700); err != nil {
		return fmt.Errorf("cannot make the logs folder of %q: %w", intent.Topology.Name, err)
	}
	state, err := readState(l, intent.Topology.Name)
	if err != nil {
		return err
	}
	wanted := intent.withOneOffs(found.intent).Topology
	result.Changes = pending(found.intent, state, wanted, choose(intent.Topology, o.Recreate, o.Only))
	same := found.intent.Fingerprint == intent.Fingerprint && found.intent.AtBoot == intent.AtBoot && state.Status == StatusUp
	if same && len(result.Changes) == 0 && allWell(state) && !state.Retired {
		result.Unchanged = true
		return ask(ctx, l, intent.Topology.Name, request{Op: opMend, Intent: &Intent{Fingerprint: intent.Fingerprint}}, o.Progress)
	}
	result.Changed = len(result.Changes) > 0 || !same
	result.Unchanged = !result.Changed
	for _, c := range result.Changes {
		if slices.Contains(c.Reasons, layerLost) {
			o.Progress(Progress{Notice: c.Name + ": " + layerLost})
		}
	}
	r := request{Op: opChange, Intent: intent, Recreate: o.Recreate, Only: o.Only, Timeout: o.Timeout}
	err = ask(ctx, l, intent.Topology.Name, r, o.Progress)
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("%w: the keeper goes on with what it has begun", err)
	}
	return err
}

// allWell tells whether every station that runs is ready.
func allWell(state *State) bool {
	return !slices.ContainsFunc(state.Stations, func(c *ContainerState) bool {
		return c.started() && !metNow(c, ready)
	})
}

// Elsewhere is a name that a topology of another state folder has.
type Elsewhere struct{ Name, Path string }

func (e *Elsewhere) Error() string {
	return fmt.Sprintf("the name %q is taken: %s belongs to a topology under another --root, or to another program", e.Name, e.Path)
}

// situation is what there is under a name before `up`.
type situation struct {
	intent  *Intent
	state   *State
	running bool // its processes are there
	asleep  bool // they are not, but what its stations wrote is: after a reboot
	remains bool // of a launch that never came up
}

// look tells what there is under a name. What it can't judge is an error.
func look(l Layout, name string) (*situation, error) {
	f := new(situation)
	var err error
	unknown := new(NotKnown)
	if f.intent, err = readIntent(l, name); errors.As(err, &unknown) {
		_, statErr := os.Lstat(l.run(name))
		f.remains = statErr == nil // an earlier `up` was killed before it wrote anything
		return f, nil
	} else if err != nil {
		return nil, err
	}
	if f.state, err = readState(l, name); err != nil && !errors.As(err, &unknown) {
		return nil, err
	}
	switch {
	case f.state != nil && anyAlive(f.state) && (f.state.Status == StatusUp || f.state.Status == StatusChanging):
		f.running = true
	case f.state != nil && anyAlive(f.state) && f.state.Status == StatusFailed:
		return nil, fmt.Errorf("topology %q is here already, in state %q: take it down first (platelayer down %s)", name, f.state.Status, name)
	case f.intent.Launched:
		f.asleep = true
	default:
		f.remains = true
	}
	return f, nil
}

// clearAway removes what an earlier life of the topology left in the kernel.
func clearAway(l Layout, name string, found *situation, o UpOptions) error {
	if path := l.elsewhere(name); path != "" {
		return &Elsewhere{name, path}
	}
	switch {
	case found.asleep && !o.Recreate:
		o.Progress(Progress{Notice: fmt.Sprintf("%q was up before: its stations keep what they wrote", name)})
	case found.asleep, found.remains:
		o.Progress(Progress{Notice: fmt.Sprintf("removing what an earlier %q left", name)})
	}
	return undo(l, name, found.asleep && !o.Recreate)
}

// undo takes back a launch. What stations wrote in an earlier one is kept.
func undo(l Layout, name string, keepWritten bool) error {
	if keepWritten {
		return clear(l, name)
	}
	return dismantle(l, name)
}

// newIntent puts the program into the store, from where the keeper and the
// built-in image use it, and says what is to be made.
func newIntent(l Layout, t *topology.Topology, images Images, o UpOptions) (*Intent, error) {
	builtin, binary, err := image.Builtin(l.Lib)
	if err != nil {
		return nil, err
	}
	print, err := fingerprint(t)
	if err != nil {
		return nil, err
	}
	i := &Intent{Version: formatVersion, File: o.File, Fingerprint: print, Binary: binary, Builtin: builtin, Images: images, Topology: t, Project: o.Images.gate.project}
	i.UID, i.GID = Invoker()
	if before, err := readIntent(l, t.Name); err == nil {
		i.AtBoot = before.AtBoot
	}
	if o.AtBoot != nil {
		i.AtBoot = *o.AtBoot
	}
	return i, nil
}

// record writes the intent to disk before anything of the kernel is touched.
func record(l Layout, i *Intent) error {
	name := i.Topology.Name
	for _, dir := range []string{l.run(name), l.logs(name)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("cannot make the state folder of %q: %w", name, err)
		}
	}
	// Root of a station can leave setuid programs in a volume or in its root: no
	// user of the machine may reach them.
	if err := os.Chmod(l.Lib, 0o700); err != nil {
		return fmt.Errorf("cannot close %s to other users: %w", l.Lib, err)
	}
	// Programs of format 1 look here, and take what has no intent for remains.
	mark := struct {
		Version int `json:"version"`
	}{formatVersion}
	if err := write(l.firstIntent(name), mark, false); err != nil {
		return err
	}
	return write(l.intent(name), i, true)
}

func needRoot(what string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return &containers.Unsupported{Feature: "root privilege", Err: fmt.Errorf("only root can %s", what)}
}

// choice is what `up` was asked to do besides what the file says: with which
// stations, and which of them are started anew. nil is all.
type choice struct{ start, anew map[string]bool }

// choose reads the choice from the stations that were named; nil is all. What
// they need is started with them.
func choose(t *topology.Topology, recreate bool, named []string) choice {
	c := choice{anew: map[string]bool{}}
	if recreate && named == nil {
		c.anew = nil
	}
	if named == nil {
		return c
	}
	needs := map[string][]string{}
	for _, s := range t.Stations() {
		for _, d := range s.DependsOn {
			needs[s.ID()] = append(needs[s.ID()], d.Station)
		}
	}
	c.start = map[string]bool{}
	for queue := slices.Clone(named); len(queue) > 0; queue = queue[1:] {
		if id := queue[0]; !c.start[id] {
			c.start[id] = true
			queue = append(queue, needs[id]...)
		}
	}
	for _, id := range named {
		c.anew[id] = recreate
	}
	return c
}

// renews tells whether a station is started without what it wrote.
func (o choice) renews(s *topology.Station) bool { return o.anew == nil || o.anew[s.ID()] }

// due tells what `up` does with a station that is in state c and runs or not,
// and why; "" is nothing. What its file changes in place is not looked at.
func (o choice) due(c *ContainerState, runs bool, s *topology.Station) (Action, string) {
	chosen := o.start == nil || o.start[s.ID()]
	same := c.Made == madeFrom(s)
	switch {
	case c.State == Created && chosen:
		return ActionCreate, ""
	case o.renews(s):
		return ActionRecreate, "asked for: what it wrote is thrown away"
	case runs && !same:
		return ActionRecreate, "an earlier change was interrupted"
	case runs, same && metNow(c, topology.CompletedSuccessfully), !chosen:
		return "", ""
	}
	return ActionStart, "it is " + c.State
}

// pending lists what `up` would do to a topology: what its file says anew, and
// the stations that do not run.
func pending(have *Intent, state *State, want *topology.Topology, o choice) []Change {
	changes := compare(have.Topology, want)
	index := map[string]int{}
	for i, c := range changes {
		if c.Object == "station" {
			index[c.Name] = i
		}
	}
	byName := map[string]*ContainerState{}
	for _, c := range state.Stations {
		byName[c.Container] = c
	}
	for _, s := range want.Stations() {
		c := byName[want.ContainerName(s)]
		i, listed := index[s.ID()]
		if c == nil || (listed && changes[i].Action == ActionCreate) {
			continue
		}
		if listed && changes[i].Action == ActionRecreate && (c.alive() || c.Made == "") {
			continue
		}
		action, why := o.due(c, c.alive(), s)
		if action == "" && c.Owed && c.alive() {
			action, why = ActionRecreate, "it asks to be restarted with what it depends on"
		}
		if action == "" {
			continue
		}
		change := Change{Object: "station", Name: s.ID()}
		if listed {
			change = changes[i]
		}
		change.Action = action
		if why != "" {
			change.Reasons = append(change.Reasons, why)
		}
		if listed {
			changes[i] = change
		} else {
			changes = append(changes, change)
		}
	}
	return changes
}

// Pending tells what `up` would do to a running topology; up is false where
// none runs under the name.
func Pending(l Layout, t *topology.Topology, recreate bool, only []string) (changes []Change, up bool, err error) {
	found, err := look(l, t.Name)
	if err != nil || !found.running {
		return nil, false, err
	}
	noteContents(t)
	if err := noteImages(l, t); err != nil {
		return nil, false, err
	}
	wanted := (&Intent{Topology: t}).withOneOffs(found.intent).Topology
	return pending(found.intent, found.state, wanted, choose(t, recreate, only)), true, nil
}

// runs tells whether the machine still has processes of the topology's.
func runs(l Layout, name string) bool {
	state, err := readState(l, name)
	return err == nil && (native.Alive(state.Keeper) || anyAlive(state))
}
