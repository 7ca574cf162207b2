package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/netplan"
	"platelayer/topology"
)

// formatVersion is the version of state.json and topology.json. A newer one is
// refused, so that an old program never misreads a newer one's state.
//
//   - 1: the intent lay beside the state; no boot, health, restarts.
//   - 2: the intent lies with the written layers, which a reboot leaves.
const formatVersion = 2

// Status of a topology.
const (
	StatusStarting = "starting"
	StatusUp       = "up"
	StatusChanging = "changing" // between what ran and what the intent says
	StatusFailed   = "failed"   // kept by `up --keep`
)

// Intent is what `up` is about to make or change. It is on disk before the
// kernel is touched.
type Intent struct {
	Version     int                `json:"version"`
	File        string             `json:"file"`
	Fingerprint string             `json:"fingerprint"`
	Binary      string             `json:"binary"` // the program's copy in the store
	Builtin     string             `json:"builtin"`
	Images      Images             `json:"images,omitempty"`
	Topology    *topology.Topology `json:"topology"`
	// Project is the topology file's folder without links, as it was looked at by
	// the policy; "" is not known.
	Project string `json:"project,omitempty"`
	// Launched tells that it has been up: its layers hold what stations wrote.
	Launched bool `json:"launched,omitempty"`
	// AtBoot asks `up --marked`, at the machine's start, to bring it up.
	AtBoot bool `json:"at_boot,omitempty"`
	// OneOffs tells which stations, by "cluster/station", are for one command.
	OneOffs map[string]OneOff `json:"one_offs,omitempty"`
	// UID and GID own what is written beside the topology file.
	UID int `json:"uid,omitempty"`
	GID int `json:"gid,omitempty"`
}

// State is what the keeper knows of a topology's containers.
type State struct {
	Version int    `json:"version"`
	Boot    string `json:"boot"` // the machine's boot id: processes of another are gone
	// NetNS is the keeper's network namespace, the machine's: where it opens what
	// leads outside. "" is not known.
	NetNS string `json:"netns,omitempty"`
	// API is the version of the keeper's API; 0 is none.
	API      int                   `json:"api"`
	Binary   string                `json:"binary"` // the keeper's program
	Status   string                `json:"status"`
	Keeper   containers.ProcessRef `json:"keeper"`
	Started  time.Time             `json:"started_at"`
	Backbone *ContainerState       `json:"backbone"`
	Stations []*ContainerState     `json:"stations"`
	// OneOff: the change under way only brings or removes one-off stations.
	OneOff bool `json:"one_off,omitempty"`
	// Uplink is the machine's way to the stations, nil where there is none.
	Uplink *netplan.Uplink `json:"uplink,omitempty"`
	// Ports are the machine's that lead to stations.
	Ports []PublishedPort `json:"ports,omitempty"`
	// Retired: a `down` has begun, and may have been killed since.
	Retired bool `json:"retired,omitempty"`
}

// any reports whether something is true of a process of the topology.
func (s *State) any(is func(containers.ProcessRef) bool) bool {
	return is(s.Keeper) || is(s.Backbone.Process) ||
		slices.ContainsFunc(s.Stations, func(c *ContainerState) bool { return is(c.Process) })
}

// Container states.
const (
	Created    = "created"
	Waiting    = "waiting"  // for what it depends on
	Starting   = "starting" // its root is made or its startup command runs
	Running    = "running"
	Paused     = "paused"
	Restarting = "restarting" // ended, and waiting for its next try
	Exited     = "exited"     // by itself
	Stopped    = "stopped"    // by a command
	Refused    = "refused"    // a sealed file does not match
)

// ContainerState is one container of a topology.
type ContainerState struct {
	Container string                `json:"container"`
	Station   string                `json:"station,omitempty"` // "cluster/station"
	State     string                `json:"state"`
	Process   containers.ProcessRef `json:"process"`
	StartedAt time.Time             `json:"started_at,omitzero"`
	EndedAt   time.Time             `json:"ended_at,omitzero"`
	Exit      *containers.Exit      `json:"exit,omitempty"`
	// Health is "" without a health check.
	Health     string `json:"health,omitempty"`
	HealthSaid string `json:"health_said,omitempty"` // by the last failed check
	Restarts   int    `json:"restarts,omitempty"`    // by its policy, since a command started it
	Reason     string `json:"reason,omitempty"`      // why it does not run
	OOMKills   int    `json:"oom_kills,omitempty"`   // processes killed for lack of memory since it was started
	OOMCount   uint64 `json:"oom_count,omitempty"`   // the kernel's own count when it was last looked at
	// Owed: what it asks to be restarted with was, and it has not been yet.
	Owed bool `json:"owed,omitempty"`
	// Held: it is paused for as long as a command reads it, and by no user.
	Held        bool   `json:"held,omitempty"`
	Made        string `json:"made,omitempty"` // what it was started from: madeFrom
	MemoryBytes int64  `json:"memory_bytes,omitempty"`
}

// started tells whether the container's command runs, paused or not.
func (c *ContainerState) started() bool { return c.State == Running || c.State == Paused }

// alive tells whether it runs and its process is there.
func (c *ContainerState) alive() bool { return c.started() && native.Alive(c.Process) }

// NotKnown is a topology that is not on this machine.
type NotKnown struct{ Name string }

func (e *NotKnown) Error() string { return fmt.Sprintf("there is no topology %q here", e.Name) }

// readIntent reads a topology's intent; NotKnown where there is none.
func readIntent(l Layout, name string) (*Intent, error) {
	i := new(Intent)
	path := l.intent(name)
	err := readVersioned(path, name, i)
	if unknown := new(NotKnown); errors.As(err, &unknown) {
		path = l.firstIntent(name)
		if err = readVersioned(path, name, i); err == nil && i.Version > 1 {
			return nil, unknown // only the mark that record leaves there
		}
	}
	if err != nil {
		return nil, err
	}
	if i.Topology == nil {
		return nil, &Unreadable{name, path, errors.New("it names no topology")}
	}
	return i, nil
}

// readState reads a topology's state; NotKnown where there is none. After a
// reboot no process of it is there, whatever has its number now.
func readState(l Layout, name string) (*State, error) {
	s := new(State)
	if err := readVersioned(l.state(name), name, s); err != nil {
		return nil, err
	}
	if s.Backbone == nil {
		return nil, &Unreadable{name, l.state(name), errors.New("it names no backbone")}
	}
	if s.Boot != "" && s.Boot != native.BootID() {
		s.Keeper = containers.ProcessRef{}
		for _, c := range append(s.Stations, s.Backbone) {
			c.Process = containers.ProcessRef{}
			switch c.State {
			case Waiting, Starting, Running, Paused, Restarting:
				c.State, c.Health = Exited, ""
			}
		}
	}
	return s, nil
}

func readVersioned(path, name string, v any) error {
	if err := checkName(name); err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &NotKnown{name}
	}
	if errors.Is(err, fs.ErrPermission) {
		return needRoot("see the topologies of this machine")
	}
	if err != nil {
		return fmt.Errorf("cannot read the state of %q: %w", name, err)
	}
	var format struct{ Version int }
	if err := json.Unmarshal(data, &format); err != nil {
		return &Unreadable{name, path, err}
	}
	if format.Version > formatVersion {
		return &OtherFormat{name, path, format.Version, formatVersion}
	}
	if err := json.Unmarshal(data, v); err != nil {
		return &Unreadable{name, path, err}
	}
	return nil
}

// Unreadable is a file of a topology's state that makes no sense.
type Unreadable struct {
	Name string
	Path string
	Err  error
}

func (e *Unreadable) Error() string { return fmt.Sprintf("cannot read %s: %v", e.Path, e.Err) }
func (e *Unreadable) Unwrap() error { return e.Err }

// OtherFormat is a file of a topology's state that a newer program wrote.
type OtherFormat struct {
	Name         string
	Path         string
	Theirs, Ours int
}

func (e *OtherFormat) Error() string {
	return fmt.Sprintf("%s has format %d, this program knows %d: a newer platelayer wrote it", e.Path, e.Theirs, e.Ours)
}

// write puts v into path as writeData does.
func write(path string, v any, sync bool) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", path, err)
	}
	return writeData(path, data, sync)
}

// writeData puts data into path at once or not at all. The file and its folder
// are synced when it must survive a crash of the machine.
func writeData(path string, data []byte, sync bool) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if !sync {
		return nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("cannot write %s for good: %w", path, err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("cannot write %s for good: %w", path, err)
	}
	return nil
}

// names lists the topologies that have a state folder or, after a reboot, only
// what their stations wrote.
func names(l Layout) ([]string, error) {
	var all []string
	for _, dir := range []string{l.Run, l.topologies()} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrPermission) {
			return nil, needRoot("see the topologies of this machine")
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot list topologies: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() && checkName(e.Name()) == nil {
				all = append(all, e.Name())
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// fingerprint tells whether two topologies are the same.
func fingerprint(t *topology.Topology) (string, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("cannot encode topology %q: %w", t.Name, err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// Busy is a topology on which another platelayer is at work.
type Busy struct{ Name string }

func (e *Busy) Error() string {
	return fmt.Sprintf("another platelayer is at work on topology %q", e.Name)
}

// lock takes the topology's lock, which lies outside the folder that down
// removes; unlock removes it where nothing of the topology is left. The kernel
// gives it back when the program ends, however it ends.
func lock(l Layout, name string) (unlock func(), err error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(l.locks(), 0o700); err != nil {
		return nil, fmt.Errorf("cannot lock topology %q: %w", name, err)
	}
	path := filepath.Join(l.locks(), name)
	for {
		f, err := openLock(path)
		if errors.Is(err, errGone) {
			continue
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &Busy{name}
		}
		if err != nil {
			return nil, fmt.Errorf("cannot lock topology %q: %w", name, err)
		}
		return func() {
			if !exists(l.run(name)) && !exists(l.lib(name)) {
				os.Remove(path)
			}
			f.Close()
		}, nil
	}
}

// lockSoon waits a while for another program that has the lock: several commands
// may be run at once.
func lockSoon(ctx context.Context, l Layout, name string) (unlock func(), err error) {
	const (
		most  = time.Minute
		pause = 20 * time.Millisecond
	)
	for until := time.Now().Add(most); ; time.Sleep(pause) {
		unlock, err = lock(l, name)
		if busy := new(Busy); !errors.As(err, &busy) || ctx.Err() != nil || time.Now().After(until) {
			return unlock, err
		}
	}
}

// errGone is a lock that its last holder has removed meanwhile.
var errGone = errors.New("the lock's file is gone")

func openLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		mine, _ := f.Stat()
		if now, _ := os.Stat(path); mine == nil || now == nil || !os.SameFile(mine, now) {
			err = errGone
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// imageOf is how ps calls what a station's root is made from.
func imageOf(s *topology.Station) string {
	switch {
	case s.Image != "":
		return s.Image
	case s.Rootfs == "":
		return "builtin"
	case s.Rootfs == "host":
		return "host"
	}
	return "folder:" + strings.TrimSuffix(s.Rootfs, "/")
}
