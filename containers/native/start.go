package native

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	p, err := c.run(c.spec.Args, true)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// RunBefore runs a command as Start does and keeps the root. It has no terminal,
// and its process 1 and pid namespace are its own.
func (c *container) RunBefore(ctx context.Context, args []string) (containers.Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("cannot start %s: no command", c.spec.Name)
	}
	p, err := c.run(args, false)
	if err != nil {
		return nil, err
	}
	c.before = p
	return p, nil
}

func (c *container) run(args []string, main bool) (*process, error) {
	if c.before != nil && c.before.Running() {
		return nil, fmt.Errorf("cannot start %s: the command before it still runs", c.spec.Name)
	}
	var p *process
	err := c.engine.pool.do(func(t *thread) error {
		var err error
		p, err = c.start(t, args, main)
		return err
	})
	return p, err
}

func (c *container) start(t *thread, args []string, main bool) (*process, error) {
	p, err := c.startOn(t, args, main)
	var ee *containers.ExecError
	if err != nil && !errors.As(err, &ee) {
		return nil, fmt.Errorf("cannot start %s: %w", c.spec.Name, err)
	}
	return p, err
}

func (c *container) startOn(t *thread, args []string, main bool) (_ *process, err error) {
	cg, err := c.enterCgroup()
	if err != nil {
		return nil, err
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
	if err := c.openStdio(t, opened); err != nil {
		return nil, err
	}
	pids := -1
	if c.spec.PIDOf != nil && main {
		if pids, err = c.openPIDs(); err != nil {
			return nil, err
		}
		defer closeFD(pids)
	}
	proc := -1
	if pids >= 0 {
		if proc, err = sharedProc(t, pids); err != nil {
			return nil, err
		}
		defer closeFD(proc)
	}
	if err := c.enter(t); err != nil {
		return nil, err
	}
	if err := c.unisolate(); err != nil {
		return nil, err
	}
	var master *os.File
	if c.spec.TTY && main {
		if master, err = c.useTerminal(files); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				_ = master.Close()
			}
		}()
	}
	env := environment(c.spec.Env, c.spec.Hostname, c.user, master != nil)
	idle := c.spec.Idle && main
	command := args[0]
	if !idle {
		if command, err = lookPath(int(c.root.Fd()), args[0], envValue(env, "PATH")); err != nil {
			return nil, execError(c.spec.Name, args[0], err)
		}
	}
	f := &final{cwd: c.cwd, files: files, tty: master != nil, common: c.engine.common, user: c.user,
		powers: c.powers, program: -1, path: command, args: args, env: env}
	switch {
	case idle:
		f.program, f.args = c.engine.init, []string{initName}
	case c.spec.Init && main:
		if err := c.executable(command); err != nil {
			return nil, execError(c.spec.Name, command, err)
		}
		f.program, f.args = c.engine.init, append([]string{initName, command}, args...)
	}
	prog := &program{}
	for _, fd := range cg.tasks {
		prog.add("enter a cgroup", 0, unix.SYS_WRITE, uintptr(fd), prog.str("0"), 1)
	}
	prog.isolate(c.baseFD, view{proc: proc, whole: c.spec.Privileged, cgroup: c.engine.cgroups.v2 != "",
		delegated: c.spec.Delegate || c.spec.Privileged})
	flags := uint64(unix.CLONE_NEWPID)
	if pids >= 0 {
		prog.enterPIDs(pids)
		f.birth, flags = true, 0
	}
	prog.finish(f)
	c.isolated = true
	pid, pidfd, err := prog.run(t, flags, cg.dir)
	if err != nil {
		return nil, startError(int(c.root.Fd()), c.spec.Name, command, err)
	}
	// The container's /proc does not show the machine's pids.
	if err := t.goHome(); err != nil {
		abandon(pidfd)
		return nil, err
	}
	p, err := newProcess(pid, pidfd, cg, c.engine.cgroups)
	if err == nil {
		p.master = master
	}
	return p, err
}

// enterCgroup makes and opens the container's cgroup, with a device filter of
// its own where it has devices of its own.
func (c *container) enterCgroup() (*entry, error) {
	e, filter := c.engine, c.engine.devices
	switch {
	case c.spec.Privileged:
		filter = -1
	case len(c.devices) > 0:
		var err error
		if filter, err = e.cgroups.loadDeviceFilter(c.devices); err != nil {
			return nil, err
		}
		defer closeFD(filter)
	}
	return e.cgroups.enter(path.Join(e.config.Cgroup, c.spec.Name), c.spec, filter, c.devices)
}

// useTerminal puts a new terminal in the place of the standard files.
func (c *container) useTerminal(files []int) (*os.File, error) {
	master, slave, err := c.openTerminal()
	if err != nil {
		return nil, err
	}
	defer closeFD(slave)
	for _, fd := range files[:3] {
		if err := unix.Dup3(slave, fd, unix.O_CLOEXEC); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot use the terminal: %w", err), master.Close())
		}
	}
	return master, nil
}

// initName is what a container's init is called: process 1 of one that asked
// for it. It runs the command argv[1], a path, with the arguments from argv[2]
// on, hands signals on to it, reaps whatever is left to it, and ends with the
// command's exit code, 128 and the signal's number if a signal ended it. Without
// arguments it is idle: it reaps until a signal comes, hands that on to all that
// runs in the container, and ends when that has ended.
const initName = "platelayer-init"

// executable tells before an init runs what execve(2) would tell it.
func (c *container) executable(command string) error {
	root := int(c.root.Fd())
	if c.cwd >= 0 && !path.IsAbs(command) {
		return nil // relative to the working folder: init tells
	}
	fd, err := openIn(root, command, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}

// openStdio opens the container's null device, the FIFOs and the extra files, all with
// numbers above those the child gives them.
func (c *container) openStdio(t *thread, opened func(int, error) error) error {
	low := 3 + len(c.spec.ExtraFiles)
	raise := func(fd int, err error) (int, error) {
		if err != nil || fd >= low {
			return fd, err
		}
		defer closeFD(fd)
		return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, low)
	}
	for i, p := range []string{"", c.spec.Stdout, c.spec.Stderr} {
		var err error
		switch {
		case p != "":
			err = opened(raise(openFIFO(p)))
		case i == 0 && c.spec.StdinOpen:
			err = opened(raise(openInput(c.user)))
		default:
			err = opened(raise(t.openNull(int(c.root.Fd()))))
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
func startError(root int, name, command string, err error) error {
	var step *stepError
	if !errors.As(err, &step) || !step.last {
		return err
	}
	e := &containers.ExecError{Container: name, Path: command, Errno: step.errno}
	if step.errno == unix.ENOENT {
		e.Lacking = lacking(root, command)
	}
	return e
}

func execError(name, command string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	return &containers.ExecError{Container: name, Path: command, Errno: errno}
}
