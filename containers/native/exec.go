package native

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// Exec runs a command in a running container, as a child of the calling
// process: the container's keeper has no part in it. The command ends with the
// container's pid namespace. In a frozen container it is *containers.Paused.
func Exec(ctx context.Context, s *containers.ExecSpec) (containers.Process, error) {
	if !vforkSupported {
		return nil, &containers.Unsupported{Feature: "an engine for this processor"}
	}
	if err := Harden(); err != nil {
		return nil, err
	}
	filter, err := defaultFilter(defaultCaps)
	if err != nil {
		return nil, err
	}
	x := &executor{filter: filter, common: commonSteps(), cgroups: findHierarchies(), on: onThread}
	return x.exec(ctx, s)
}

// Exec runs a command in a running container, as the function Exec does, with
// what the engine has made already and on one of its threads.
func (e *Engine) Exec(ctx context.Context, s *containers.ExecSpec) (containers.Process, error) {
	x := &executor{filter: e.filter, common: e.common, cgroups: e.cgroups, on: e.pool.do}
	return x.exec(ctx, s)
}

// executor is what commands in running containers have in common.
type executor struct {
	filter  *unix.SockFprog
	common  *program
	cgroups *hierarchies
	on      func(func(*thread) error) error
}

func (x *executor) exec(ctx context.Context, s *containers.ExecSpec) (containers.Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(s.Args) == 0 {
		return nil, errors.New("cannot execute: no command")
	}
	w, err := grantedPowers(s, x.filter)
	if err != nil {
		return nil, fmt.Errorf("cannot execute %q in %s: %w", s.Args[0], path.Base(s.Cgroup), err)
	}
	cg, err := x.cgroups.open(s.Cgroup)
	if err != nil {
		return nil, err
	}
	defer cg.close()
	if err := x.cgroups.enterPayload(cg, s.Container.Pid); err != nil {
		return nil, err
	}
	if x.cgroups.frozen(s.Cgroup) {
		return nil, &containers.Paused{Name: path.Base(s.Cgroup)}
	}
	if err := x.cgroups.roomFor(s.Cgroup, 1); err != nil {
		return nil, fmt.Errorf("cannot execute %q in %s: %w", s.Args[0], path.Base(s.Cgroup), err)
	}
	var p *process
	err = x.on(func(t *thread) error {
		pid, pidfd, err := x.execOn(t, s, w, cg)
		if errors.Is(err, unix.EAGAIN) { // some need a second process for a moment: birth.go
			err = cmp.Or(x.cgroups.roomFor(s.Cgroup, 2), err)
		}
		if err != nil {
			return err
		}
		// Another came in between.
		if err := x.cgroups.roomFor(s.Cgroup, 0); err != nil {
			abandon(pidfd)
			return err
		}
		// The container's /proc does not show the machine's pids.
		if err := t.goHome(); err != nil {
			abandon(pidfd)
			return err
		}
		p, err = newProcess(pid, pidfd, cg, x.cgroups)
		return err
	})
	if unexecuted := new(containers.ExecError); err != nil && !errors.As(err, &unexecuted) {
		return nil, fmt.Errorf("cannot execute %q in %s: %w", s.Args[0], path.Base(s.Cgroup), err)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// execOn enters the container and starts the command there.
func (x *executor) execOn(t *thread, s *containers.ExecSpec, w *powers, cg *entry) (pid, child int, err error) {
	pidfd, err := openRef(s.Container)
	if err != nil {
		return 0, -1, fmt.Errorf("cannot find the container: %w", err)
	}
	defer closeFD(pidfd)
	traced := s.SharedPIDs || w.caps&(1<<unix.CAP_SYS_PTRACE) != 0
	enter := unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET
	t.away = true
	if !traced {
		if err := t.leavePIDs(); err != nil {
			return 0, -1, err
		}
		enter |= unix.CLONE_NEWPID
	}
	if err := unix.Setns(pidfd, enter); err != nil {
		return 0, -1, fmt.Errorf("cannot enter the container: %w", err)
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, -1, fmt.Errorf("cannot open the container's root: %w", err)
	}
	defer closeFD(root)
	files, err := execFiles(s, func() (int, error) { return t.openNull(root) })
	defer func() {
		for _, fd := range files {
			closeFD(fd)
		}
	}()
	if err != nil {
		return 0, -1, err
	}
	u, err := lookupUser(root, s.User, s.Groups)
	if err != nil {
		return 0, -1, err
	}
	cwd, err := openIn(root, orRoot(s.WorkingDir), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return 0, -1, fmt.Errorf("cannot enter the working folder: %w", err)
	}
	defer closeFD(cwd)
	if s.TTY {
		// As login(1) does; devpts has given it the group tty.
		if err := unix.Fchown(files[0], int(u.uid), -1); err != nil {
			return 0, -1, fmt.Errorf("cannot give the terminal to the user: %w", err)
		}
	}
	if !s.TTY {
		if err := ownPipes(files, u); err != nil {
			return 0, -1, err
		}
	}
	name, err := os.Hostname() // the container's, on this thread
	if err != nil {
		return 0, -1, fmt.Errorf("cannot read the host name: %w", err)
	}
	env := environment(s.Env, strings.TrimSpace(name), u, s.TTY)
	command, err := lookPath(root, s.Args[0], envValue(env, "PATH"))
	if err != nil {
		return 0, -1, execError(path.Base(s.Cgroup), s.Args[0], err)
	}
	prog := &program{}
	for _, fd := range cg.tasks {
		prog.add("enter a cgroup", 0, unix.SYS_WRITE, uintptr(fd), prog.str("0"), 1)
	}
	// Once in the cgroup: its namespace, as any other process of the container.
	prog.add("enter the cgroup namespace", 0, unix.SYS_SETNS, uintptr(pidfd), unix.CLONE_NEWCGROUP)
	if traced {
		prog.enterPIDs(pidfd)
	}
	prog.finish(&final{cwd: cwd, files: files, tty: s.TTY, birth: traced, common: x.common, user: u,
		powers: w, program: -1, path: command, args: s.Args, env: env})
	pid, child, err = prog.run(t, 0, cg.dir)
	if err != nil {
		return 0, -1, startError(root, path.Base(s.Cgroup), command, err)
	}
	return pid, child, nil
}

// ownPipes gives pipes to the user, who may open them again through
// /dev/stdout.
func ownPipes(files []int, u *identity) error {
	for _, fd := range files {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("cannot inspect the standard files: %w", err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFIFO {
			continue
		}
		if err := unix.Fchown(fd, int(u.uid), int(u.gid)); err != nil {
			return fmt.Errorf("cannot give a pipe to the user: %w", err)
		}
		// Programs expect their standard files to block; Go's pipes do not.
		if err := unix.SetNonblock(fd, false); err != nil {
			return fmt.Errorf("cannot prepare a pipe: %w", err)
		}
	}
	return nil
}

func execFiles(s *containers.ExecSpec, null func() (int, error)) ([]int, error) {
	var files []int
	for _, f := range []*os.File{s.Stdin, s.Stdout, s.Stderr} {
		var fd int
		var err error
		if f == nil {
			fd, err = null()
			if err == nil && fd < 3 {
				low := fd
				fd, err = unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, 3)
				closeFD(low)
			}
		} else {
			fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		}
		if err != nil {
			return files, fmt.Errorf("cannot hand over the standard files: %w", err)
		}
		files = append(files, fd)
	}
	return files, nil
}
