package native

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// siginfo is the SIGCHLD form of siginfo_t (asm-generic/siginfo.h).
type siginfo struct {
	signo, errno, code int32
	_                  int32
	pid                int32
	uid                uint32
	status             int32
	_                  [100]byte
}

const cldExited = 1 // CLD_EXITED

func waitid(pidfd int, info *siginfo) error {
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(pidfd),
		uintptr(unsafe.Pointer(info)), unix.WEXITED|unix.WNOHANG, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// pidfdInfo is struct pidfd_info of linux/pidfd.h; the exit code came with
// Linux 6.15.
type pidfdInfo struct {
	mask, cgroupID                          uint64
	pid, tgid, ppid, ruid, rgid, euid, egid uint32
	suid, sgid, fsuid, fsgid                uint32
	exitCode                                int32
}

const (
	pidfdGetInfo  = 0xc040ff0b // PIDFD_GET_INFO, size 64
	pidfdInfoExit = 1 << 3     // PIDFD_INFO_EXIT
)

// foreignExit tells how somebody else's child ended, where the kernel does: from
// Linux 6.15 on, once the child has been reaped.
func foreignExit(pidfd int, exit *containers.Exit) (told bool, err error) {
	info := pidfdInfo{mask: pidfdInfoExit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 {
		return false, errno
	}
	if info.mask&pidfdInfoExit == 0 {
		return false, nil
	}
	status := unix.WaitStatus(info.exitCode)
	if status.Signaled() {
		exit.Signal = status.Signal()
		exit.Code = 128 + int(status.Signal())
	} else {
		exit.Code = status.ExitStatus()
	}
	return true, nil
}

// lastExit waits until whoever became the parent has reaped the process, as
// init does at once, and then tells how it ended.
func lastExit(pidfd int, exit *containers.Exit) {
	// A parent that never waits must not hold us up for good.
	deadline := time.Now().Add(2 * time.Second)
	for reaped := false; ; {
		told, err := foreignExit(pidfd, exit)
		left := time.Until(deadline)
		if told || err != nil || reaped || left <= 0 {
			return // any error: this kernel does not tell
		}
		// No events asked for: POLLHUP, which is always reported.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd)}}, int(left.Milliseconds())+1)
		if err != nil && err != unix.EINTR {
			return
		}
		reaped = n > 0
	}
}
