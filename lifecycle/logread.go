package lifecycle

import (
	"container/heap"
	"context"
	"fmt"
	"time"

	"platelayer/topology"
)

// Record is one piece of a station's output.
type Record struct {
	Station string    `json:"station"`
	Time    time.Time `json:"time"`
	Stream  string    `json:"stream"` // stdout or stderr
	Text    string    `json:"text"`
	Partial bool      `json:"partial,omitempty"` // the line goes on in the next record of the stream
}

// LogOptions are the choices of `logs`.
type LogOptions struct {
	Stations []*topology.Station // none: all
	Follow   bool
	Tail     int       // lines of each station's past; negative is all
	Since    time.Time // zero: from the beginning
	Until    time.Time // zero: to the end
}

// Logs hands the stations' output to emit, sorted by time as far as it is
// there. With Follow it goes on until the topology is down, Until has come or
// ctx ends; it outlives the keeper.
func Logs(ctx context.Context, l Layout, name string, o LogOptions, emit func(Record) error) error {
	intent, err := readIntent(l, name)
	if err != nil {
		return err
	}
	which := o.Stations
	if len(which) == 0 {
		which = intent.Topology.Stations()
	}
	var wake wakeups
	if o.Follow {
		// Connected before the past is read: nothing is missed in between.
		if wake, err = connect(ctx, l, name); err != nil {
			return fmt.Errorf("cannot follow the logs of %q: %w", name, err)
		}
	}
	tails := make([]*tail, len(which))
	for i, s := range which {
		tails[i] = &tail{
			station: s.Name, path: logPath(l, name, intent.Topology.ContainerName(s)),
			follow: o.Follow, since: o.Since, until: o.Until,
		}
		if o.Stations == nil || ambiguous(intent.Topology, s) {
			tails[i].station = label(intent.Topology, s)
		}
		defer tails[i].close()
		if err := tails[i].open(o.Tail); err != nil {
			if wake != nil {
				wake.Close()
			}
			return err
		}
	}
	if wake == nil {
		return merge(tails, emit)
	}
	if !o.Until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, o.Until)
		defer cancel()
	}
	// A station that writes faster than the caller reads must not keep it here.
	drain := func() error {
		return merge(tails, func(r Record) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return emit(r)
		})
	}
	return follow(ctx, drain, wake, reconnect(l, name))
}

// merge emits what the tails have, the oldest first.
func merge(tails []*tail, emit func(Record) error) error {
	const turn = 1024 // records after which tails that had nothing are asked again
	for {
		var ready newest
		for i, t := range tails {
			more, err := t.peek()
			if err != nil {
				return err
			}
			if t.order = i; more {
				ready = append(ready, t)
			}
		}
		if len(ready) == 0 {
			return nil
		}
		heap.Init(&ready)
		for n := 0; n < turn && len(ready) > 0; n++ {
			t := ready[0]
			if err := emit(t.take()); err != nil {
				return err
			}
			more, err := t.peek()
			if err != nil {
				return err
			}
			if more {
				heap.Fix(&ready, 0)
			} else {
				heap.Pop(&ready)
			}
		}
	}
}

// newest is a heap of tails by the time of their next record.
type newest []*tail

func (h newest) Len() int      { return len(h) }
func (h newest) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h newest) Less(i, j int) bool {
	if c := h[i].next.Time.Compare(h[j].next.Time); c != 0 {
		return c < 0
	}
	return h[i].order < h[j].order
}
func (h *newest) Push(x any) { *h = append(*h, x.(*tail)) }
func (h *newest) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// label is a station's name, with its cluster where the name alone is ambiguous.
func label(t *topology.Topology, s *topology.Station) string {
	if ambiguous(t, s) {
		return s.ID()
	}
	return s.Name
}

func ambiguous(t *topology.Topology, s *topology.Station) bool {
	n := 0
	for _, o := range t.Stations() {
		if o.Name == s.Name {
			n++
		}
	}
	return n > 1
}
