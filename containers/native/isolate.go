package native

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What Docker hides in /proc and /sys of a container
// (github.com/moby/moby/v2/daemon/pkg/oci/defaults.go), which adds to the list
// of the OCI runtime specification. Missing ones are tolerated.
var (
	maskedProcFiles = []string{"/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/timer_list", "/proc/timer_stats"}
	maskedProcDirs  = []string{"/proc/acpi", "/proc/asound", "/proc/scsi"}
	readOnlyProc    = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	maskedSysDirs   = []string{"/sys/firmware", "/sys/devices/virtual/powercap"}
)

// maskedSys lists the folders of this machine's /sys to hide.
func maskedSys() []string {
	cpus, _ := filepath.Glob("/sys/devices/system/cpu/cpu*/thermal_throttle")
	return append(append([]string(nil), maskedSysDirs...), cpus...)
}

// isolate adds what only a container's first process can do, as it needs its
// pid namespace and its cgroup: /proc with its masks, and the cgroup's view.
// base is an open folder of the base, so that the mounts used as masks are
// never looked up in the container.
func (p *program) isolate(base int, v view) {
	at := uintptr(0xffffff9c) // AT_FDCWD
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if v.proc >= 0 {
		p.add("mount the shared /proc", 0, unix.SYS_MOVE_MOUNT, uintptr(v.proc), p.str(""), at, p.str("/proc"), unix.MOVE_MOUNT_F_EMPTY_PATH)
	} else {
		proc := p.str("proc")
		p.add("mount /proc", 0, unix.SYS_MOUNT, proc, p.str("/proc"), proc, flags)
	}
	readOnly, files, dirs := readOnlyProc, maskedProcFiles, maskedProcDirs
	if v.whole {
		readOnly, files, dirs = nil, nil, nil
	}
	for _, path := range readOnly {
		name := p.str(path)
		p.add("clone "+path, opSave|opMayLack, unix.SYS_OPEN_TREE, at, name,
			unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		p.ops[len(p.ops)-1].skip = 2
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		p.add("make "+path+" read-only", opUse, unix.SYS_MOUNT_SETATTR, 0, p.str(""),
			unix.AT_EMPTY_PATH, mem(p, attr), unix.MOUNT_ATTR_SIZE_VER0)
		p.add("mount "+path, opUse, unix.SYS_MOVE_MOUNT, 0, p.str(""), at, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	mask := func(with string, paths []string) {
		for _, path := range paths {
			p.add("clone a mask", opSave, unix.SYS_OPEN_TREE, uintptr(base), p.str(with[1:]),
				unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			p.add("mask "+path, opUse|opMayLack, unix.SYS_MOVE_MOUNT, 0, p.str(""), at, p.str(path), unix.MOVE_MOUNT_F_EMPTY_PATH)
		}
	}
	mask(baseNull, files)
	mask(baseEmpty, dirs)
	// CLONE_NEWCGROUP would take the parent's cgroup for the namespace's root.
	p.add("unshare the cgroup namespace", 0, unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	if v.cgroup {
		fs, f := p.str("cgroup2"), uintptr(flags)
		if !v.delegated {
			f |= unix.MS_RDONLY
		}
		p.add("mount /sys/fs/cgroup", opMayLack, unix.SYS_MOUNT, fs, p.str("/sys/fs/cgroup"), fs, f)
	}
}

// view is what a container sees of the kernel.
type view struct {
	proc      int  // a /proc shared with another container, or -1
	whole     bool // nothing is masked or read-only
	cgroup    bool // there is a v2 tree to show
	delegated bool // it may write to it
}

// unisolate removes what an earlier command of the container has mounted, which
// shows that command's pid and cgroup namespaces.
func (c *container) unisolate() error {
	if !c.isolated {
		return nil
	}
	for _, path := range []string{"/sys/fs/cgroup", "/proc"} {
		// EINVAL: it ended before it mounted that.
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return fmt.Errorf("cannot unmount %s: %w", path, err)
		}
	}
	c.isolated = false
	return nil
}

// finish adds what every process of a container does last: files, signals,
// limits, user, filter, exec.
func (p *program) finish(f *final) {
	if f.cwd >= 0 {
		p.add("enter the working folder", 0, unix.SYS_FCHDIR, uintptr(f.cwd))
	}
	for i, fd := range f.files {
		p.add(fmt.Sprintf("hand over file %d", i), 0, unix.SYS_DUP3, uintptr(fd), uintptr(i), 0)
	}
	session := func() {
		p.add("make a session", 0, unix.SYS_SETSID)
		if f.tty {
			p.add("take the terminal", 0, unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
		}
	}
	if f.birth {
		// The newborn's files are seen: none is left to it but the command's own.
		low := uintptr(len(f.files))
		if f.program >= 0 {
			if uintptr(f.program) != low { // which dup3(2) refuses
				p.add("keep the program", 0, unix.SYS_DUP3, uintptr(f.program), low, unix.O_CLOEXEC)
			}
			f.program, low = int(low), low+1
		}
		p.add("close files", 0, unix.SYS_CLOSE_RANGE, low, maxFD, 0)
	} else {
		session()
		p.add("mark files to close", 0, unix.SYS_CLOSE_RANGE, uintptr(len(f.files)), maxFD, unix.CLOSE_RANGE_CLOEXEC)
	}
	p.append(f.common)
	p.empower(f.powers)
	filter := func() {
		if f.powers.filter != nil {
			p.add("attach the system call filter", 0, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, mem(p, f.powers.filter))
		}
	}
	// Without no_new_privs only CAP_SYS_ADMIN may attach one.
	if f.powers.newPrivileges {
		filter()
		p.credentials(f.user, f.powers)
	} else {
		p.credentials(f.user, f.powers)
	}
	if f.birth {
		p.birth()
		session()
	}
	if !f.powers.newPrivileges {
		filter()
	}
	if f.program >= 0 {
		p.add("execute", 0, unix.SYS_EXECVEAT, uintptr(f.program), p.str(""), p.strs(f.args), p.strs(f.env), unix.AT_EMPTY_PATH)
		return
	}
	p.add("execute", 0, unix.SYS_EXECVE, p.str(f.path), p.strs(f.args), p.strs(f.env))
}

// final is the input of finish.
type final struct {
	cwd     int // an open folder, or -1
	files   []int
	tty     bool
	birth   bool // the command is executed by a newborn: birth.go
	common  *program
	user    *identity
	powers  *powers
	program int    // an open program, or -1 for the one at path
	path    string // as the container sees it
	args    []string
	env     []string
}

// commonSteps is the same for every process: signals, umask.
func commonSteps() *program {
	p := &program{}
	// An ignored signal stays ignored across exec, and Go's runtime resets
	// only those it handles.
	act := &[4]uint64{}
	for sig := uintptr(1); sig <= 64; sig++ {
		if sig != uintptr(unix.SIGKILL) && sig != uintptr(unix.SIGSTOP) {
			p.add("reset a signal", 0, unix.SYS_RT_SIGACTION, sig, mem(p, act), 0, 8)
		}
	}
	// The caller's may hold keys; "" is a new one. A sandbox around us may refuse it.
	p.add("make a session keyring", opMayLackCall, unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0)
	p.add("unblock the signals", 0, unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, mem(p, new(uint64)), 0, 8)
	p.add("set the umask", 0, unix.SYS_UMASK, 0o022)
	return p
}
