package lifecycle

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/topology"
)

// ExecOptions are the choices of `exec`. Unset ones are the station's own.
type ExecOptions struct {
	Args []string
	// Env replaces variables of the station's; a NAME without a value removes one.
	Env        []string
	User       string
	WorkingDir string
	// Detach leaves the command alone once it runs, without input and output.
	// Nobody need wait for it.
	Detach bool
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
	intent, err := readIntent(l, name)
	if err != nil {
		return nil, err
	}
	spec, err := execSpec(cgroup(name), c, intent.Topology, s)
	if err != nil {
		return nil, err
	}
	spec.Args, spec.Env = o.Args, override(spec.Env, o.Env)
	spec.WorkingDir, spec.User = orDefault(o.WorkingDir, s.WorkingDir), orDefault(o.User, s.User)
	if o.Detach {
		return native.Exec(ctx, spec)
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

// execSpec has a command in a station run with what the station's own has.
func execSpec(group string, c *ContainerState, t *topology.Topology, s *topology.Station) (*containers.ExecSpec, error) {
	own := new(containers.Spec)
	site{}.limit(own, s)
	if err := readFilter(own, s); err != nil {
		return nil, err
	}
	return &containers.ExecSpec{
		Container: c.Process, Cgroup: group + "/" + c.Container, Env: slices.Clone(environment(s)), User: s.User, WorkingDir: s.WorkingDir,
		SharedPIDs: sharesPIDs(t, s),
		Groups:     own.Groups, Ulimits: own.Ulimits, OOMScoreAdj: own.OOMScoreAdj, CapAdd: own.CapAdd, CapDrop: own.CapDrop,
		Privileged: own.Privileged, Seccomp: own.Seccomp, NewPrivileges: own.NewPrivileges, AppArmor: own.AppArmor, Label: own.Label,
	}, nil
}

// override sets variables in an environment, each NAME=VALUE, and removes those
// that come without a value. Two of one name would mean something else to each
// program.
func override(env, changes []string) []string {
	for _, change := range changes {
		name, _, set := strings.Cut(change, "=")
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		if set {
			env = append(env, change)
		}
	}
	return env
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}
