package native

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Who may trace (CAP_SYS_PTRACE) may open the memory and the files of every
// process that it sees, non-dumpable ones too. A child that shares this
// program's memory must not be seen by it, so it stays outside the container's
// pid namespace, becomes the container's user there, closes what isn't the
// command's, and then bears the process that executes the command: in that
// namespace, as a child of this program, with a copy of the memory.

// enterPIDs adds that the next child is one of that process's pid namespace.
func (p *program) enterPIDs(pidfd int) {
	p.add("enter the pid namespace", 0, unix.SYS_SETNS, uintptr(pidfd), unix.CLONE_NEWPID)
}

// birth adds the birth: what follows is done by the newborn, which has the
// container's rights only.
func (p *program) birth() {
	p.born = true
	p.add("clone once more", opBirth, unix.SYS_CLONE, unix.CLONE_PARENT|uintptr(unix.SIGCHLD), 0, 0, 0, 0)
}

// newReport makes a report that a child with a copy of the memory can write to.
func newReport(shared bool) (rep *report, free func(), err error) {
	if !shared {
		return new(report), func() {}, nil
	}
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot share memory with a child: %w", err)
	}
	return (*report)(unsafe.Pointer(&page[0])), func() { _ = unix.Munmap(page) }, nil
}

// birthTime is how long a newborn may take to execute its command: a container
// that traces could hold it for ever.
const birthTime = 10 * time.Second

// wait waits for the parent of the newborn, then until that has executed its
// command. It owns pidfd and gives the newborn's.
func (p *program) wait(t *thread, pidfd int, rep *report) (int, int, error) {
	err := awaitEnd(pidfd)
	closeFD(pidfd)
	if err != nil {
		return 0, -1, fmt.Errorf("cannot wait for a child: %w", err)
	}
	runtime.KeepAlive(p)
	pid := rep.born
	if pid == 0 {
		return 0, -1, p.failure(rep)
	}
	if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		return 0, -1, fmt.Errorf("cannot open a child: %w", err)
	}
	for until := time.Now().Add(birthTime); ; time.Sleep(20 * time.Microsecond) {
		s, err := readStatAt(t.proc, "../../../", pid)
		switch {
		case err != nil:
		case s.flags&forkNoExec == 0:
			return pid, pidfd, nil
		case s.flags&exiting != 0 || s.state == 'Z':
			if err = p.failure(rep); err == nil {
				err = errors.New("it was killed before it could execute its command")
			}
		case time.Now().After(until):
			err = errors.New("something in the container keeps it from executing its command")
		}
		if err != nil {
			abandon(pidfd)
			return 0, -1, err
		}
	}
}

// failure is what a child has reported, or nil. A traced one may report anything.
func (p *program) failure(rep *report) error {
	if rep.errno == 0 || rep.index < 0 || rep.index >= len(p.ops) {
		return nil
	}
	return &stepError{step: p.names[rep.index], last: rep.index == len(p.ops)-1, errno: rep.errno}
}
