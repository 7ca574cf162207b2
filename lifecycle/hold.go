package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"

	"platelayer/containers/native"
)

// hold has a running topology's keeper pause those of the stations that run,
// until letGo is called or this process ends, however it ends. Stations that a
// user has paused stay so.
func hold(ctx context.Context, l Layout, name string, stations []string) (letGo func() error, err error) {
	unlock, err := lock(l, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	awaitKilled(l, name)
	found, err := look(l, name)
	switch {
	case err != nil:
		return nil, err
	case found.intent == nil:
		return nil, &NotKnown{name}
	case !found.running:
		return nil, &NotUp{name}
	}
	// A keeper of an earlier program may not know how to.
	if err := attend(ctx, l, found.intent, found.state, true, nil); err != nil {
		return nil, err
	}
	conn, err := dialKeeper(l, name)
	if err != nil {
		return nil, err
	}
	if err := hear(ctx, conn, name, request{Op: opHold, Stations: stations}, func(said *reply) (bool, error) { return said.Changed, nil }); err != nil {
		conn.Close()
		return nil, err
	}
	return func() error {
		defer conn.Close()
		if half, ok := conn.(*net.UnixConn); ok {
			if err := half.CloseWrite(); err != nil {
				return err
			}
		}
		// Not when ctx has ended: what is paused is to go on.
		err := hearOut(context.WithoutCancel(ctx), conn, name, func(said *reply) (bool, error) { return said.Done, nil })
		if lost := new(KeeperEnded); errors.As(err, &lost) { // the next one lets them go on
			err = Tend(context.WithoutCancel(ctx), l, name, nil)
		}
		return err
	}, nil
}

// hold pauses stations for as long as a caller is there.
func (k *keeper) hold(c *caller, stations []string, gone <-chan struct{}) error {
	if !k.tryOperating() {
		return &Busy{k.name}
	}
	members, err := k.chosen(stations)
	if err == nil {
		members, err = k.holdAll(members)
	}
	err = errors.Join(err, k.flush())
	k.operating.Unlock()
	if err == nil {
		c.say(reply{Changed: true}) // they are paused
		<-gone
	}
	return errors.Join(err, k.letGo(members), k.flush())
}

// holdAll freezes those that run, and gives those that are held then.
func (k *keeper) holdAll(members []*member) (held []*member, err error) {
	k.freezing.Lock()
	defer k.freezing.Unlock()
	for _, m := range members {
		now, _, _ := m.now()
		if now.State == Paused && !now.Held && now.alive() {
			continue // by a user
		}
		if err := k.freezeOne(m, true); err != nil {
			return held, err
		}
		m.set(func(c *ContainerState) { c.Held = c.State == Paused })
		m.holds++
		held = append(held, m)
	}
	return held, nil
}

// letGo lets those go on that nobody else holds and no user has paused since.
func (k *keeper) letGo(members []*member) error {
	k.freezing.Lock()
	defer k.freezing.Unlock()
	var errs []error
	for _, m := range members {
		m.holds--
		if now, _, _ := m.now(); m.holds == 0 && now.State == Paused && now.Held {
			errs = append(errs, k.freezeOne(m, false))
		}
	}
	return errors.Join(errs...)
}

// freeze pauses stations, or lets them go on, as a user says. None stays paused
// of which that can't be written down: everybody would take it for running.
func (k *keeper) freeze(members []*member, frozen bool) error {
	k.freezing.Lock()
	defer k.freezing.Unlock()
	var errs []error
	var fresh []*member
	for _, m := range members {
		was, _, _ := m.now()
		err := k.freezeOne(m, frozen)
		if err == nil && was.State == Running {
			fresh = append(fresh, m)
		}
		errs = append(errs, err)
	}
	if len(fresh) == 0 || !frozen {
		return errors.Join(errs...)
	}
	if err := k.flush(); err != nil {
		errs = append(errs, err)
		for _, m := range fresh {
			errs = append(errs, k.freezeOne(m, false))
		}
	}
	return errors.Join(errs...)
}

func (k *keeper) freezeOne(m *member, frozen bool) error {
	from, to, kind := Running, Paused, EventPaused
	if !frozen {
		from, to, kind = Paused, Running, EventUnpaused
	}
	c, _, _ := m.now()
	if c.State != from || !c.alive() {
		if c.State != to {
			return fmt.Errorf("station %q is not running", c.Container)
		}
		m.set(func(c *ContainerState) { c.Held = false })
		return nil
	}
	// It may end at any time, and what it has come to then stays.
	become := func(state string) {
		m.set(func(c *ContainerState) {
			if c.Held = false; c.started() {
				c.State = state
			}
		})
	}
	// Noted first: a check that fails meanwhile does not count.
	if frozen {
		become(to)
	}
	if err := native.Freeze(k.cgroup(c.Container), frozen); err != nil {
		become(from)
		return fmt.Errorf("cannot %s %q: %w", map[bool]string{true: "pause", false: "unpause"}[frozen], c.Container, err)
	}
	become(to)
	m.event(Event{Kind: kind})
	return nil
}
