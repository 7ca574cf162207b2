//go:build amd64 || arm64

package native

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vforkClone3 is clone3(2) for a child that shares the caller's memory.
//
//go:noescape
func vforkClone3(args unsafe.Pointer, size uintptr) (pid, errno uintptr)

// The runtime's own preparations for a fork; syscall.forkExec uses them the
// same way, and the runtime keeps them linkable for gVisor.
//
//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

const vforkSupported = true

// spawn clones a child which shares this process's memory, runs ops and ends
// in execve; the calling thread waits for that. Its failure is in report.
//
//go:norace
func spawn(args *cloneArgs, ops []op, report *report) (pid int, errno syscall.Errno) {
	syscall.ForkLock.Lock()
	pid, errno = cloneAndRun(args, ops, report)
	runtimeAfterFork()
	syscall.ForkLock.Unlock()
	return pid, errno
}

// cloneAndRun is a frame of its own: the child never returns from it, and the
// parent returns at once, so neither sees what the other left on the stack.
//
//go:noinline
//go:norace
//go:nocheckptr
func cloneAndRun(args *cloneArgs, ops []op, report *report) (int, syscall.Errno) {
	var (
		pid, errno uintptr
		e          syscall.Errno
		r, saved   uintptr
		i          int
		o          *op
	)
	runtimeBeforeFork()
	pid, errno = vforkClone3(unsafe.Pointer(args), unsafe.Sizeof(*args))
	if errno != 0 || pid != 0 {
		return int(pid), syscall.Errno(errno)
	}
	// The child. Nothing here may allocate, grow the stack or take a lock.
	runtimeAfterForkInChild()
	for i = 0; i < len(ops); i++ {
		o = &ops[i]
		if o.flags&opUse != 0 {
			o.args[0] = saved
		}
		r, _, e = syscall.RawSyscall6(o.nr, o.args[0], o.args[1], o.args[2], o.args[3], o.args[4], o.args[5])
		if e != 0 {
			if o.flags&opMayLack != 0 && (e == syscall.ENOENT || e == syscall.ENOTDIR) {
				i += int(o.skip)
				continue
			}
			if o.flags&opMayLackCap != 0 && e == syscall.EINVAL {
				continue
			}
			if o.flags&opMayLackCall != 0 && (e == syscall.ENOSYS || e == syscall.EPERM) {
				continue
			}
			report.index = i
			report.errno = e
			break
		}
		if o.flags&opBirth != 0 && r != 0 {
			report.born = int(r)
			break
		}
		if o.flags&opSave != 0 {
			saved = r
		}
	}
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 253, 0, 0, 0, 0, 0)
	}
}
