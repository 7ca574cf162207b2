package lifecycle

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// Event is something that happened to a topology or one of its stations; its
// JSON form is stable.
type Event struct {
	Time    time.Time      `json:"time"`
	Kind    EventKind      `json:"event"`
	Station string         `json:"station,omitempty"` // "cluster/station"
	Code    *int           `json:"code,omitempty"`    // of died; null where nobody knows
	Signal  syscall.Signal `json:"signal,omitempty"`  // that ended it
	OOM     bool           `json:"oom,omitempty"`
	Killed  int            `json:"killed,omitempty"` // processes, of oom
	Pid     int            `json:"pid,omitempty"`
	Detail  string         `json:"detail,omitempty"`
}

// EventKind is what happened.
type EventKind string

// Events.
const (
	EventUp        EventKind = "up"        // the topology, or a change of it
	EventAdopted   EventKind = "adopted"   // a new keeper took over
	EventChanged   EventKind = "changed"   // an object, in place
	EventStarted   EventKind = "started"   // a station's command
	EventDied      EventKind = "died"      // by itself
	EventStopped   EventKind = "stopped"   // by a command
	EventRestarted EventKind = "restarted" // by its policy; started follows
	EventHealthy   EventKind = "healthy"
	EventUnhealthy EventKind = "unhealthy"
	EventPaused    EventKind = "paused"
	EventUnpaused  EventKind = "unpaused"
	EventOOM       EventKind = "oom" // processes of it were killed for lack of memory
	EventRemoved   EventKind = "removed"
	EventIntegrity EventKind = "integrity" // a sealed file does not match: not started
	EventFailed    EventKind = "failed"    // to start, for another reason
)

// eventLog appends events to a file of lines, bounded: the file and the one
// before it.
type eventLog struct {
	mu   sync.Mutex
	path string
}

const eventLogSize = 4 << 20 // bytes

func newEventLog(path string) *eventLog { return &eventLog{path: path} }

// add appends an event. One that can't be written (a full disk) is lost.
func (w *eventLog) add(e Event) {
	e.Time = time.Now()
	line, err := json.Marshal(e)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if info, err := os.Stat(w.path); err == nil && info.Size() > eventLogSize {
		os.Rename(w.path, w.path+".1")
	}
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	f.Write(append(line, '\n'))
}

// event records what happened and wakes who follows.
func (k *keeper) event(e Event) {
	k.events.add(e)
	k.touch()
}

// EventOptions are the choices of `events`.
type EventOptions struct {
	Stations []string // "cluster/station"; none: all, and the topology's own
	Since    time.Time
	Until    time.Time // zero is none
	Follow   bool
}

// Events hands a topology's events to emit. With Follow it goes on until the
// topology is down or ctx ends.
func Events(ctx context.Context, l Layout, name string, o EventOptions, emit func(Event) error) error {
	if _, err := readIntent(l, name); err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, id := range o.Stations {
		wanted[id] = true
	}
	take := func(line []byte) error {
		var e Event
		if json.Unmarshal(line, &e) != nil { // half a line of a killed keeper
			return nil
		}
		if e.Time.Before(o.Since) || (!o.Until.IsZero() && e.Time.After(o.Until)) || (len(wanted) > 0 && !wanted[e.Station]) {
			return nil
		}
		return emit(e)
	}
	var wake wakeups
	if o.Follow {
		// Before the past is read: nothing is missed in between.
		var err error
		if wake, err = connect(ctx, l, name); err != nil {
			return fmt.Errorf("cannot follow the events of %q: %w", name, err)
		}
	}
	if err := eachLine(l.events(name)+".1", 0, take, nil); err != nil {
		return err
	}
	var at lineReader
	drain := func() error { return at.read(l.events(name), take) }
	if wake == nil {
		return drain()
	}
	if !o.Until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, o.Until)
		defer cancel()
	}
	return follow(ctx, drain, wake, reconnect(l, name))
}

// lineReader reads the full lines that a growing file has had since the last
// time; a file that took its place is read from its start.
type lineReader struct {
	inode  uint64
	offset int64
}

func (r *lineReader) read(path string, take func([]byte) error) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read events: %w", err)
	}
	if inode := info.Sys().(*syscall.Stat_t).Ino; inode != r.inode {
		if r.inode != 0 {
			if err := eachLine(path+".1", r.offset, take, nil); err != nil {
				return err
			}
		}
		r.inode, r.offset = inode, 0
	}
	return eachLine(path, r.offset, take, &r.offset)
}

// eachLine hands the full lines behind offset to take and tells where the last
// one ended.
func eachLine(path string, offset int64, take func([]byte) error, end *int64) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read events: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(offset, 0); err != nil {
		return fmt.Errorf("cannot read events: %w", err)
	}
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil // the rest is still being written
		}
		offset += int64(len(line))
		if end != nil {
			*end = offset
		}
		if err := take(line); err != nil {
			return err
		}
	}
}
