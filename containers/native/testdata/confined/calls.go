package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// lastCall is above the highest number of Linux 6.18.
const lastCall = 480

// skipped are calls that end, stop or confuse the caller, of amd64:
// rt_sigreturn, pause, vfork, exit, exit_group, fork. All are harmless.
var skipped = map[int]bool{15: true, 34: true, 57: true, 58: true, 60: true, 231: true}

// calls makes each system call with arguments that mean nothing, each in a
// process of its own, and tells what came of it. A filter answers EPERM or
// ENOSYS where the kernel would have found the arguments wrong.
func calls() topic {
	t := topic{}
	for n := range lastCall {
		if !skipped[n] {
			t[strconv.Itoa(n)] = attempt(strconv.Itoa(n))
		}
	}
	return t
}

func deeds() topic {
	t := topic{}
	for name := range deed {
		t[name] = attempt(name)
	}
	return t
}

// attempt runs this program anew for one call.
func attempt(what string) string {
	cmd := exec.Command("/proc/self/exe", "do", what)
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return "cannot try: " + err.Error()
	}
	timer := time.AfterFunc(5*time.Second, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer timer.Stop()
	err := cmd.Wait()
	if out.Len() > 0 {
		return out.String()
	}
	return fmt.Sprint("ended: ", err)
}

func do(what string) {
	var errno syscall.Errno
	if n, err := strconv.Atoi(what); err == nil {
		const nothing = ^uintptr(0)
		_, _, errno = syscall.RawSyscall6(uintptr(n), nothing, nothing, nothing, nothing, nothing, nothing)
	} else {
		errno = deed[what]()
	}
	os.Stdout.WriteString(name(errno))
	syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
}

func name(e syscall.Errno) string {
	switch e {
	case 0:
		return "done"
	case syscall.EPERM:
		return "EPERM"
	case syscall.ENOSYS:
		return "ENOSYS"
	case syscall.EACCES:
		return "EACCES"
	}
	return fmt.Sprintf("errno %d", int(e))
}

func call(n uintptr, args ...uintptr) func() syscall.Errno {
	return func() syscall.Errno {
		var a [6]uintptr
		copy(a[:], args)
		_, _, errno := syscall.RawSyscall6(n, a[0], a[1], a[2], a[3], a[4], a[5])
		return errno
	}
}

func text(s string) uintptr {
	p, _ := syscall.BytePtrFromString(s)
	return uintptr(unsafe.Pointer(p))
}

var room [4096]byte

func buffer() uintptr { return uintptr(unsafe.Pointer(&room[0])) }

// deed are calls whose arguments mean something, as filters look at arguments
// and capabilities at what is asked for. None does harm where it is allowed.
// Numbers are amd64's.
var deed = map[string]func() syscall.Errno{
	"socket: netlink audit":         call(41, 16, 3, 9),
	"socket: packet":                call(41, 17, 3, 0x300),
	"socket: raw":                   call(41, 2, 3, 1),
	"socket: vsock":                 call(41, 40, 1, 0),
	"socket: crypto (AF_ALG)":       call(41, 38, 5, 0),
	"personality: no randomization": call(135, 0x40000),
	"personality: 32 bit":           call(135, 8),
	"unshare: user":                 call(272, 0x10000000),
	"unshare: mount":                call(272, 0x20000),
	"unshare: network":              call(272, 0x40000000),
	"unshare: cgroup":               call(272, 0x02000000),
	"clone3":                        call(435, buffer(), 88),
	"setns: its own network":        setns,
	"keyctl: session keyring":       call(250, 0, ^uintptr(2), 0),
	"add_key":                       call(248, text("user"), text("probe"), buffer(), 1, ^uintptr(2)),
	"request_key":                   call(249, text("user"), text("probe"), 0, ^uintptr(2)),
	"bpf: map":                      call(321, 0, buffer(), 48),
	"perf_event_open":               call(298, buffer(), 0, ^uintptr(0), ^uintptr(0), 0),
	"io_uring_setup":                call(425, 1, buffer()),
	"userfaultfd":                   call(323, 1),
	"open_by_handle_at":             handle,
	"ptrace: process 1":             call(101, 0x4206, 1, 0, 0), // PTRACE_SEIZE doesn't stop it
	"process_vm_readv":              call(310, 1, buffer(), 0, buffer(), 0, 0),
	"pidfd_getfd":                   call(438, 0, 0, 0),
	"kcmp":                          call(312, 1, 1, 2, 0, 0),
	"mount: tmpfs":                  call(165, text("none"), text("/tmp"), text("tmpfs"), 0, 0),
	"mount: proc":                   call(165, text("none"), text("/tmp"), text("proc"), 0, 0),
	"mount: cgroup":                 call(165, text("none"), text("/tmp"), text("cgroup2"), 0, 0),
	"remount: /proc/sys writable":   call(165, 0, text("/proc/sys"), 0, 0x1000|0x20, 0),
	"umount: /proc/sys":             call(166, text("/proc/sys"), 2),
	"umount: the root":              call(166, text("/"), 2),
	"fsopen":                        call(430, text("tmpfs"), 0),
	"open_tree: clone":              call(428, ^uintptr(99), text("/"), 1),
	"pivot_root":                    call(155, text("/"), text("/")),
	"chroot":                        call(161, text("/")),
	"syslog: read":                  call(103, 3, buffer(), 100),
	"iopl":                          call(172, 3),
	"ioperm":                        call(173, 0x80, 1, 1),
	"kexec_load":                    call(246, 0, 0, 0, 0),
	"init_module":                   call(175, buffer(), 1, text("")),
	"delete_module":                 call(176, text("none"), 0),
	"reboot: nothing":               call(169, 0xfee1dead, 672274793, 1),
	"swapoff":                       call(168, text("/none")),
	"sethostname":                   call(170, text("station"), 7),
	"setdomainname":                 call(171, text("station"), 7),
	"settimeofday":                  call(164, 0, 0),
	"clock_settime":                 call(227, 0, 0),
	"acct":                          call(163, text("/none")),
	"quotactl":                      call(179, 0x800001, text("/none"), 0, buffer()),
	"nice: -5":                      call(141, 0, 0, ^uintptr(4)),
	"mknod: memory":                 call(133, text("/mem"), 0o20600, 1<<8|1),
	"mknod: disk":                   call(133, text("/disk"), 0o60600, 8<<8),
	"open: memory by its number":    open("/mem2", 0o20600, 1<<8|1),
	"open: disk by its number":      open("/disk2", 0o60600, 254<<8),
	"x32: getpid":                   call(0x40000000 | 39),
	"terminal: put in input":        call(16, 0, 0x5412, buffer()),
	"chmod: the null device":        chmod("/proc/self/fd/0"),
	"write: core pattern":           write("/proc/sys/kernel/core_pattern"),
	"write: sysrq":                  write("/proc/sysrq-trigger"),
	"write: release agent":          write("/sys/fs/cgroup/release_agent"),
	"write: own cgroup":             write("/sys/fs/cgroup/cgroup.procs"),
	"write: process 1's memory":     write("/proc/1/mem"),
}

func setns() syscall.Errno {
	fd, err := syscall.Open("/proc/self/ns/net", syscall.O_RDONLY, 0)
	if err != nil {
		return err.(syscall.Errno)
	}
	return call(308, uintptr(fd), 0)()
}

// handle is Shocker's: the root of a file system is its inode 2.
func handle() syscall.Errno {
	h := struct {
		bytes, kind uint32
		inode       [2]uint32
	}{8, 1, [2]uint32{2, 0}}
	fd, err := syscall.Open("/", syscall.O_RDONLY, 0)
	if err != nil {
		return err.(syscall.Errno)
	}
	return call(304, uintptr(fd), uintptr(unsafe.Pointer(&h)), 0)()
}

func open(path string, mode, number uintptr) func() syscall.Errno {
	return func() syscall.Errno {
		if errno := call(133, text(path), mode, number)(); errno != 0 {
			return errno
		}
		_, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
		os.Remove(path)
		return asErrno(err)
	}
}

func chmod(path string) func() syscall.Errno {
	return func() syscall.Errno {
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			return asErrno(err)
		}
		return asErrno(syscall.Chmod(path, st.Mode&0o7777))
	}
}

// write only opens.
func write(path string) func() syscall.Errno {
	return func() syscall.Errno {
		_, err := syscall.Open(path, syscall.O_WRONLY, 0)
		return asErrno(err)
	}
}

func asErrno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	return err.(syscall.Errno)
}
