package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A trapped program runs below a system call filter that hands every call which
// changes something to this process, seccomp_unotify(2), together with all
// processes that it leaves behind. Nothing in the program knows of it.

// trapEnv makes this test binary the one that installs the filter and becomes
// the program; it holds the arguments as JSON.
const trapEnv = "PLATELAYER_TEST_TRAP"

func TestMain(m *testing.M) {
	if args := os.Getenv(trapEnv); args != "" {
		fmt.Fprintln(os.Stderr, becomeTrapped(args))
		os.Exit(125)
	}
	if os.Geteuid() == 0 && os.Getenv(machineEnv) == "" {
		os.Exit(inOwnMachine())
	}
	m.Run()
}

// trappedCalls are the calls that a supervisor is asked about. Those of Go's
// runtime (threads, memory, futexes) can't fail without ending the program.
var trappedCalls = map[uint32]string{
	unix.SYS_MOUNT: "mount", unix.SYS_UMOUNT2: "umount2", unix.SYS_PIVOT_ROOT: "pivot_root", unix.SYS_CHROOT: "chroot",
	unix.SYS_FCHDIR: "fchdir", unix.SYS_MOVE_MOUNT: "move_mount", unix.SYS_OPEN_TREE: "open_tree", unix.SYS_FSOPEN: "fsopen",
	unix.SYS_FSCONFIG: "fsconfig", unix.SYS_FSMOUNT: "fsmount", unix.SYS_MOUNT_SETATTR: "mount_setattr",
	unix.SYS_SETNS: "setns", unix.SYS_UNSHARE: "unshare", unix.SYS_CLONE3: "clone3", unix.SYS_EXECVE: "execve", unix.SYS_EXECVEAT: "execveat",
	unix.SYS_OPENAT: "openat", unix.SYS_OPENAT2: "openat2", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_UNLINKAT: "unlinkat",
	unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2", unix.SYS_SYMLINKAT: "symlinkat", unix.SYS_LINKAT: "linkat",
	unix.SYS_MKNODAT: "mknodat", unix.SYS_WRITE: "write", unix.SYS_WRITEV: "writev", unix.SYS_PWRITE64: "pwrite64",
	unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_COPY_FILE_RANGE: "copy_file_range",
	unix.SYS_FCHOWN: "fchown", unix.SYS_FCHOWNAT: "fchownat", unix.SYS_FCHMOD: "fchmod", unix.SYS_FCHMODAT: "fchmodat",
	unix.SYS_UTIMENSAT: "utimensat", unix.SYS_FSETXATTR: "fsetxattr", unix.SYS_LSETXATTR: "lsetxattr", unix.SYS_FLOCK: "flock",
	unix.SYS_SOCKET: "socket", unix.SYS_SOCKETPAIR: "socketpair", unix.SYS_BIND: "bind", unix.SYS_LISTEN: "listen",
	unix.SYS_CONNECT: "connect", unix.SYS_SENDTO: "sendto", unix.SYS_SENDMSG: "sendmsg", unix.SYS_PIPE2: "pipe2",
	unix.SYS_PIDFD_OPEN: "pidfd_open", unix.SYS_PIDFD_SEND_SIGNAL: "pidfd_send_signal", unix.SYS_DUP3: "dup3",
	unix.SYS_SETSID: "setsid", unix.SYS_SETHOSTNAME: "sethostname", unix.SYS_BPF: "bpf", unix.SYS_SECCOMP: "seccomp",
	unix.SYS_CAPSET: "capset", unix.SYS_PRCTL: "prctl", unix.SYS_SETGROUPS: "setgroups", unix.SYS_SETRESGID: "setresgid", unix.SYS_SETRESUID: "setresuid",
}

// Offsets in struct seccomp_data (linux/seccomp.h) on little-endian machines.
const (
	trapNumber = 0
	trapArgs   = 16
)

// trapFilter asks for the trapped calls and allows all others.
func trapFilter() ([]bpf.RawInstruction, error) {
	ask, allow := bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF}, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	code := []bpf.Instruction{
		bpf.LoadAbsolute{Off: trapNumber, Size: 4},
		// Reading changes nothing.
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_OPENAT, SkipFalse: 4},
		bpf.LoadAbsolute{Off: trapArgs + 8*2, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.O_ACCMODE | unix.O_CREAT, SkipFalse: 1},
		ask,
		allow,
		// The runtime names its memory.
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_PRCTL, SkipFalse: 4},
		bpf.LoadAbsolute{Off: trapArgs, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PR_SET_VMA, SkipFalse: 1},
		allow,
		ask,
	}
	for nr := range trappedCalls {
		code = append(code, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: 1}, ask)
	}
	return bpf.Assemble(append(code, allow))
}

// becomeTrapped installs the filter on this thread, sends the listener through
// descriptor 3 and executes the program. It returns only an error.
func becomeTrapped(encoded string) error {
	var args []string
	if err := json.Unmarshal([]byte(encoded), &args); err != nil {
		return err
	}
	raw, err := trapFilter()
	if err != nil {
		return err
	}
	insns := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		insns[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := &unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	runtime.LockOSThread()
	// A call that has been received is not interrupted by the runtime's own
	// signals: it would be counted twice.
	listener, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(prog)))
	if errno != 0 {
		return fmt.Errorf("cannot install the filter: %w", errno)
	}
	// Nobody answers this thread's calls yet: another one sends.
	sent := make(chan error)
	go func() { sent <- unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(listener)), nil, 0) }()
	if err := <-sent; err != nil {
		return fmt.Errorf("cannot send the listener: %w", err)
	}
	unix.CloseOnExec(3)
	os.Unsetenv(trapEnv)
	return fmt.Errorf("cannot execute %s: %w", args[0], syscall.Exec(args[0], args, os.Environ()))
}

// trappedCall is struct seccomp_notif, and answer struct seccomp_notif_resp.
type (
	trappedCall struct {
		id         uint64
		tid, flags uint32
		nr         int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	answer struct {
		id    uint64
		val   int64
		errno int32
		flags uint32
	}
)

// supervisor decides over the calls of a trapped program and its children as
// long as one of them lives.
type supervisor struct {
	listener int
	decide   func(*trappedCall) syscall.Errno // 0: the call goes on
	gone     chan struct{}                    // closed when no trapped process is left
}

// startTrapped starts a program below the filter; nothing of it runs before
// decide is asked.
func startTrapped(c *exec.Cmd, decide func(*trappedCall) syscall.Errno) (*supervisor, error) {
	args, err := json.Marshal(c.Args)
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "trap")
	defer unix.Close(pair[0])
	c.Path, c.Args = "/proc/self/exe", []string{"trapped"}
	c.Env = append(c.Environ(), trapEnv+"="+string(args))
	c.ExtraFiles = []*os.File{theirs}
	err = c.Start()
	theirs.Close()
	if err != nil {
		return nil, err
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("the filter could not be installed"), err, c.Wait())
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	s := &supervisor{listener: fds[0], decide: decide, gone: make(chan struct{})}
	go s.serve()
	return s, nil
}

func (s *supervisor) serve() {
	defer close(s.gone)
	defer unix.Close(s.listener)
	for {
		events := []unix.PollFd{{Fd: int32(s.listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(events, -1); err != nil && err != unix.EINTR {
			return
		}
		if events[0].Revents&unix.POLLIN == 0 {
			if events[0].Revents&unix.POLLHUP != 0 {
				return
			}
			continue
		}
		call := new(trappedCall)
		if s.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(call)) != 0 {
			continue // its process has been killed meanwhile
		}
		reply := &answer{id: call.id}
		if errno := s.decide(call); errno != 0 {
			reply.errno = -int32(errno)
		} else {
			reply.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
		}
		s.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(reply))
	}
}

func (s *supervisor) ioctl(request uintptr, arg unsafe.Pointer) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), request, uintptr(arg))
	return errno
}

// text reads a string of the calling process.
func (c *trappedCall) text(arg int) string {
	at := uintptr(c.args[arg])
	var all strings.Builder
	for at != 0 && all.Len() < unix.PathMax {
		// Never across a page: the next may not be there.
		buffer := make([]byte, 256-at%256)
		n, err := unix.ProcessVMReadv(int(c.tid), []unix.Iovec{{Base: &buffer[0], Len: uint64(len(buffer))}},
			[]unix.RemoteIovec{{Base: at, Len: len(buffer)}}, 0)
		if err != nil {
			break
		}
		text, _, found := strings.Cut(string(buffer[:n]), "\x00")
		all.WriteString(text)
		if found {
			break
		}
		at += uintptr(n)
	}
	return all.String()
}

// file tells what an argument that is a descriptor stands for.
func (c *trappedCall) file(arg int) string {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.tid, int32(c.args[arg])))
	if err != nil {
		return "?"
	}
	return path
}

// family is that of the socket address an argument points to.
func (c *trappedCall) family(arg int) uint16 {
	family := new(uint16)
	if c.args[arg] == 0 {
		return unix.AF_UNSPEC
	}
	_, err := unix.ProcessVMReadv(int(c.tid), []unix.Iovec{{Base: (*byte)(unsafe.Pointer(family)), Len: 2}},
		[]unix.RemoteIovec{{Base: uintptr(c.args[arg]), Len: 2}}, 0)
	if err != nil {
		return unix.AF_UNSPEC
	}
	return *family
}
