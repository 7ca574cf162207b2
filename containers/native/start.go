package native

import (
	"context"
	"errors"
	"fmt"
	"path"
	"syscall"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// Start runs the command as process 1 of a new pid namespace.
func (c *container) Start(ctx context.Context) (containers.Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	defer c.release()
	p, err := c.run(c.spec.Args)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// RunBefore runs a command as Start does and keeps the root.
func (c *container) RunBefore(ctx context.Context, args []string) (containers.Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("cannot start %s: no command", c.spec.Name)
	}
	p, err := c.run(args)
	if err != nil {
		return nil, err
	}
	c.before = p
	return p, nil
}

func (c *container) run(args []string) (*process, error) {
	if c.before != nil && c.before.running() {
		return nil, fmt.Errorf("cannot start %s: the command before it still runs", c.spec.Name)
	}
	var p *process
	err := c.engine.pool.do(func(t *thread) error {
		var err error
		p, err = c.start(t, args)
		return err
	})
	return p, err
}

func (c *container) start(t *thread, args []string) (*process, error) {
	cg, err := c.engine.cgroups.enter(path.Join(c.engine.config.Cgroup, c.spec.Name), c.spec, c.engine.devices)
	if err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", c.spec.Name, err)
	}
	defer cg.close()
	var files []int
	opened := func(fd int, err error) error {
		if err == nil {
			files = append(files, fd)
		}
		return err
	}
	defer func() {
		for _, fd := range files {
			closeFD(fd)
		}
	}()
	if err := c.openStdio(opened); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", c.spec.Name, err)
	}
	if err := c.enter(t); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", c.spec.Name, err)
	}
	if err := c.unisolate(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", c.spec.Name, err)
	}
	env := environment(c.spec.Env, c.spec.Hostname, c.user, false)
	root := int(c.root.Fd())
	command, err := lookPath(root, args[0], envValue(env, "PATH"))
	if err != nil {
		return nil, execError(c.spec.Name, args[0], err)
	}
	prog := &program{}
	prog.add("make a session", 0, unix.SYS_SETSID)
	for _, fd := range cg.tasks {
		prog.add("enter a cgroup", 0, unix.SYS_WRITE, uintptr(fd), prog.str("0"), 1)
	}
	prog.isolate(c.baseFD, c.engine.cgroups.v2 != "")
	prog.finish(&final{cwd: c.cwd, files: files, common: c.engine.common, user: c.user,
		powers: c.powers, program: -1, path: command, args: args, env: env})
	c.isolated = true
	pid, pidfd, err := prog.run(unix.CLONE_NEWPID, cg.dir)
	if err != nil {
		return nil, startError(c.spec.Name, command, err)
	}
	// The container's /proc does not show the machine's pids.
	if err := t.goHome(); err != nil {
		return nil, err
	}
	return newProcess(pid, pidfd, cg, c.engine.cgroups)
}

// openStdio opens the null device, the FIFOs and the extra files, all with
// numbers above those the child gives them.
func (c *container) openStdio(opened func(int, error) error) error {
	low := 3 + len(c.spec.ExtraFiles)
	raise := func(fd int, err error) (int, error) {
		if err != nil || fd >= low {
			return fd, err
		}
		defer closeFD(fd)
		return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, low)
	}
	if err := opened(raise(unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0))); err != nil {
		return fmt.Errorf("cannot open /dev/null: %w", err)
	}
	for _, p := range []string{c.spec.Stdout, c.spec.Stderr} {
		var err error
		if p == "" {
			err = opened(raise(unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)))
		} else {
			err = opened(raise(openFIFO(p)))
		}
		if err != nil {
			return err
		}
	}
	for _, f := range c.spec.ExtraFiles {
		if err := opened(unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, low)); err != nil {
			return fmt.Errorf("cannot hand over %s: %w", f.Name(), err)
		}
	}
	return nil
}

// enter puts the thread into the container's namespaces; its root becomes the
// container's with the mount namespace.
func (c *container) enter(t *thread) error {
	t.away = true
	for _, ns := range []struct {
		name string
		fd   int
		flag int
	}{{"mnt", c.ns.mnt, unix.CLONE_NEWNS}, {"net", c.ns.net, unix.CLONE_NEWNET}, {"uts", c.ns.uts, unix.CLONE_NEWUTS}, {"ipc", c.ns.ipc, unix.CLONE_NEWIPC}} {
		if ns.fd < 0 {
			continue
		}
		if err := unix.Setns(ns.fd, ns.flag); err != nil {
			return fmt.Errorf("cannot enter the %s namespace: %w", ns.name, err)
		}
	}
	return nil
}

// startError tells a command that can't be executed from a failure of ours.
func startError(name, command string, err error) error {
	var step *stepError
	if errors.As(err, &step) && step.last {
		return &containers.ExecError{Container: name, Path: command, Errno: step.errno}
	}
	return fmt.Errorf("cannot start %s: %w", name, err)
}

func execError(name, command string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("cannot start %s: %w", name, err)
	}
	return &containers.ExecError{Container: name, Path: command, Errno: errno}
}
