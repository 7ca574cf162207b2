package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"platelayer/containers/native"
	"platelayer/netplan"
	"platelayer/netplan/kernel"
	"platelayer/topology"
)

// change is what `up` does to a running topology whose file says something
// else now. Until its step "stop" nothing that runs has been touched, and a
// failure leaves all as it was; after it the topology is what the new file
// says, with the stations that failed said so.
type change struct {
	k        *keeper
	request  *request
	old, new *Intent
	oldPlan  *netplan.Plan
	// unsure: an earlier change was interrupted, so nobody knows what of it is
	// done, and everything is compared with the kernel.
	unsure   bool
	status   string            // before
	choice   choice            // of the request
	recorded bool              // the new intent is on disk
	changes  map[string]Change // of stations
	created  []*member         // never ran
	removed  []*member         // the file has them no longer
	replaced []*member         // run, and are ended and started again
	idle     []*member         // do not run
	kept     []*member
	roots    []*root // of created
	// followers are of kept, and are restarted after what they depend on.
	followers []*member
}

// change makes a running topology what the request's intent says.
func (k *keeper) change(ctx context.Context, r *request) error {
	if r.Intent == nil || r.Intent.Topology == nil || r.Intent.Topology.Name != k.name {
		return errors.New("cannot change a topology to nothing")
	}
	c := &change{k: k, request: r, old: k.intent, oldPlan: k.plan, new: r.Intent, status: k.state.Status}
	c.unsure = c.status != StatusUp
	defer func() { discard(c.roots) }()

	step := stepper(ctx, k.tell)
	err := firstError(
		step("intent", c.begin),
		step("ports", k.openPorts),
		step("network", func() error { return kernel.Extend(ctx, k.plan, k.kernelOptions()) }),
		step("machine's bridges", k.warnOfFilter),
		step("seals", func() error { return c.check(ctx) }),
		step("volumes", func() error { return errors.Join(keepVolumes(k.layout, k.name), k.keepAuthority()) }),
	)
	if err != nil {
		return errors.Join(err, c.withdraw())
	}
	// From here on the caller's end no longer interrupts: half a change helps
	// nobody. Only the wait for readiness is given up.
	going := context.WithoutCancel(ctx)
	step = stepper(going, k.tell)
	var refused error // of a limit, say: no reason to leave stations stopped
	err = firstError(
		step("stop", c.stop),
		step("wiring", func() error { return c.rewire(going) }),
		step("uplink", func() error {
			if c.request.oneOff { // its network is there
				return nil
			}
			return k.reach()
		}),
		step("definitions", func() error {
			refused = c.redefine(going)
			return nil
		}),
		step("up", func() error {
			if refused != nil {
				return nil // still changing: the next `up` tries it again
			}
			return k.launched()
		}),
		step("stations", func() error { return unfinished(errors.Join(refused, c.start(ctx))) }),
	)
	if err != nil && k.state.OneOff {
		_ = k.become(k.state.Status) // from now on it is one that did not finish
	}
	return err
}

// begin records the new intent before the kernel is touched, and sorts the
// stations.
func (c *change) begin() error {
	k := c.k
	k.keepHostPaths() // of a life since
	if err := k.becomeFor(StatusChanging, c.request.oneOff && !c.unsure); err != nil {
		return err
	}
	c.new.Launched = true
	if err := outdate(k.layout, c.old.Topology, c.new.Topology); err != nil {
		return err
	}
	if err := write(k.layout.intent(k.name), c.new, true); err != nil {
		return err
	}
	c.recorded = true
	if err := k.intend(c.new); err != nil {
		return err
	}
	c.changes = map[string]Change{}
	for _, ch := range compare(c.old.Topology, c.new.Topology) {
		if ch.Object == "station" {
			c.changes[ch.Name] = ch
		}
	}
	all, err := k.chosen(nil)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, s := range c.new.Topology.Stations() {
		wanted[c.new.Topology.ContainerName(s)] = true
	}
	k.announce(slices.DeleteFunc(slices.Clone(all), func(m *member) bool { return !wanted[m.container()] }))
	c.choice = choose(c.new.Topology, c.request.Recreate, c.request.Only)
	for _, m := range all {
		now, _, _ := m.now()
		runs := m.runs(&now)
		action, _ := c.choice.due(&now, runs, m.definition())
		switch {
		case !wanted[now.Container]:
			c.removed = append(c.removed, m)
		case action == ActionCreate, now.State == Created && c.changes[now.Station].Action == ActionCreate:
			c.created = append(c.created, m)
		case action == ActionRecreate && runs:
			c.replaced = append(c.replaced, m)
		case action == "":
			c.kept = append(c.kept, m)
			m.phase(PhaseKept, "", 0)
		default:
			c.idle = append(c.idle, m)
		}
	}
	// What shares a namespace with one that is replaced ends with it.
	for _, m := range k.sharers(c.replaced) {
		if i := slices.Index(c.kept, m); i >= 0 {
			c.kept = slices.Delete(c.kept, i, i+1)
			c.replaced = append(c.replaced, m)
		}
	}
	// Those that ask to be restarted with others are, once these are ready.
	c.followers = slices.DeleteFunc(k.withFollowers(c.replaced), func(m *member) bool { return !slices.Contains(c.kept, m) })
	return nil
}

// check assembles the roots of all that will start and checks their seals: one
// bad file and nothing is changed.
func (c *change) check(ctx context.Context) error {
	k := c.k
	for _, m := range c.created {
		r, err := k.newRoot(m)
		if err != nil {
			return err
		}
		c.roots = append(c.roots, r)
	}
	prepare := func(r *root) error {
		if joins(r.station) {
			return k.rehearse(ctx, r)
		}
		return k.prepare(ctx, r)
	}
	if err := each(c.roots, prepare); err != nil {
		return err
	}
	var bad IntegrityError
	errs := []error{checkSeals(ctx, c.roots)}
	for _, m := range slices.Concat(c.replaced, c.idle, c.followers) {
		errs = append(errs, k.rehearseAnew(ctx, m))
	}
	var others []error
	for _, err := range errs {
		if refused := new(IntegrityError); errors.As(err, &refused) {
			bad.Files = append(bad.Files, refused.Files...)
		} else if err != nil {
			others = append(others, err)
		}
	}
	if len(bad.Files) > 0 {
		k.event(Event{Kind: EventIntegrity, Detail: bad.Error()})
		return &bad
	}
	return errors.Join(others...)
}

// withdraw takes back what was made for a change that is refused.
func (c *change) withdraw() error {
	k := c.k
	discard(c.roots)
	k.withdrawPorts()
	var errs []error
	if c.recorded {
		errs = append(errs, write(k.layout.intent(k.name), c.old, true))
	}
	errs = append(errs, restore(k.layout, c.new.Topology))
	for _, m := range c.created {
		errs = append(errs, k.forget(m))
	}
	k.dropAuthority()
	errs = append(errs, dropFreshVolumes(k.layout, k.name), k.dropHostPaths())
	if err := k.intend(c.old); err != nil {
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, kernel.Prune(c.oldPlan, k.kernelOptions()))
	_ = k.become(c.status) // on a full disk it is written later
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot take all of the change back: %w", err)
	}
	return nil
}

// stop ends what the file no longer has and what must be made anew.
func (c *change) stop() error {
	k := c.k
	k.endAll(slices.Concat(c.removed, c.replaced, c.idle), Waiting)
	var errs []error
	for _, m := range c.removed {
		// What was executed in a pid namespace that it shared may still run.
		errs = append(errs, native.KillCgroup(context.Background(), k.cgroup(m.container())), k.forget(m))
		m.set(func(c *ContainerState) {
			*c = ContainerState{Container: c.Container, Station: c.Station, State: Created}
		})
		m.event(Event{Kind: EventRemoved})
		m.phase(PhaseRemoved, "", 0)
	}
	for _, m := range slices.Concat(c.replaced, c.idle) {
		if ch, ok := c.changes[m.definition().ID()]; ok {
			m.event(Event{Kind: EventChanged, Detail: strings.Join(ch.Reasons, "; ")})
		}
		if c.choice.renews(m.definition()) || m.definition().Writable == "memory" { // what it had on disk is another root's
			errs = append(errs, k.forgetLayer(m.container()))
		}
	}
	k.mu.Lock()
	k.reorder() // without the removed
	k.mu.Unlock()
	return errors.Join(errs...)
}

// rewire brings the namespaces that the plans differ in to the new plan. To
// list what the kernel has of hundreds is the most of what a change costs.
func (c *change) rewire(ctx context.Context) error {
	k := c.k
	touched, gone := k.plan.NetNSNames(), true
	if !c.unsure {
		touched, gone = nil, false
		for _, d := range netplan.Diff(c.oldPlan, k.plan) {
			if d.Verb == netplan.VerbChange {
				touched = append(touched, d.NetNS)
			}
			// Of the fabric, it may be a bridge.
			gone = gone || d.Verb == netplan.VerbRemove || d.NetNS == k.plan.Fabric.NetNS
		}
		if name := k.plan.MustDivert(); name != "" && c.oldPlan.MustDivert() == "" && !slices.Contains(touched, name) {
			touched = append(touched, name) // it may have gone without
		}
	}
	if len(touched) > 0 {
		if err := kernel.Converge(ctx, c.oldPlan, k.plan, k.kernelOptions(), touched); err != nil {
			return err
		}
	}
	if !gone {
		return nil
	}
	return kernel.Prune(k.plan, k.kernelOptions())
}

// redefine gives stations that run on their new limits, names and checks.
func (c *change) redefine(ctx context.Context) error {
	k := c.k
	closeOld := k.switchPorts()
	errs := []error{k.configureBackbone(ctx)}
	closeOld()
	olds := map[string]*topology.Station{}
	for _, s := range c.old.Topology.Stations() {
		olds[s.ID()] = s
	}
	for _, m := range c.kept {
		s := m.definition()
		ch, changed := c.changes[s.ID()]
		old := olds[s.ID()]
		names, resolv := hosts(c.new.Topology, s), resolvConf(c.new.Topology, s)
		renamed := old == nil || hosts(c.old.Topology, old) != names || resolvConf(c.old.Topology, old) != resolv
		if !changed && !renamed && !c.unsure {
			continue
		}
		now, _, _ := m.now()
		if !now.alive() {
			continue
		}
		if c.unsure || old == nil || old.MemLimit != s.MemLimit || old.PidsLimit != s.PidsLimit || !reflect.DeepEqual(old.Resources, s.Resources) {
			if err := native.SetResources(k.cgroup(now.Container), s.MemLimit, s.PidsLimit, resources(s)); err != nil {
				errs = append(errs, fmt.Errorf("cannot change the limits of %q: %w", now.Container, err))
			}
			m.watchOOM()
		}
		if c.unsure || renamed {
			err := native.WriteFiles(now.Process, names, resolv)
			if err != nil && native.Alive(now.Process) {
				k.tell(Progress{Notice: fmt.Sprintf("%s keeps its old /etc/hosts or /etc/resolv.conf: %v", now.Container, err)})
			}
		}
		k.mu.Lock()
		if m.output != nil {
			m.output.setLimits(s.Logging)
		}
		k.mu.Unlock()
		if c.unsure || old == nil || !reflect.DeepEqual(old.Healthcheck, s.Healthcheck) {
			m.set(func(c *ContainerState) {
				if c.Health = ""; s.Healthcheck != nil {
					c.Health = healthStarting
				}
			})
			select {
			case m.redo <- struct{}{}:
			default:
			}
		}
		if changed {
			m.event(Event{Kind: EventChanged, Detail: strings.Join(ch.Reasons, "; ")})
		}
	}
	return errors.Join(errs...)
}

// start begins lives of all that does not run and waits until they are ready.
func (c *change) start(ctx context.Context) error {
	c.k.owe(c.followers)
	wanted := slices.Concat(c.created, c.replaced, c.idle)
	beginAll(wanted, c.roots)
	if c.request.oneOff {
		return c.k.allReady(ctx, wanted)
	}
	// Those that go on count too: a new check may find them ill.
	for _, m := range c.kept {
		if now, _, _ := m.now(); m.runs(&now) {
			wanted = append(wanted, m)
		}
	}
	if err := c.k.comeUp(ctx, wanted); err != nil {
		return err
	}
	if err := c.k.settleDebts(ctx); err != nil {
		return err
	}
	c.k.event(Event{Kind: EventUp})
	return nil
}
