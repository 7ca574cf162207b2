package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"platelayer/containers"
	"platelayer/topology"
)

// firstError gives the one error that stopped the steps.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// stepper runs steps one after the other until one fails, and reports each.
func stepper(ctx context.Context, tell func(Progress)) func(string, func() error) error {
	failed := false
	return func(name string, do func() error) error {
		if failed {
			return nil
		}
		began := time.Now()
		err := context.Cause(ctx)
		if err == nil {
			err = do()
		}
		failed = err != nil
		if late := new(TimeoutError); errors.As(err, &late) && len(late.Waiting) == 0 {
			late.Waiting = []string{"the step " + name + " was not done"}
		}
		if !failed {
			tell(Progress{Step: name, Took: time.Since(began)})
		}
		return err
	}
}

// launched notes that the topology is up: from now on its layers hold what its
// stations wrote.
func (k *keeper) launched() error {
	k.mu.Lock()
	first := !k.intent.Launched
	k.intent.Launched = true
	intent := *k.intent
	k.mu.Unlock()
	k.keepHostPaths()
	if err := k.keepAuthority(); err != nil {
		return err
	}
	if first {
		if err := errors.Join(keepVolumes(k.layout, k.name), write(k.layout.intent(k.name), &intent, true)); err != nil {
			return err
		}
	}
	return k.become(StatusUp)
}

// root is a prepared container: the backbone's has no station.
type root struct {
	spec      *containers.Spec
	station   *topology.Station
	container containers.Container // nil once it has started or was given back
	// real is where paths of the machine's lead, as a policy has allowed it: what is
	// opened there has no links any more. nil: none limits them.
	real map[string]string
}

// newRoot is an error for a stray, whose policy may ask for it until it is ended.
func (k *keeper) newRoot(m *member) (*root, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.isStray(m) {
		return nil, fmt.Errorf("the file has station %q no longer", m.station.ID())
	}
	spec := k.site.station(k.intent.Topology, m.station)
	spec.Idle = k.intent.OneOffs[m.station.ID()].Runner != nil
	return &root{spec: spec, station: m.station}, nil
}

// assemble prepares every container's root, the backbone's first in the list.
func (k *keeper) assemble(ctx context.Context) ([]*root, error) {
	roots := []*root{{spec: k.site.backbone(k.intent.Topology)}}
	ids := []string{}
	for _, m := range k.members {
		r, err := k.newRoot(m)
		if err != nil {
			return nil, err
		}
		roots = append(roots, r)
		ids = append(ids, m.station.ID())
	}
	k.tell(Progress{Stations: ids})
	if err := os.Mkdir(k.layout.streams(k.name), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of output streams: %w", err)
	}
	return roots, each(roots, func(r *root) error {
		began := time.Now()
		prepare := k.prepare
		if joins(r.station) { // its own root is made when the other runs
			prepare = k.rehearse
		}
		err := prepare(ctx, r)
		if r.station != nil && err == nil {
			k.tell(Progress{Station: r.station.ID(), Phase: PhasePreparing, Took: time.Since(began)})
		}
		return err
	})
}

// enoughFailures is how many items may fail before the rest is not tried.
const enoughFailures = 20

// each calls do for every item, on as many threads as there are processors, and
// tells all that failed in the order of the items, equal ones once.
func each[T any](items []T, do func(T) error) error {
	var (
		wg     sync.WaitGroup
		failed atomic.Int32
		errs   = make([]error, len(items))
		queue  = make(chan int)
	)
	for range min(runtime.NumCPU(), 4) {
		wg.Go(func() {
			for i := range queue {
				if failed.Load() >= enoughFailures {
					continue
				}
				if errs[i] = do(items[i]); errs[i] != nil {
					failed.Add(1)
				}
			}
		})
	}
	for i := range items {
		queue <- i
	}
	close(queue)
	wg.Wait()
	seen := map[string]bool{}
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool {
		again := err == nil || seen[err.Error()]
		if err != nil {
			seen[err.Error()] = true
		}
		return again
	})...)
}

// discard gives back what was prepared and never started.
func discard(roots []*root) {
	for _, r := range roots {
		if r != nil && r.container != nil {
			r.container.Discard()
			r.container = nil
		}
	}
}

// beginAll begins a life of each member, those first that have a prepared root.
// Each waits for those it depends on.
func beginAll(members []*member, roots []*root) {
	for _, m := range members {
		m.forgetPast(0)
	}
	for i, m := range members {
		var r *root
		if i < len(roots) {
			// The life's own from here on.
			if r, roots[i] = roots[i], nil; r.container == nil {
				r = nil
			}
		}
		m.begin(r, nil, 0)
	}
}
