package native

import (
	"fmt"
	"math"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A program is the list of system calls by which a child that shares our
// memory turns itself into a container's process. A forked Go process can run
// nothing else: it has one thread and no runtime.
type program struct {
	ops   []op
	names []string // what each op does, for its error
	keep  []any    // memory the ops point to
	born  bool     // an op is the birth of another child
}

type op struct {
	nr    uintptr
	args  [6]uintptr
	flags uint8
	skip  uint8 // how many further ops fall away with a lacking path
}

const (
	opSave        = 1 << iota // keep the result
	opUse                     // the first argument is the result kept last
	opMayLack                 // a missing path is no failure
	opMayLackCap              // EINVAL: a capability that the kernel doesn't know
	opBirth                   // a clone whose child goes on in the caller's place
	opMayLackCall             // ENOSYS, EPERM: a call that the kernel doesn't know or the machine refuses all
)

// report is how a child tells what failed.
type report struct {
	index int
	errno syscall.Errno
	born  int // the newborn's pid
}

// cloneArgs is struct clone_args of linux/sched.h. What the kernel writes to is
// a pointer, which follows its target when the stack moves.
type cloneArgs struct {
	flags                                                                              uint64
	pidFD                                                                              *int32
	childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

func (p *program) add(name string, flags uint8, nr uintptr, args ...uintptr) {
	o := op{nr: nr, flags: flags}
	copy(o.args[:], args)
	p.ops = append(p.ops, o)
	p.names = append(p.names, name)
}

// str puts a string where the child finds it.
func (p *program) str(s string) uintptr {
	b := append([]byte(s), 0)
	p.keep = append(p.keep, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// mem does the same for a value. It must be on the heap, so v is a pointer
// which is kept.
func mem[T any](p *program, v *T) uintptr {
	p.keep = append(p.keep, v)
	return uintptr(unsafe.Pointer(v))
}

// strs makes a NULL-terminated array of strings.
func (p *program) strs(list []string) uintptr {
	a := make([]uintptr, len(list)+1)
	for i, s := range list {
		a[i] = p.str(s)
	}
	p.keep = append(p.keep, a)
	return uintptr(unsafe.Pointer(&a[0]))
}

// append adds another program, which stays usable.
func (p *program) append(q *program) {
	p.ops = append(p.ops, q.ops...)
	p.names = append(p.names, q.names...)
	p.keep = append(p.keep, q)
}

// stepError says which op of a program failed.
type stepError struct {
	step  string
	last  bool // it was the execve
	errno syscall.Errno
}

func (e *stepError) Error() string { return "cannot " + e.step + ": " + e.errno.Error() }
func (e *stepError) Unwrap() error { return e.errno }

// run starts a child with these clone flags and, if cgroup is not negative, in
// that v2 cgroup. The thread may be in a container's namespaces. It returns the child's pid and a pidfd.
func (p *program) run(t *thread, flags uint64, cgroup int) (pid, pidfd int, err error) {
	fd := new(int32)
	*fd = -1
	rep, free, err := newReport(p.born)
	if err != nil {
		return 0, -1, err
	}
	defer free()
	args := &cloneArgs{
		flags:      flags | unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PIDFD,
		pidFD:      fd,
		exitSignal: uint64(unix.SIGCHLD),
	}
	if cgroup >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(cgroup)
	}
	pid, errno := spawn(args, p.ops, rep)
	runtime.KeepAlive(p)
	runtime.KeepAlive(fd)
	if errno != 0 {
		return 0, -1, fmt.Errorf("cannot clone: %w", errno)
	}
	if p.born {
		return p.wait(t, int(*fd), rep)
	}
	if rep.errno != 0 {
		_ = awaitEnd(int(*fd))
		closeFD(int(*fd))
		return 0, -1, &stepError{step: p.names[rep.index], last: rep.index == len(p.ops)-1, errno: rep.errno}
	}
	return pid, int(*fd), nil
}

const maxFD = math.MaxUint32
