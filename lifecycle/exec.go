package lifecycle

import (
	"context"
	"fmt"
	"os"

	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/topology"
)

// ExecOptions are the choices of `exec`. Unset ones are the station's own.
type ExecOptions struct {
	Args       []string
	Env        []string
	User       string
	WorkingDir string
	// TTY asks for a terminal of the station's own; its other end is handed
	// to Attach before the command starts.
	TTY    bool
	Attach func(master *os.File) error
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
}

// Exec starts a command in a running station. It needs no keeper.
func Exec(ctx context.Context, l Layout, name string, s *topology.Station, o ExecOptions) (containers.Process, error) {
	if err := needRoot("enter a station"); err != nil {
		return nil, err
	}
	if err := native.Protect(); err != nil {
		return nil, err
	}
	c, err := running(l, name, s)
	if err != nil {
		return nil, err
	}
	if err := native.Harden(); err != nil {
		return nil, err
	}
	spec := &containers.ExecSpec{
		Container: c.Process, Cgroup: cgroup(name) + "/" + c.Container,
		Args: o.Args, Env: append(append([]string{}, s.Environment...), o.Env...),
		WorkingDir: orDefault(o.WorkingDir, s.WorkingDir), User: orDefault(o.User, s.User),
	}
	if !o.TTY {
		r, err := newRelay(o.Stdin, o.Stdout, o.Stderr)
		if err != nil {
			return nil, err
		}
		spec.Stdin, spec.Stdout, spec.Stderr = r.theirs[0], r.theirs[1], r.theirs[2]
		process, err := native.Exec(ctx, spec)
		return r.start(process, err)
	}
	master, slave, err := native.OpenPTY(c.Process)
	if err != nil {
		return nil, fmt.Errorf("cannot open a terminal in %q: %w", c.Container, err)
	}
	defer slave.Close()
	spec.TTY, spec.Stdin, spec.Stdout, spec.Stderr = true, slave, slave, slave
	if err := o.Attach(master); err != nil {
		master.Close()
		return nil, err
	}
	return native.Exec(ctx, spec)
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}
