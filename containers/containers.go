// Package containers is the boundary between the life cycle and an engine that
// runs containers. An engine is two-step: Prepare assembles a container's root
// in a mount namespace held by a descriptor, on which seals are checked; Start
// runs the command in it.
package containers

import (
	"context"
	"os"
	"syscall"
	"time"
)

// Spec describes one container. All paths named "on the machine" are absolute.
type Spec struct {
	Name     string   `json:"name"` // also its cgroup's name
	Hostname string   `json:"hostname"`
	Root     Root     `json:"root"`
	Args     []string `json:"args"`
	Env      []string `json:"env"` // NAME=value
	// WorkingDir is made when it is missing; "" is "/".
	WorkingDir string `json:"working_dir"`
	// User is "", NAME, UID, or either with :GROUP or :GID, looked up in the
	// root's own passwd and group.
	User       string  `json:"user"`
	Mounts     []Mount `json:"mounts"`
	Hosts      string  `json:"hosts"`       // text of /etc/hosts
	ResolvConf string  `json:"resolv_conf"` // text of /etc/resolv.conf
	// NetNSPath is the network namespace to join. UserNSPath is for later.
	NetNSPath  string `json:"netns_path"`
	UserNSPath string `json:"userns_path,omitempty"`
	// Sealed lists paths in the root that are about to be checked: they are
	// copied into the writable layer by Prepare, so that an edit of a lower
	// folder can't follow the check.
	Sealed      []string `json:"sealed"`
	MemoryBytes int64    `json:"memory_bytes"` // 0 is no limit
	Pids        int64    `json:"pids"`         // 0 is no limit
	// Stdout and Stderr are FIFOs on the machine; the engine makes them, owned
	// by the container's user.
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	// ExtraFiles are handed to the command from descriptor 3 on.
	ExtraFiles []*os.File `json:"-"`
}

// Root says what a container's root is assembled from.
type Root struct {
	// Host asks for the composite of the machine's own /usr and /etc.
	Host bool `json:"host,omitempty"`
	// Lower is the read-only folder below the writable layer; unused with Host.
	Lower string `json:"lower,omitempty"`
	// WritableDir is a folder on the machine for what the container writes;
	// "" keeps it in memory.
	WritableDir string `json:"writable_dir,omitempty"`
}

// Mount is a bind mount.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only"`
}

// Engine prepares containers.
type Engine interface {
	// Prepare assembles the root. After an error nothing is left.
	Prepare(ctx context.Context, spec *Spec) (Container, error)
	// Close gives back what the engine itself holds; containers run on.
	Close() error
}

// Container is a prepared container whose command has not started.
type Container interface {
	// Root is an O_PATH descriptor of the assembled root; it is closed by
	// Start and Discard.
	Root() *os.File
	// RunBefore runs another command in the root with all that the real one
	// gets, as process 1 of a pid namespace of its own: what it leaves running
	// ends with it. It may be called again, and Start follows, once that
	// command has been waited for. One that can't be executed is an *ExecError.
	RunBefore(ctx context.Context, args []string) (Process, error)
	// Start runs the command and returns when its exec has succeeded. A
	// command that can't be executed is an *ExecError.
	Start(ctx context.Context) (Process, error)
	// Discard gives the root back without starting anything.
	Discard() error
}

// Process is a container's process 1 or a process executed in a container.
type Process interface {
	// Ref names the process for good, across reuse of its pid.
	Ref() ProcessRef
	// Wait blocks until the process has ended. It is called once.
	Wait() (Exit, error)
	// Signal sends sig through the pidfd.
	Signal(sig syscall.Signal) error
}

// GroupKiller is met by processes that can be killed together with the other
// processes of their group.
type GroupKiller interface{ KillGroup() error }

// ProcessRef names a process across reuse of its pid.
type ProcessRef struct {
	Pid int `json:"pid"`
	// StartTime is field 22 of /proc/PID/stat, clock ticks since boot.
	StartTime uint64 `json:"start_time"`
}

// Exit says how a process ended.
type Exit struct {
	Code   int            `json:"code"` // 128+signal when a signal ended it
	Signal syscall.Signal `json:"signal,omitempty"`
	OOM    bool           `json:"oom,omitempty"` // the cgroup's counters saw an OOM kill
	At     time.Time      `json:"at"`
}

// ExecSpec asks for a command in a running container.
type ExecSpec struct {
	Container  ProcessRef // its process 1
	Cgroup     string     // the container's cgroup, as Config of the engine names it
	Args       []string
	Env        []string
	WorkingDir string
	User       string
	TTY        bool // Stdin is used as the controlling terminal (the container's pty)
	// Standard files: the container's pty or pipes made for it, which become its
	// user's; nil is /dev/null.
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
}

// ExecError is a command that could not be executed: Errno is ENOENT (127) or
// another (126).
type ExecError struct {
	Container string
	Path      string
	Errno     syscall.Errno
}

func (e *ExecError) Error() string {
	return "cannot execute \"" + e.Path + "\" in " + e.Container + ": " + e.Errno.Error()
}

// Code is the exit code that a shell gives such a command.
func (e *ExecError) Code() int {
	if e.Errno == syscall.ENOENT {
		return 127
	}
	return 126
}

func (e *ExecError) Unwrap() error { return e.Errno }

// Paused is a container whose processes are frozen: no command can start in it.
type Paused struct{ Name string }

func (e *Paused) Error() string { return e.Name + " is paused" }

// Bound is a file that can't be rewritten: it lies in a mount of the user's.
type Bound struct{ Path string }

func (e *Bound) Error() string { return e.Path + " is on a mount of the user's" }

// Unsupported is a feature the machine or its kernel lacks.
type Unsupported struct {
	Feature string
	Err     error
}

func (e *Unsupported) Error() string {
	s := "this machine lacks " + e.Feature
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Unsupported) Unwrap() error { return e.Err }
