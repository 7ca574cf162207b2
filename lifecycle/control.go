package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"platelayer/containers/native"
	"platelayer/topology"
)

// Operation is what a command does to stations of a running topology.
type Operation string

// Operations.
const (
	Start   Operation = opStart
	Stop    Operation = opStop
	Restart Operation = opRestart
	Pause   Operation = opPause
	Unpause Operation = opUnpause
	Remove  Operation = opRemove // what stopped stations wrote
)

// ControlOptions are the choices of Control.
type ControlOptions struct {
	Stations []string // "cluster/station"; none: all
	Timeout  time.Duration
	Progress func(Progress) // may be nil
}

// Control has the keeper of a running topology do something with its stations
// and returns when it is done. A lost keeper is replaced first.
func Control(ctx context.Context, l Layout, name string, op Operation, o ControlOptions) error {
	if err := needRoot(string(op) + " stations"); err != nil {
		return err
	}
	unlock, err := lock(l, name)
	if err != nil {
		return err
	}
	defer unlock()
	awaitKilled(l, name)
	found, err := look(l, name)
	if err != nil {
		return err
	}
	if found.intent == nil {
		return &NotKnown{name}
	}
	if !found.running {
		return &NotUp{name}
	}
	if op == Start || op == Restart {
		if err := admitRecorded(ctx, l, found.intent); err != nil {
			return err
		}
	}
	if err := attend(ctx, l, found.intent, found.state, false, o.Progress); err != nil {
		return err
	}
	return ask(ctx, l, name, request{Op: string(op), Stations: o.Stations, Timeout: o.Timeout}, o.Progress)
}

// NotUp is a topology that is known and does not run, as after a reboot.
type NotUp struct{ Name string }

func (e *NotUp) Error() string { return fmt.Sprintf("topology %q is not up", e.Name) }

// Kill sends a signal to the first process of each station that runs. What
// becomes of a station that it ends is its restart policy's decision.
func Kill(l Layout, name string, which []*topology.Station, sig syscall.Signal) error {
	if err := needRoot("signal a station"); err != nil {
		return err
	}
	var errs []error
	for _, s := range which {
		c, err := running(l, name, s)
		if err == nil {
			err = signal(c, sig)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func signal(c *ContainerState, sig syscall.Signal) error {
	process, err := native.OpenProcess(c.Process)
	if err == nil {
		err = process.Signal(sig)
	}
	if err != nil {
		return fmt.Errorf("cannot signal station %q: %w", c.Container, err)
	}
	return nil
}

// Marked lists the topologies that are to be up after the machine's start and
// are not.
func Marked(l Layout) ([]*Intent, error) {
	all, err := names(l)
	if err != nil {
		return nil, err
	}
	var marked []*Intent
	for _, name := range all {
		if i, err := readIntent(l, name); err == nil && i.AtBoot && !runs(l, name) {
			marked = append(marked, i)
		}
	}
	return marked, nil
}
