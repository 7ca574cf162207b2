package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A point is one call of the program's own processes that can fail. It is named
// by who makes it, on what, and how often before: threads may change the order
// of calls, but hardly their names.
type point struct {
	name   string
	errno  syscall.Errno
	caller int  // process
	child  bool // which shares its parent's memory, before its execve
	parent int
}

// How a point is made to fail.
const (
	failing   = "error"  // the call gives an error and does nothing
	killing   = "kill"   // the calling process is killed instead
	orphaning = "orphan" // or the parent of one that has not executed its program yet
)

// injector notes the points of a run and makes one of them fail.
type injector struct {
	root, name string // of the topology's state, and its own

	mu     sync.Mutex
	off    bool
	seen   map[string]int
	last   map[uint32]trappedCall // by thread
	points []point
	at     string // the point that fails
	how    string
	hit    bool
}

func (i *injector) start() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.off = false
}

// stop lets all further calls go on and tells what was seen.
func (i *injector) stop() (points []point, hit bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.off = true
	return i.points, i.hit
}

func (i *injector) decide(c *trappedCall) syscall.Errno {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.off {
		return 0
	}
	p, ok := i.point(c)
	if !ok {
		return 0
	}
	// The kernel restarts some calls that find a lock taken (restart_syscall):
	// the same call of the same thread is the same point.
	last := i.last[c.tid]
	i.last[c.tid] = *c
	if last.nr == c.nr && last.args == c.args {
		return 0
	}
	i.seen[p.name]++
	p.name = fmt.Sprintf("%s #%d", p.name, i.seen[p.name])
	i.points = append(i.points, p)
	if p.name != i.at || i.hit {
		return 0
	}
	i.hit = true
	switch i.how {
	case failing:
		return p.errno
	case killing:
		syscall.Kill(p.caller, syscall.SIGKILL) // it waits for our answer, so the number is its own
	case orphaning:
		syscall.Kill(p.parent, syscall.SIGKILL)
	}
	return 0
}

// point describes a call, unless it is one of a station's own or of no
// consequence.
func (i *injector) point(c *trappedCall) (point, bool) {
	// A child that shares our memory has our command line until it executes its
	// own; namespaces tell nothing, it enters the station's before.
	line := commandLine(int(c.tid))
	role := i.role(line)
	if role == "" {
		return point{}, false
	}
	target, ok := describe(c)
	if !ok {
		return point{}, false
	}
	call := trappedCalls[uint32(c.nr)]
	p := point{errno: faultOf(call, c), caller: statusOf(int(c.tid), "Tgid"), parent: statusOf(int(c.tid), "PPid")}
	p.child = bytes.Equal(line, commandLine(p.parent))
	if p.child {
		role += "'s child"
	}
	p.name = strings.TrimSpace(role + ": " + call + " " + i.stable(target))
	return p, true
}

// role tells which of our processes has a command line; "" is none of ours.
func (i *injector) role(line []byte) string {
	args := strings.Split(string(line), "\x00")
	if len(args) > 1 && args[1] == "backbone" {
		return "backbone"
	}
	if !bytes.Contains(line, []byte(i.root)) {
		return ""
	}
	for _, a := range args[1:] {
		if slices.Contains([]string{"up", "keeper", "down", "stop", "start", "restart", "pause", "unpause", "scale", "ps", "exec"}, a) {
			return a
		}
	}
	return "?"
}

// stable takes out of a text what differs from run to run.
func (i *injector) stable(s string) string {
	s = strings.NewReplacer(i.root, "ROOT", i.name, "NAME").Replace(s)
	s = regexp.MustCompile(`\.(new|tmp)-[0-9]+|\.current\.json[0-9]+|\.sealed\.[A-Z0-9]+|#[0-9a-f]+`).ReplaceAllString(s, ".TEMP")
	s = regexp.MustCompile(`/(fd|self|task)/[0-9]+|/proc/[0-9]+`).ReplaceAllString(s, "/N")
	return regexp.MustCompile(`:\[[0-9]+\]`).ReplaceAllString(s, "")
}

func commandLine(pid int) []byte {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return line
}

func statusOf(pid int, key string) (n int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); name == key {
			fmt.Sscan(value, &n)
		}
	}
	return n
}

// describe tells what a call is about; false where its failure means nothing.
func describe(c *trappedCall) (string, bool) {
	at := func(dir, path int) string {
		p := c.text(path)
		if filepath.IsAbs(p) || int32(c.args[dir]) == unix.AT_FDCWD {
			return p
		}
		return filepath.Join(c.file(dir), p)
	}
	switch c.nr {
	case unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_PWRITE64:
		var st unix.Stat_t
		err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", c.tid, int32(c.args[0])), &st)
		return c.file(0), err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
	case unix.SYS_SENDTO:
		return "netlink", c.family(4) == unix.AF_NETLINK
	case unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_MKNODAT, unix.SYS_FCHOWNAT,
		unix.SYS_FCHMODAT, unix.SYS_UTIMENSAT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR:
		return at(0, 1), true
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT, unix.SYS_MOVE_MOUNT:
		return at(0, 1) + " to " + at(2, 3), true
	case unix.SYS_SYMLINKAT:
		return at(1, 2), true
	case unix.SYS_MOUNT:
		return c.text(2) + " on " + c.text(1), true
	case unix.SYS_FSCONFIG:
		return c.text(2), true
	case unix.SYS_UMOUNT2, unix.SYS_CHROOT, unix.SYS_EXECVE, unix.SYS_LSETXATTR, unix.SYS_FSOPEN, unix.SYS_SETHOSTNAME:
		return c.text(0), true
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_FTRUNCATE, unix.SYS_FCHOWN, unix.SYS_FCHMOD, unix.SYS_FSETXATTR,
		unix.SYS_FLOCK, unix.SYS_SETNS, unix.SYS_FCHDIR, unix.SYS_COPY_FILE_RANGE:
		return c.file(0), true
	case unix.SYS_PRCTL:
		// One capability stands for all.
		return fmt.Sprint(int(c.args[0])), c.args[0] != unix.PR_CAPBSET_DROP || c.args[1] == unix.CAP_SYS_ADMIN
	case unix.SYS_UNSHARE, unix.SYS_SOCKET, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_BPF, unix.SYS_SECCOMP:
		return fmt.Sprint(int(c.args[0])), true
	}
	return "", true
}

// faultOf is an error that the call can have on a machine short of something,
// or with a broken disk.
func faultOf(call string, c *trappedCall) syscall.Errno {
	switch call {
	case "write", "writev", "pwrite64", "mkdirat", "mknodat", "symlinkat", "linkat", "renameat", "renameat2", "ftruncate", "copy_file_range", "fsetxattr", "lsetxattr":
		return syscall.ENOSPC
	case "openat":
		if c.args[2]&unix.O_CREAT != 0 {
			return syscall.ENOSPC
		}
		return syscall.EMFILE
	case "openat2", "socket", "socketpair", "pipe2", "pidfd_open":
		return syscall.EMFILE
	case "mount", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "mount_setattr", "clone3", "setns", "unshare", "bpf", "seccomp", "umount2":
		return syscall.ENOMEM
	case "sendto", "sendmsg":
		return syscall.ENOBUFS
	}
	return syscall.EIO
}
