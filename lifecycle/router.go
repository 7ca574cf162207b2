package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	"platelayer/backbone"
	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/netplan/kernel"
	"platelayer/topology"
)

// backbonePatience is how long a backbone may take to answer its keeper.
const backbonePatience = 10 * time.Second

// router is the backbone's container as the keeper sees it: the process that
// answers DNS. Its fields are guarded by the keeper's mutex.
type router struct {
	process containers.Process
	talk    *backbone.Keeper
}

// startBackbone starts the DNS server and waits until it listens. Its sockets
// to the outside are opened here, in the machine's namespace.
func (k *keeper) startBackbone(ctx context.Context, r *root) error {
	ours, theirs, err := backbone.Socketpair()
	if err != nil {
		return err
	}
	r.spec.ExtraFiles = []*os.File{theirs}
	output, err := k.collect(r.spec.Name, topology.Logging{})
	if err != nil {
		return errors.Join(err, ours.Close(), theirs.Close())
	}
	defer output.release()
	process, err := k.start(ctx, r)
	theirs.Close() // the backbone alone holds it now: its end is seen
	if err != nil {
		ours.Close()
		return err
	}
	if err := k.serveBackbone(ctx, process, ours); err != nil {
		// It would keep its addresses from the next one.
		if process.Signal(9) == nil {
			process.Wait()
		}
		return err
	}
	return nil
}

// serveBackbone talks to a running backbone and waits until it works from the
// present configuration. Should it end later, another is started.
func (k *keeper) serveBackbone(ctx context.Context, process containers.Process, conn *os.File) error {
	talk, err := backbone.NewKeeper(conn, backbone.Dial)
	if err != nil {
		return err
	}
	k.givePorts(talk)
	talk.Guard(k.guard.open, k.guard.asked)
	config := k.dnsConfig()
	serving, stop := context.WithCancel(context.Background())
	ready, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer stop()
		failed <- talk.Serve(serving, config, func() { close(ready) })
	}()
	select {
	case <-ready:
	case <-ctx.Done():
		stop()
		return context.Cause(ctx)
	case <-time.After(backbonePatience):
		stop()
		return fmt.Errorf("the backbone of %q does not answer", k.name)
	case err := <-failed:
		if other := new(backbone.VersionError); errors.As(err, &other) {
			return err
		}
		name := k.state.Backbone.Container
		return &StationError{Container: name, While: "before it answered DNS", Message: "failed: " + fmt.Sprint(err), Log: k.logTail(name)}
	}
	k.mu.Lock()
	k.backbone, k.told = router{process, talk}, config.Out
	k.mu.Unlock()
	k.giveTerminals(talk)
	k.followQuestions(talk)
	k.mu.Lock()
	c := k.state.Backbone
	c.State, c.Process, c.Exit = Running, process.Ref(), nil
	if c.StartedAt.IsZero() {
		c.StartedAt = time.Now()
	}
	k.mu.Unlock()
	k.touch()
	go k.keepBackbone(process)
	// A change of the plan since it was handed over found no backbone.
	if !reflect.DeepEqual(config, k.dnsConfig()) && k.configureBackbone(ctx) != nil {
		process.Signal(9) // the next one works from it
	}
	return nil
}

// keepBackbone waits for the end of the backbone's process and starts it again.
func (k *keeper) keepBackbone(process containers.Process) {
	began := time.Now()
	exit, err := process.Wait()
	if err != nil {
		exit = containers.Exit{Code: -1, At: time.Now()}
	}
	k.mu.Lock()
	c := k.state.Backbone
	c.State, c.Exit, c.EndedAt, c.StartedAt = Exited, &exit, exit.At, time.Time{}
	retired := k.retired
	k.mu.Unlock()
	k.touch()
	if retired {
		return
	}
	e := ended(EventDied, &exit)
	e.Detail = "the backbone"
	k.event(e)
	k.reviveBackbone(time.Since(began))
}

// reviveBackbone starts a backbone, however often it takes.
func (k *keeper) reviveBackbone(ran time.Duration) {
	var pauses backoff
	for ; ; ran = 0 {
		time.Sleep(pauses.next(ran))
		k.mu.Lock()
		retired := k.retired
		k.state.Backbone.Restarts++
		k.mu.Unlock()
		if retired || k.renewBackbone(context.Background()) == nil {
			return
		}
	}
}

// renewBackbone starts the backbone's container anew.
func (k *keeper) renewBackbone(ctx context.Context) error {
	k.mu.Lock()
	r := &root{spec: k.site.backbone(k.intent.Topology)}
	k.mu.Unlock()
	if err := k.prepare(ctx, r); err != nil {
		return err
	}
	defer func() { discard([]*root{r}) }()
	return k.startBackbone(ctx, r)
}

// adoptBackbone takes a running backbone over, or starts another where that
// can't be done.
func (k *keeper) adoptBackbone(ctx context.Context) error {
	c := k.state.Backbone
	if native.Alive(c.Process) {
		process, err := native.OpenContainer(c.Process, k.cgroup(c.Container))
		if err == nil {
			conn, dialErr := kernel.Dial(k.kernelOptions(), c.Container, "unix", backbone.SocketName)
			if err = dialErr; err == nil {
				err = k.serveBackbone(ctx, process, conn)
			}
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return err
			}
			if other := new(backbone.VersionError); errors.As(err, &other) && other.Theirs < 2 && k.terminals() {
				k.tell(Progress{Notice: "the backbone of an earlier version held no terminals: stations with a terminal were hung up with their keeper"})
			}
			// One of another version: it gives way to ours.
			if process.Signal(9) == nil {
				process.Wait()
			}
		}
	}
	// One that the earlier keeper started and did not record goes too.
	if err := k.endUnknown(ctx, c.Container); err != nil {
		return err
	}
	return k.renewBackbone(ctx)
}

// configureBackbone has the backbone answer from the present plan. One that has
// ended does so when it is back.
func (k *keeper) configureBackbone(ctx context.Context) error {
	k.mu.Lock()
	r := k.backbone
	k.mu.Unlock()
	if r.talk == nil {
		return nil
	}
	k.naming.Lock() // the last configuration that is sent is the present one
	defer k.naming.Unlock()
	config := k.dnsConfig()
	err := r.talk.Update(ctx, config)
	if err != nil && !native.Alive(r.process.Ref()) {
		return nil
	}
	if err == nil {
		k.mu.Lock()
		k.told = config.Out
		k.mu.Unlock()
	}
	return err
}
