// Package containers is the boundary between the life cycle and an engine that
// runs containers. An engine is two-step: Prepare assembles a container's root
// in a mount namespace held by a descriptor, on which seals are checked; Start
// runs the command in it.
package containers

import (
	"context"
	"os"
	"strconv"
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
	Resources   Resources
	Ulimits     []Ulimit
	OOMScoreAdj int
	Groups      []string // further groups, as names or numbers
	// TTY gives the command a terminal of the container's own as its standard
	// files; its Process is a Terminal.
	TTY bool
	// StdinOpen gives the command an input that never ends; else it is /dev/null.
	StdinOpen bool
	Init      bool // a tiny init is PID 1 and reaps
	// Idle has the tiny init run nothing: the container is there for commands
	// that are executed in it. It hands signals on to them, and ends with them.
	Idle     bool
	ReadOnly bool // the root, once it is assembled
	Tmpfs    []Tmpfs
	Files    []File
	Devices  []Device
	// CapAdd and CapDrop change Docker's default set: names without CAP_, or ALL.
	CapAdd        []string
	CapDrop       []string
	Privileged    bool   // all capabilities and devices, no masks, no filter
	Seccomp       string // "" is the default profile, "unconfined", or a profile's JSON text
	NewPrivileges bool   // without no_new_privs
	AppArmor      string
	Label         string // SELinux
	Sysctls       []Sysctl
	// Delegate gives the container a writable cgroup of its own below the one
	// that limits it, as a system manager (systemd) needs.
	Delegate bool
	// PIDOf and IPCOf are processes whose namespaces the container joins.
	PIDOf *ProcessRef
	IPCOf *ProcessRef
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
	Lower   string `json:"lower,omitempty"`
	NoLinks bool   `json:"no_links,omitempty"` // refuses a link anywhere in Lower
	// Layers are folders below Lower that together are what lies there, the topmost
	// first; without any it is Lower itself.
	Layers []string `json:"layers,omitempty"`
	// WritableDir is a folder on the machine for what the container writes;
	// "" keeps it in memory.
	WritableDir string `json:"writable_dir,omitempty"`
}

// Mount is a bind mount.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only"`
	// Propagation is rprivate, private, rshared, shared, rslave or slave; "" is rprivate.
	Propagation string `json:"propagation,omitempty"`
	Subpath     string `json:"subpath,omitempty"` // a folder below Source, never left through links
	// Fill copies what the root has at Target into an empty Source first.
	Fill bool `json:"fill,omitempty"`
	// Yield leaves it out where links of the root lead Target to another mount.
	Yield   bool   `json:"yield,omitempty"`
	SELinux string `json:"selinux,omitempty"` // z or Z: relabel where SELinux is on
	// NoLinks refuses a link anywhere in Source.
	NoLinks bool `json:"no_links,omitempty"`
}

// Resources are limits beside memory and processes; zero values are none.
type Resources struct {
	CPUs           float64 // processors
	CPUShares      int64
	CPUSet         string
	MemSwap        int64 // bytes of memory and swap together; -1 is unlimited
	MemReservation int64 // bytes
	ShmSize        int64 // bytes
	Blkio          Blkio
}

// Blkio are limits of block devices' use.
type Blkio struct {
	Weight                                 int
	DeviceWeights                          []BlkioRate
	ReadBps, ReadIOps, WriteBps, WriteIOps []BlkioRate
}

// BlkioRate is one device's.
type BlkioRate struct {
	Path string
	Rate int64
}

// Ulimit is a resource limit (setrlimit(2)); -1 is unlimited.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Tmpfs is a memory file system in the container.
type Tmpfs struct {
	Target   string
	Size     int64  // bytes; 0 is the kernel's default
	Mode     uint32 // 0 is 1777
	UID, GID int
	Options  string
}

// File is a file of its own in the container, held in memory.
type File struct {
	Target   string
	Content  []byte
	Mode     uint32
	UID, GID int
	Own      bool // it is the container's user's, not UID's and GID's
	// Roots puts the certificates behind it that the root itself trusts.
	Roots bool
}

// Device is a device of the machine that the container may use.
type Device struct {
	Source, Target, Permissions string // permissions of r, w, m
}

// Sysctl is a kernel setting of the container's namespaces.
type Sysctl struct{ Name, Value string }

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

// Terminal is met by processes that have a terminal of their own: its master,
// which the caller reads and closes. Without it the command is hung up.
type Terminal interface{ Terminal() *os.File }

// OOMCounter is met by processes that know how many of their container's had
// been killed for memory when they began.
type OOMCounter interface{ OOMsBefore() uint64 }

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
	Stdin      *os.File
	Stdout     *os.File
	Stderr     *os.File
	SharedPIDs bool // other containers share its processes: Spec.PIDOf
	// As in the Spec that the container was made from.
	Groups        []string
	Ulimits       []Ulimit
	OOMScoreAdj   int
	CapAdd        []string
	CapDrop       []string
	Privileged    bool
	Seccomp       string
	NewPrivileges bool
	AppArmor      string
	Label         string
}

// ExecError is a command that could not be executed: Errno is ENOENT (127) or
// another (126).
type ExecError struct {
	Container string
	Path      string
	Errno     syscall.Errno
	Lacking   string // the interpreter that the program names, where that isn't there
}

func (e *ExecError) Error() string {
	return "cannot execute \"" + e.Path + "\" in " + e.Container + ": " + e.Reason()
}

// Reason is what is wrong with the command.
func (e *ExecError) Reason() string {
	if e.Lacking != "" {
		return "its interpreter " + strconv.Quote(e.Lacking) + " is not there"
	}
	return e.Errno.Error()
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

// Impossible is a setting that the machine, or the container's root, does not
// allow. Key is compose's word for it, Value the element of it that is meant.
type Impossible struct {
	Key, Value string
	Err        error
}

func (e *Impossible) Error() string { return e.Err.Error() }
func (e *Impossible) Unwrap() error { return e.Err }

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

// Written is what lies below a container's mounts, opened for reading: what it
// wrote, and its root as it saw that without volumes and the like.
type Written struct {
	// Changes is the layer that the container wrote, in overlayfs's own form; nil
	// where its root is made of several.
	Changes *os.File
	// Whole are the folders that its root is of, outer ones first.
	Whole []Part
}

// Part is a folder of a root.
type Part struct {
	At  string // where it is in the root; "" is the root itself
	Dir *os.File
}

// Close gives the folders back.
func (w *Written) Close() {
	if w.Changes != nil {
		w.Changes.Close()
	}
	for _, p := range w.Whole {
		p.Dir.Close()
	}
}
