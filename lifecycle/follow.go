package lifecycle

import (
	"context"
	"errors"
	"time"
)

// wakeups tells that the state or the logs of a topology have changed.
type wakeups interface {
	Wait() error // an error says that nobody will tell any more
	Close() error
}

// connect gives the wake-ups of a topology. A lost keeper is replaced first; a
// topology that is not up has nobody to tell anything.
func connect(ctx context.Context, l Layout, name string) (wakeups, error) {
	if err := Tend(ctx, l, name, nil); err != nil {
		return nil, err
	}
	w, err := watch(l, name)
	if err != nil && !runs(l, name) {
		return silence{}, nil
	}
	return w, err
}

// silence is the wake-ups of a topology that is not up.
type silence struct{}

func (silence) Wait() error  { return errors.New("not up") }
func (silence) Close() error { return nil }

// reconnect gives the wake-ups of the next keeper, when there is one; false is
// the end of the topology.
func reconnect(l Layout, name string) func() (wakeups, bool) {
	return func() (wakeups, bool) {
		if w, err := watch(l, name); err == nil {
			return w, true
		}
		return nil, runs(l, name)
	}
}

// follow calls drain now and after each wake-up. When these end, it asks again
// for others; none and false is the end.
func follow(ctx context.Context, drain func() error, wake wakeups, again func() (wakeups, bool)) error {
	const patience = 200 * time.Millisecond
	for {
		err := followWhile(ctx, drain, wake)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for wake = nil; wake == nil; {
			var alive bool
			if wake, alive = again(); !alive {
				return drain()
			}
			if wake != nil {
				break
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(patience):
			}
		}
	}
}

// followWhile drains until the wake-ups end, and once more then: the keeper
// wrote before it went.
func followWhile(ctx context.Context, drain func() error, wake wakeups) error {
	defer wake.Close()
	defer context.AfterFunc(ctx, func() { wake.Close() })()
	for {
		if err := drain(); err != nil {
			return err
		}
		if wake.Wait() != nil {
			return drain()
		}
	}
}
