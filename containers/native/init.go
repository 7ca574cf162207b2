package native

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// InitName is the name under which the program is started as a container's
// init; the program then calls Init with its further arguments.
const InitName = "platelayer-init"

// openInit opens the program's own file on a read-only mount, so that nobody
// in a container can write to it through /proc.
func openInit() (int, error) {
	const self = "/proc/self/exe"
	var fs unix.Statfs_t
	if err := unix.Statfs(self, &fs); err != nil {
		return -1, fmt.Errorf("cannot inspect the program's own file: %w", err)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return unix.Open(self, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	fd, err := cloneMount(unix.AT_FDCWD, self, false)
	if err != nil {
		return -1, fmt.Errorf("cannot protect the program's own file: %w", err)
	}
	if err := setMount(fd, unix.MOUNT_ATTR_RDONLY, false); err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

// Init is process 1 of a container that asked for one: it runs the command
// args[0], a path, with the arguments args[1:], hands signals on to it, reaps
// whatever is left to it, and returns the command's exit code, 128 and the
// signal's number if a signal ended it. Without args it is idle.
func Init(args []string, stderr io.Writer) int {
	// Nobody in the container may look at this program's file and memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil || len(args) == 1 {
		return initFailed(stderr, fmt.Errorf("wrong use: %v", err))
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	if len(args) == 0 {
		return idle(signals)
	}
	_, err := unix.IoctlGetTermios(0, unix.TCGETS)
	pid, err := syscall.ForkExec(args[0], args[1:], &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setpgid: true, Foreground: err == nil, Ctty: 0}})
	if err != nil {
		_ = initFailed(stderr, fmt.Errorf("cannot execute %q: %w", args[0], err))
		if err == syscall.ENOENT {
			return 127
		}
		return 126
	}
	for {
		if code, ended := reap(pid); ended {
			return code
		}
		switch s := (<-signals).(syscall.Signal); s {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGTTIN, unix.SIGTTOU, unix.SIGPIPE: // our own
		default:
			_ = syscall.Kill(pid, s) // ESRCH: the next round tells
		}
	}
}

// idle reaps until a signal comes, hands it on to all that runs in the container,
// and returns when that has ended.
func idle(signals <-chan os.Signal) int {
	for sig := range signals {
		reap(0)
		s := sig.(syscall.Signal)
		switch s {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGTTIN, unix.SIGTTOU, unix.SIGPIPE, unix.SIGWINCH, unix.SIGCONT:
			continue
		}
		if os.Getpid() != 1 {
			return 0 // in a shared pid namespace most are others' processes
		}
		for syscall.Kill(-1, s) == nil {
			s = 0 // once; from then on it asks whether anybody is left
			time.Sleep(10 * time.Millisecond)
			reap(0)
		}
		return 0
	}
	return 0
}

func initFailed(stderr io.Writer, err error) int {
	fmt.Fprintln(stderr, InitName+":", err)
	return 126
}

// reap takes in who has ended and tells whether the command was among them.
func reap(command int) (code int, ended bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil || pid <= 0:
			return code, ended
		case pid == command && status.Signaled():
			code, ended = 128+int(status.Signal()), true
		case pid == command:
			code, ended = status.ExitStatus(), true
		}
	}
}
