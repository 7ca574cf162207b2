package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/topology"
)

// RunOptions are the choices of `run`. Without Args the command is the
// station's own; Detach leaves it as the one-off station's own command, whose
// output is in its log.
type RunOptions struct {
	ExecOptions
	Name     string         // of the one-off station; "" is one that is free
	NoDeps   bool           // start nothing that the station depends on
	Progress func(Progress) // of what comes before the command; may be nil
	// Ready is called before the command starts; may be nil.
	Ready func()
}

// Run has a command run in a one-off copy of a station of a running topology.
// The process is nil with o.Detach. End, never nil, removes the copy: it is
// called when the command has ended, or did not start.
func Run(ctx context.Context, l Layout, name string, of *topology.Station, o RunOptions) (container string, p containers.Process, end func(), err error) {
	end = func() {}
	if err := needRoot("run a station"); err != nil {
		return "", nil, end, err
	}
	if err := native.Protect(); err != nil { // starts the program anew: before anything is done
		return "", nil, end, err
	}
	s, container, err := makeOneOff(ctx, l, name, of, &o)
	if err != nil || o.Detach {
		return container, nil, end, err
	}
	end = func() { endOneOff(l, name, s.ID()) }
	if o.Ready != nil {
		o.Ready()
	}
	x := o.ExecOptions
	x.Args, x.Env, x.User, x.WorkingDir = s.Command, nil, "", "" // the copy has them
	p, err = Exec(ctx, l, name, s, x)
	return container, p, end, err
}

// makeOneOff has the keeper make the station.
func makeOneOff(ctx context.Context, l Layout, name string, of *topology.Station, o *RunOptions) (*topology.Station, string, error) {
	unlock, err := lockSoon(ctx, l, name)
	if err != nil {
		return nil, "", err
	}
	defer unlock()
	found, err := look(l, name)
	if err != nil {
		return nil, "", err
	}
	if found.intent == nil {
		return nil, "", &NotKnown{name}
	}
	if !found.running {
		return nil, "", &NotUp{name}
	}
	if err := admitRecorded(ctx, l, found.intent); err != nil {
		return nil, "", err
	}
	if err := attend(ctx, l, found.intent, found.state, true, o.Progress); err != nil {
		return nil, "", err
	}
	s, err := found.intent.Topology.OneOff(of, o.Name)
	if err != nil {
		return nil, "", err
	}
	s.Command, s.Entrypoint = command(of), nil
	if len(o.Args) > 0 {
		s.Command = append(append([]string{}, of.Entrypoint...), o.Args...)
	}
	if len(s.Command) == 0 {
		return nil, "", fmt.Errorf("station %q has no command of its own: name one", of.ID())
	}
	s.Environment = override(s.Environment, o.Env)
	s.User, s.WorkingDir = orDefault(o.User, s.User), orDefault(o.WorkingDir, s.WorkingDir)
	if o.NoDeps {
		s.DependsOn = nil
	}
	kept := OneOff{Of: of.ID()}
	if !o.Detach {
		self := native.Self()
		kept.Runner = &self
	}
	err = ask(ctx, l, name, request{Op: opRun, Station: s, OneOff: &kept}, o.Progress)
	return s, found.intent.Topology.ContainerName(s), err
}

// endOneOff has the keeper remove a one-off station whose command has ended. A
// keeper that was lost meanwhile is replaced first. Where that fails, or takes
// long because the keeper is at work on something else, the station goes when
// this program has ended, or with the topology.
func endOneOff(l Layout, name, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	self := native.Self()
	r := request{Op: opEndRun, Stations: []string{id}, OneOff: &OneOff{Runner: &self}}
	err := ask(ctx, l, name, r, nil)
	if err == nil || ctx.Err() != nil || errors.As(err, new(*OtherAPI)) {
		return
	}
	if Tend(ctx, l, name, nil) == nil {
		_ = ask(ctx, l, name, r, nil)
	}
}
