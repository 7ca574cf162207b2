package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"platelayer/backbone"
	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/topology"
)

// root is a prepared container: the backbone's has no station.
type root struct {
	spec      *containers.Spec
	station   *topology.Station
	container containers.Container // nil once it has started or was given back
}

// assemble prepares every container's root, the backbone's first in the list,
// and starts to read its output.
func (k *keeper) assemble(ctx context.Context) ([]*root, error) {
	t := k.intent.Topology
	roots := []*root{{spec: k.site.backbone(t)}}
	for _, s := range stations(t) {
		roots = append(roots, &root{spec: k.site.station(t, s), station: s})
	}
	if err := os.Mkdir(k.layout.streams(k.name), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of output streams: %w", err)
	}
	err := each(roots, func(r *root) (err error) {
		if dir := r.spec.Root.WritableDir; dir != "" {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("cannot make the writable layer of %q: %w", r.spec.Name, err)
			}
		}
		if r.container, err = k.engine.Prepare(ctx, r.spec); err != nil {
			return err
		}
		if n, ok := r.container.(native.Noticer); ok {
			for _, notice := range n.Notices() {
				k.report(Progress{Notice: r.spec.Name + ": " + notice})
			}
		}
		return nil
	})
	return roots, err
}

// each calls do for every root, on as many threads as there are processors,
// until one fails.
func each(roots []*root, do func(*root) error) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
		queue = make(chan *root)
	)
	for range min(runtime.NumCPU(), 4) {
		wg.Go(func() {
			for r := range queue {
				mu.Lock()
				failed := first != nil
				mu.Unlock()
				if failed {
					continue
				}
				if err := do(r); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	for _, r := range roots {
		queue <- r
	}
	close(queue)
	wg.Wait()
	return first
}

// discard gives back what was prepared and never started.
func discard(roots []*root) {
	for _, r := range roots {
		if r.container != nil {
			r.container.Discard()
		}
	}
}

// startBackbone starts the DNS server and waits until it listens. Its sockets
// to the outside are opened here, in the machine's namespace.
func (k *keeper) startBackbone(ctx context.Context, r *root) error {
	ours, theirs, err := backbone.Socketpair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	r.spec.ExtraFiles = []*os.File{theirs}
	if err := k.start(ctx, r, &k.state.Backbone); err != nil {
		return err
	}
	ready, failed := make(chan struct{}), make(chan error, 1)
	config := backbone.Config{DNS: k.plan.DNS, Upstream: k.upstream()}
	go func() {
		failed <- backbone.Serve(context.Background(), ours, config, backbone.Dial, func() { close(ready) })
	}()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case err := <-failed:
		return &StationError{Container: r.spec.Name, While: "before it answered DNS", Message: "failed: " + fmt.Sprint(err), Log: k.logTail(r.spec.Name)}
	}
}

// upstream resolves the file's `upstream:` to addresses.
func (k *keeper) upstream() []netip.AddrPort {
	var all []netip.AddrPort
	for _, u := range k.intent.Topology.Backbone.Upstream {
		if u == "host" {
			if text, err := os.ReadFile("/etc/resolv.conf"); err == nil {
				all = append(all, backbone.HostResolvers(text)...)
			}
		} else if a, err := netip.ParseAddr(u); err == nil {
			all = append(all, netip.AddrPortFrom(a, 53))
		}
	}
	return all
}

// startStations starts each station after those it depends on, independent
// ones at the same time, and makes sure that all of them still run.
func (k *keeper) startStations(ctx context.Context, roots []*root) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	started := map[string]chan struct{}{}
	for _, r := range roots {
		started[r.station.ID()] = make(chan struct{})
	}
	slots := make(chan struct{}, min(runtime.NumCPU(), 4))
	var wg sync.WaitGroup
	for i, r := range roots {
		wg.Go(func() {
			for _, d := range r.station.DependsOn {
				select {
				case <-started[d.Station]:
				case <-ctx.Done():
					return
				}
			}
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			if err := k.start(ctx, r, &k.state.Stations[i]); err != nil {
				cancel(err)
				return
			}
			close(started[r.station.ID()])
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return k.settle(ctx)
}

// settle gives commands that fail at once the time to do so: most of them have
// ended before the last station started, the last one itself has not.
func (k *keeper) settle(ctx context.Context) error {
	select {
	case <-k.ended:
		time.Sleep(10 * time.Millisecond) // others that ended with it, and its log
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(30 * time.Millisecond):
		return nil
	}
	k.mu.Lock()
	all := slices.Clone(k.state.Stations)
	all = append(all, k.state.Backbone)
	k.mu.Unlock()
	var problems []error
	for _, c := range all {
		if c.State == Exited {
			problems = append(problems, &StationError{
				Container: c.Container, Exit: c.Exit, While: "while the topology was starting", Log: k.logTail(c.Container),
			})
		}
	}
	return errors.Join(problems...)
}

// start runs a prepared container's command and watches over it.
func (k *keeper) start(ctx context.Context, r *root, c *ContainerState) error {
	drained, release, err := k.collectLogs(r.spec)
	if err != nil {
		return err
	}
	defer release()
	process, err := r.container.Start(ctx)
	r.container = nil
	if execErr := new(containers.ExecError); errors.As(err, &execErr) {
		code := execErr.Code()
		return &StationError{
			Container: r.spec.Name, While: "", Exit: &containers.Exit{Code: code},
			Message: fmt.Sprintf("cannot execute %q: %v (code %d)", execErr.Path, execErr.Errno, code),
		}
	}
	if err != nil {
		return fmt.Errorf("cannot start %q: %w", r.spec.Name, err)
	}
	k.update(func(*State) {
		c.State, c.Process, c.StartedAt = Running, process.Ref(), time.Now()
	})
	go func() {
		exit, err := process.Wait()
		if err != nil {
			exit = containers.Exit{Code: -1, At: time.Now()}
		}
		select {
		case <-drained:
		case <-time.After(time.Second): // a process outside the station holds its output open
		}
		k.update(func(*State) { c.State, c.Exit, c.EndedAt = Exited, &exit, exit.At })
		k.endOnce.Do(func() { close(k.ended) })
	}()
	return nil
}
