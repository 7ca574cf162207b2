package native

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// refOf reads a process's start time (proc_pid_stat(5), field 22).
func refOf(pid int) (containers.ProcessRef, error) {
	s, err := readStat(pid)
	if err != nil {
		return containers.ProcessRef{}, err
	}
	return containers.ProcessRef{Pid: pid, StartTime: s.start}, nil
}

// stat is what we read of proc_pid_stat(5).
type stat struct {
	state byte
	flags uint64 // PF_ of linux/sched.h
	start uint64 // clock ticks after boot
}

func readStat(pid int) (stat, error) { return readStatAt(unix.AT_FDCWD, "/proc/", pid) }

// readStatAt looks in the folder proc, seen from the folder dir.
func readStatAt(dir int, proc string, pid int) (s stat, err error) {
	// Asked of hundreds at once: os.ReadFile takes twice as long.
	var buffer [1024]byte // field 22 ends far before
	fd, err := unix.Openat(dir, proc+strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return s, fmt.Errorf("cannot identify process %d: %w", pid, err)
	}
	n, err := unix.Read(fd, buffer[:])
	closeFD(fd)
	if err != nil {
		return s, fmt.Errorf("cannot identify process %d: %w", pid, err)
	}
	b := buffer[:n]
	// The name in field 2 may hold anything, parentheses too.
	i := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[i+1:])
	if i < 0 || len(fields) < 20 {
		return s, fmt.Errorf("cannot identify process %d: unknown format of its stat file", pid)
	}
	s.state = fields[0][0]
	if s.flags, err = strconv.ParseUint(string(fields[6]), 10, 64); err != nil {
		return s, fmt.Errorf("cannot identify process %d: %w", pid, err)
	}
	if s.start, err = strconv.ParseUint(string(fields[19]), 10, 64); err != nil {
		return s, fmt.Errorf("cannot identify process %d: %w", pid, err)
	}
	return s, nil
}

// Self names the calling process.
func Self() containers.ProcessRef {
	ref, err := refOf(os.Getpid())
	if err != nil {
		return containers.ProcessRef{Pid: os.Getpid()}
	}
	return ref
}

// Alive tells whether the process still runs; a zombie doesn't.
func Alive(ref containers.ProcessRef) bool {
	_, alive := statOf(ref)
	return alive
}

// statOf reads the stat of a process that still runs.
func statOf(ref containers.ProcessRef) (s stat, alive bool) {
	if ref.Pid <= 0 {
		return s, false
	}
	s, err := readStat(ref.Pid)
	return s, err == nil && s.start == ref.StartTime && s.state != 'Z' && s.state != 'X'
}

// Busy tells whether the process is on a processor, or waits for one or for the
// disk: it is not yet where it will wait for its work.
func Busy(ref containers.ProcessRef) bool {
	s, alive := statOf(ref)
	return alive && (s.state == 'R' || s.state == 'D')
}

// Ending tells whether a process that still runs has been killed: on a busy
// machine, or with much memory to give back, its end takes a moment.
func Ending(ref containers.ProcessRef) bool {
	s, alive := statOf(ref)
	return alive && (s.flags&exiting != 0 || signalMask(ref.Pid, "SigPnd", "ShdPnd")&(1<<(unix.SIGKILL-1)) != 0)
}

// openRef opens a pidfd and makes sure that it is of the process meant: the
// pid can't be reused between the two as long as the start time is the same.
func openRef(ref containers.ProcessRef) (int, error) {
	if ref.Pid <= 0 {
		return -1, os.ErrProcessDone
	}
	fd, err := unix.PidfdOpen(ref.Pid, 0)
	if err == unix.ESRCH || err == unix.EINVAL {
		return -1, os.ErrProcessDone
	}
	if err != nil {
		return -1, fmt.Errorf("cannot open process %d: %w", ref.Pid, err)
	}
	if s, err := readStat(ref.Pid); err != nil || s.start != ref.StartTime {
		closeFD(fd)
		return -1, os.ErrProcessDone
	}
	return fd, nil
}

// OpenProcess opens a process that may be somebody else's child.
func OpenProcess(ref containers.ProcessRef) (containers.Process, error) {
	p, err := openForeign(ref)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// OpenContainer opens a container's process 1 whose parent, its keeper, is gone.
// Wait tells how it ended on Linux 6.15 and later; earlier ones may forget that
// at once, and the code is -1 then. OOM counts from now on. A process that has ended is os.ErrProcessDone.
func OpenContainer(ref containers.ProcessRef, cgroup string) (containers.Process, error) {
	if err := checkCgroup(cgroup); err != nil {
		return nil, err
	}
	groups := findHierarchies()
	ooms := groups.oomKills(cgroup)
	p, err := openForeign(ref)
	if err != nil {
		return nil, err
	}
	if !Alive(ref) {
		_ = p.pidfd.Close()
		return nil, os.ErrProcessDone
	}
	p.cgroup, p.groups, p.ooms, p.lasting = cgroup, groups, ooms, true
	return p, nil
}

func openForeign(ref containers.ProcessRef) (*process, error) {
	fd, err := openRef(ref)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		closeFD(fd)
		return nil, fmt.Errorf("cannot prepare a pidfd: %w", err)
	}
	return &process{ref: ref, pidfd: os.NewFile(uintptr(fd), "pidfd"), foreign: true}, nil
}

// BootID is the id that the kernel draws at each boot (random(4)), or "" where
// it can't be read. A ProcessRef means something only during the boot it was
// made in.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// OpenRoot opens a running process's root folder, for looking only.
func OpenRoot(ref containers.ProcessRef) (*os.File, error) {
	pidfd, err := openRef(ref)
	if err != nil {
		return nil, err
	}
	defer closeFD(pidfd)
	path := "/proc/" + strconv.Itoa(ref.Pid) + "/root"
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the root of process %d: %w", ref.Pid, err)
	}
	// The path was the right process's if that one has not been reaped yet.
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		closeFD(fd)
		return nil, os.ErrProcessDone
	}
	return os.NewFile(uintptr(fd), path), nil
}

// IgnoresSignal tells whether a process 1 has done nothing about sig: the kernel
// drops such a signal (pid_namespaces(7)), so waiting for its effect is in vain.
// One that it ignores on purpose asks for the time to finish.
func IgnoresSignal(ref containers.ProcessRef, sig syscall.Signal) bool {
	if sig < 1 || sig > 64 {
		return false
	}
	known := signalMask(ref.Pid, "SigCgt", "SigBlk", "SigIgn")
	return Alive(ref) && known&(1<<(sig-1)) == 0 && isInit(ref.Pid) && !awaitsSignals(ref.Pid)
}

// isInit tells whether a process is 1 in its own pid namespace: it may share
// another container's.
func isInit(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	_, ids, _ := strings.Cut(string(b), "\nNSpid:")
	ids, _, _ = strings.Cut(ids, "\n")
	return strings.HasSuffix(ids, "\t1")
}

// awaitsSignals tells whether a thread of a process waits for signals: while
// sigtimedwait(2) does, the kernel shows them as not blocked.
func awaitsSignals(pid int) bool {
	threads, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/syscall")
	for _, t := range threads {
		b, err := os.ReadFile(t)
		number, _, _ := strings.Cut(string(b), " ")
		if err == nil && number == strconv.Itoa(unix.SYS_RT_SIGTIMEDWAIT) {
			return true
		}
	}
	return false
}

// signalMask is the union of masks of signals (proc_pid_status(5)), all signals
// where they can't be read.
func signalMask(pid int, names ...string) (union uint64) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return ^uint64(0)
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if !slices.Contains(names, name) {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return ^uint64(0)
		}
		union |= mask
	}
	return union
}

// OpenPTY makes a terminal in the container's own devpts, whose names mean
// something inside it.
func OpenPTY(ref containers.ProcessRef) (master, slave *os.File, err error) {
	root, err := OpenRoot(ref)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	m, err := openIn(int(root.Fd()), "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open a terminal: %w", err)
	}
	master = os.NewFile(uintptr(m), "ptmx")
	s, err := openSlave(m)
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, os.NewFile(uintptr(s), "pts"), nil
}

// HoldTerminal opens the other side of a terminal for as long as its master is to
// be read: with nobody there a read of it fails (EIO), although somebody may come
// back. The descriptor is close-on-exec.
func HoldTerminal(master int) (int, error) { return openSlave(master) }

func openSlave(master int) (int, error) {
	// Whatever the container put at the path, only devpts is a terminal's.
	var fs unix.Statfs_t
	if err := unix.Fstatfs(master, &fs); err != nil {
		return -1, fmt.Errorf("cannot inspect the terminal: %w", err)
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return -1, errors.New("cannot open a terminal: the container's /dev/pts/ptmx is not devpts's")
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, fmt.Errorf("cannot unlock the terminal: %w", err)
	}
	s, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, fmt.Errorf("cannot open the terminal's other side: %w", errno)
	}
	return int(s), nil
}
