package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"platelayer/containers"
	"platelayer/containers/native"
)

// OneOff is a station that is there for one command and that no file has.
type OneOff struct {
	Of string `json:"of"` // "cluster/station", of which it is a copy
	// Runner is the program that executes the command in it and without which it
	// ends; nil where the command is the station's own.
	Runner *containers.ProcessRef `json:"runner,omitempty"`
}

// withOneOffs gives the intent the one-off stations of another that fit into
// it, with the images that they run on.
func (i *Intent) withOneOffs(of *Intent) *Intent {
	out := *i
	out.OneOffs = nil
	for _, s := range of.Topology.Stations() {
		o, ok := of.OneOffs[s.ID()]
		if !ok {
			continue
		}
		if t, fits := out.Topology.With(s); fits {
			out.Topology = t
			out.keep(s.ID(), o)
			out.keepImage(s.Digest, of.Images)
		}
	}
	return &out
}

func (i *Intent) keep(id string, o OneOff) {
	if i.OneOffs = maps.Clone(i.OneOffs); i.OneOffs == nil {
		i.OneOffs = map[string]OneOff{}
	}
	i.OneOffs[id] = o
}

func (i *Intent) keepImage(digest string, of Images) {
	folders, ok := of[digest]
	if !ok {
		return
	}
	if i.Images = maps.Clone(i.Images); i.Images == nil {
		i.Images = Images{}
	}
	i.Images[digest] = folders
}

// oneOff tells whether a station is one, and what is known of it.
func (k *keeper) oneOff(id string) (OneOff, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o, ok := k.intent.OneOffs[id]
	return o, ok
}

// runOneOff makes a one-off station, after what it depends on. One that does
// not come to run is removed again.
func (k *keeper) runOneOff(ctx context.Context, r *request) error {
	k.mu.Lock()
	next := *k.intent
	k.mu.Unlock()
	id := r.Station.ID()
	t, fits := next.Topology.With(r.Station)
	if !fits {
		return fmt.Errorf("there is no place for %q: somebody else has its name or its address", id)
	}
	next.Topology = t
	next.keep(id, *r.OneOff)
	err := k.change(ctx, &request{Intent: &next, Only: []string{id}, oneOff: true})
	if k.member(id) == nil {
		return err // all of it has been taken back
	}
	if err != nil {
		return errors.Join(err, k.dropOneOffs([]string{id}))
	}
	k.mind(id)
	return nil
}

// mind removes a one-off station once its work is done: its command has ended,
// or the program that executes commands in it.
func (k *keeper) mind(id string) {
	o, _ := k.oneOff(id)
	m := k.member(id)
	if m == nil {
		return
	}
	go func() {
		if o.Runner != nil {
			for native.Alive(*o.Runner) {
				p, err := native.OpenProcess(*o.Runner)
				if err == nil {
					_, err = p.Wait()
				}
				if err != nil { // out of descriptors, most likely
					time.Sleep(time.Second)
				}
			}
		} else {
			k.mu.Lock()
			done := m.done
			k.mu.Unlock()
			if done != nil {
				<-done
			}
		}
		// The next one may have its name by then.
		if err := k.tidy([]string{id}, func(id string) bool { return k.member(id) == m }); err != nil {
			m.event(Event{Kind: EventFailed, Detail: err.Error()})
		}
	}()
}

// runsFor tells whether a one-off station is there for who asks.
func (k *keeper) runsFor(id string, asked *OneOff) bool {
	o, is := k.oneOff(id)
	return is && (asked == nil || o.Runner != nil && asked.Runner != nil && *o.Runner == *asked.Runner)
}

// mindAll minds the one-off stations that an earlier keeper had.
func (k *keeper) mindAll() {
	k.mu.Lock()
	ids := slices.Collect(maps.Keys(k.intent.OneOffs))
	k.mu.Unlock()
	for _, id := range ids {
		k.mind(id)
	}
}

// tidy removes one-off stations as soon as no other operation is under way,
// those that are still the ones meant. Nobody asks for it, so nobody holds the
// topology's lock; `down` needs no help.
func (k *keeper) tidy(ids []string, meant func(id string) bool) error {
	k.tidying.Lock()
	defer k.tidying.Unlock()
	k.operating.Lock()
	defer k.operating.Unlock()
	k.mu.Lock()
	retired := k.retired
	k.mu.Unlock()
	if retired {
		return nil
	}
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !meant(id) })
	if err := k.dropOneOffs(ids); err != nil {
		return err
	}
	return k.flush()
}

// dropOneOffs ends one-off stations and removes all of them. Others are left
// alone, and so are those that are gone already.
func (k *keeper) dropOneOffs(ids []string) error {
	k.mu.Lock()
	next := *k.intent
	k.mu.Unlock()
	next.OneOffs = maps.Clone(next.OneOffs)
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		_, is := next.OneOffs[id]
		delete(next.OneOffs, id)
		return !is
	})
	if len(ids) == 0 {
		return nil
	}
	next.Topology = next.Topology.Without(ids...)
	return k.change(context.Background(), &request{Intent: &next, Only: []string{}, oneOff: true})
}

// lasting leaves out what can't be started again: one-off stations, and those
// that the file has no longer while a change has not finished. One of the former
// that was asked for by name is an error.
func (k *keeper) lasting(members []*member, named []string) ([]*member, error) {
	var last []*member
	for _, m := range members {
		id := m.definition().ID()
		_, is := k.oneOff(id)
		switch {
		case !is && !k.stray(m):
			last = append(last, m)
		case is && slices.Contains(named, id):
			return nil, fmt.Errorf("station %q is there for one command: it cannot be started again", id)
		}
	}
	return last, nil
}

// forgetOneOffs removes what one-off stations left that a reboot ended.
func forgetOneOffs(l Layout, i *Intent) error {
	var errs []error
	for _, s := range i.Topology.Stations() {
		if _, is := i.OneOffs[s.ID()]; is {
			container := i.Topology.ContainerName(s)
			errs = append(errs, native.RemoveAll(l.writable(i.Topology.Name, container)), removeLogs(logPath(l, i.Topology.Name, container)))
		}
	}
	return errors.Join(errs...)
}
