package native

import (
	"bytes"
	"os"
	"strconv"
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
	setExit(exit, unix.WaitStatus(info.exitCode))
	return true, nil
}

// lastExit tells how a process ended whose parent is somebody else: by its
// zombie's exit code (proc_pid_stat(5), field 52), or once that was reaped, as
// init does at once or after a while, by the kernel's record.
func lastExit(ref containers.ProcessRef, pidfd int, exit *containers.Exit) {
	if status, ok := zombieStatus(ref); ok {
		setExit(exit, status)
		return
	}
	_, _ = foreignExit(pidfd, exit)
}

func zombieStatus(ref containers.ProcessRef) (unix.WaitStatus, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(ref.Pid) + "/stat")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 50 || fields[0][0] != 'Z' || string(fields[19]) != strconv.FormatUint(ref.StartTime, 10) {
		return 0, false
	}
	status, err := strconv.ParseUint(string(fields[49]), 10, 32)
	return unix.WaitStatus(status), err == nil
}

func setExit(exit *containers.Exit, status unix.WaitStatus) {
	if status.Signaled() {
		exit.Signal = status.Signal()
		exit.Code = 128 + int(status.Signal())
		return
	}
	exit.Code = status.ExitStatus()
}
