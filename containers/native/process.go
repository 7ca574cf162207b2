package native

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// process is a child of ours, or with foreign set somebody else's.
type process struct {
	ref     containers.ProcessRef
	pidfd   *os.File
	cgroup  string
	groups  *hierarchies
	ooms    uint64 // the cgroup's OOM kills before this process
	foreign bool
	lasting bool       // foreign, and how it ended is worth a wait
	mu      sync.Mutex // Signal against the close after Wait
	ended   bool
	master  *os.File // of its terminal
}

// Terminal is the master of the process's terminal, or nil. The caller owns it.
func (p *process) Terminal() *os.File { return p.master }

// newProcess owns pidfd. The runtime's poller waits on it, so that a waiting
// process costs no thread.
func newProcess(pid, pidfd int, cg *entry, groups *hierarchies) (*process, error) {
	ref, err := executed(pid)
	if err == nil {
		if err = unix.SetNonblock(pidfd, true); err != nil {
			err = fmt.Errorf("cannot prepare a pidfd: %w", err)
		}
	}
	if err != nil {
		abandon(pidfd)
		return nil, err
	}
	return &process{ref: ref, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), cgroup: cg.name, ooms: cg.ooms, groups: groups}, nil
}

// abandon ends a child that nobody will wait for. Left unreaped, it would keep
// the first process of its pid namespace from ending: pid_namespaces(7).
func abandon(pidfd int) {
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	_ = awaitEnd(pidfd)
	closeFD(pidfd)
}

// awaitEnd reaps a child once it has ended.
func awaitEnd(pidfd int) error {
	for {
		if err := unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED, nil); err != unix.EINTR {
			return err
		}
	}
}

// executed identifies a child whose vfork is over: it has executed its program,
// or was killed before and ends as if it had run.
func executed(pid int) (containers.ProcessRef, error) {
	for {
		// A child that we have not waited for keeps its entry in /proc.
		s, err := readStat(pid)
		if err != nil {
			return containers.ProcessRef{}, err
		}
		if s.flags&forkNoExec == 0 {
			return containers.ProcessRef{Pid: pid, StartTime: s.start}, nil
		}
		if s.flags&exiting != 0 || s.state == 'Z' || s.state == 'X' {
			return containers.ProcessRef{}, errors.New("it was killed before it could execute its command")
		}
		// execve(2) lets the parent go on a moment before it clears the flag.
		time.Sleep(10 * time.Microsecond)
	}
}

// Flags of linux/sched.h.
const (
	exiting    = 0x4  // PF_EXITING
	forkNoExec = 0x40 // PF_FORKNOEXEC
)

func (p *process) Ref() containers.ProcessRef { return p.ref }

func (p *process) Signal(sig syscall.Signal) error { return p.signal(sig, 0) }

// KillGroup kills the process with its group, which it leads; before Linux 6.9
// only the process itself.
func (p *process) KillGroup() error {
	err := p.signal(unix.SIGKILL, pidfdSignalGroup)
	if errors.Is(err, unix.EINVAL) {
		return p.signal(unix.SIGKILL, 0)
	}
	return err
}

const pidfdSignalGroup = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP of linux/pidfd.h

func (p *process) signal(sig syscall.Signal, flags int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return os.ErrProcessDone
	}
	err := p.control(func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, flags) })
	if err == unix.ESRCH {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("cannot signal process %d: %w", p.ref.Pid, err)
	}
	return nil
}

func (p *process) control(f func(fd int) error) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// Running tells whether the process still runs; one that was waited for doesn't.
func (p *process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	ended := false
	err := p.control(func(fd int) (err error) {
		ended, err = hasEnded(fd)
		return err
	})
	return err == nil && !ended
}

// hasEnded asks without blocking whether a pidfd's process has ended. Even a
// poll that doesn't wait is interrupted by signals, as Go's scheduler sends them.
func hasEnded(pidfd int) (bool, error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
		if err != unix.EINTR {
			return n > 0, err
		}
	}
}

// Wait blocks until the process has ended.
func (p *process) Wait() (containers.Exit, error) {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return containers.Exit{}, err
	}
	exit := containers.Exit{Code: -1}
	var werr error
	err = raw.Read(func(fd uintptr) bool {
		var done bool
		done, werr = p.poll(int(fd), &exit)
		return done
	})
	if err == nil {
		err = werr
	}
	if err != nil {
		return exit, fmt.Errorf("cannot wait for process %d: %w", p.ref.Pid, err)
	}
	exit.At = time.Now()
	if p.lasting {
		_ = p.control(func(fd int) error { lastExit(p.ref, fd, &exit); return nil })
	}
	if p.cgroup != "" {
		// Another process than this one may have been killed.
		exit.OOM = (exit.Code == 128+int(unix.SIGKILL) || exit.Code < 0) && p.groups.oomKills(p.cgroup) > p.ooms
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	return exit, p.pidfd.Close()
}

// poll asks without blocking whether the process has ended.
func (p *process) poll(fd int, exit *containers.Exit) (bool, error) {
	if p.foreign {
		ended, err := hasEnded(fd)
		if ended && !p.lasting {
			_, _ = foreignExit(fd, exit)
		}
		return ended || err != nil, err
	}
	var info siginfo
	err := waitid(fd, &info)
	if err == unix.EAGAIN || err == unix.EINTR || (err == nil && info.pid == 0) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	if info.code == cldExited {
		exit.Code = int(info.status)
		return true, nil
	}
	exit.Signal = syscall.Signal(info.status)
	exit.Code = 128 + int(info.status)
	return true, nil
}
