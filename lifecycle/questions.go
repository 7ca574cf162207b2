package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"platelayer/backbone"
)

// Question is a DNS question that the backbone has answered, and who asked it;
// its JSON form is stable.
type Question struct {
	backbone.Question
	Station string `json:"station,omitempty"` // "cluster/station"; "" where the address is nobody's
}

// Questions hands each DNS question from now on to emit, until ctx ends or the
// topology is down. Where its keeper ends it waits for the next.
func Questions(ctx context.Context, l Layout, name string, emit func(Question) error) error {
	if _, err := readIntent(l, name); err != nil {
		return err
	}
	conn, err := dialKeeper(l, name)
	if err != nil {
		return err
	}
	for {
		if err := questionsOf(ctx, conn, name, emit); err != nil || ctx.Err() != nil {
			return err
		}
		if conn = awaitKeeper(ctx, l, name); conn == nil {
			return nil
		}
	}
}

// awaitKeeper gives a connection to the next keeper of a topology, or nil when it
// is down or ctx ends.
func awaitKeeper(ctx context.Context, l Layout, name string) net.Conn {
	const pause = 200 * time.Millisecond
	for {
		if found, err := look(l, name); err != nil || !found.running {
			return nil
		}
		if conn, err := dialKeeper(l, name); err == nil {
			return conn
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// questionsOf hands on what one keeper says, until it ends or ctx does.
func questionsOf(ctx context.Context, conn net.Conn, name string, emit func(Question) error) error {
	defer conn.Close()
	err := hear(ctx, conn, name, request{Op: opQuestions}, func(said *reply) (bool, error) {
		if said.Question == nil {
			return false, nil
		}
		return false, emit(*said.Question)
	})
	ended := new(KeeperEnded)
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return nil
	case !errors.As(err, &ended):
		return err
	case ended.Err != nil:
		return fmt.Errorf("cannot reach the keeper of %q: %w", name, ended.Err)
	}
	return nil
}

// tellQuestions tells a caller of each DNS question until gone is closed. The
// backbone tells the keeper of them only while there is such a caller.
func (k *keeper) tellQuestions(c *caller, gone <-chan struct{}) {
	k.mu.Lock()
	k.listeners[c] = struct{}{}
	talk := k.backbone.talk
	k.mu.Unlock()
	k.followQuestions(talk)
	c.say(reply{Changed: true}) // from now on
	<-gone
	k.mu.Lock()
	delete(k.listeners, c)
	last := len(k.listeners) == 0
	talk = k.backbone.talk
	k.mu.Unlock()
	if last && talk != nil {
		_ = talk.Follow(nil) // one that has gone tells nobody
	}
}

// followQuestions has a backbone tell of questions where somebody listens.
func (k *keeper) followQuestions(talk *backbone.Keeper) {
	k.mu.Lock()
	some := len(k.listeners) > 0
	k.mu.Unlock()
	if some && talk != nil {
		_ = talk.Follow(k.questions) // the next backbone is asked again
	}
}

func (k *keeper) questions(all []backbone.Question) {
	k.mu.Lock()
	defer k.mu.Unlock()
	who := map[netip.Addr]string{}
	for _, s := range k.intent.Topology.Stations() {
		for _, a := range addresses(s) {
			who[a] = s.ID()
		}
	}
	for _, p := range k.plan.DNS.Pointers {
		for _, h := range k.plan.DNS.Hosts {
			if h.FQDN == p.FQDN && h.Cluster == p.Cluster && who[p.Address] == "" {
				who[p.Address] = h.Station
			}
		}
	}
	for i := range all {
		q := Question{all[i], who[all[i].From]}
		for c := range k.listeners {
			c.say(reply{Question: &q})
		}
	}
}
