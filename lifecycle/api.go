package lifecycle

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"platelayer/containers/native"
	"platelayer/topology"
)

// apiVersion is the version of the keeper's API, described in
// docs/keeper-api.md: lines of JSON over the unix socket in its state folder.
const apiVersion = 1

// Operations of the API.
const (
	opWatch     = "watch"   // tell each change of the state and the logs
	opLaunch    = "launch"  // the keeper's first: make everything
	opAdopt     = "adopt"   // the keeper's first: take over what runs
	opChange    = "change"  // become what a new intent says
	opMend      = "mend"    // bring the wiring back to what the plan says
	opStart     = "start"   // stations that do not run
	opStop      = "stop"    // stations, and keep them stopped
	opRestart   = "restart" // stations, with their restart dependents
	opPause     = "pause"
	opUnpause   = "unpause"
	opHold      = "hold"      // pause stations that run, until the caller goes
	opRemove    = "remove"    // what stopped stations wrote, and their logs
	opRun       = "run"       // make a station for one command
	opEndRun    = "end-run"   // remove such stations
	opRetire    = "retire"    // restart nothing from now on: `down` is at work
	opQuestions = "questions" // tell each DNS question that is answered
	opReach     = "reach"     // make the machine's routes again: another topology has left some
	opDrain     = "drain"     // wait until all stations' last output is in their logs
)

// request is the one line that a client sends.
type request struct {
	API      int           `json:"api"`
	Op       string        `json:"op"`
	Stations []string      `json:"stations,omitempty"` // "cluster/station"; none is all
	Intent   *Intent       `json:"intent,omitempty"`
	Recreate bool          `json:"recreate,omitempty"`
	Only     []string      `json:"only"`              // of change: touch these and what they need; null is all
	Keep     bool          `json:"keep,omitempty"`    // leave what a failed launch made
	Timeout  time.Duration `json:"timeout,omitempty"` // nanoseconds; 0 is none

	// Of run: what to make, and for whom.
	Station *topology.Station `json:"station,omitempty"`
	OneOff  *OneOff           `json:"one_off,omitempty"`

	oneOff bool // a change for one-off stations: nothing else is waited for
}

// reply is one of the lines that the keeper sends: the first greets, the last
// has Done or Failure.
type reply struct {
	API      int       `json:"api,omitempty"` // in the greeting
	Changed  bool      `json:"changed,omitempty"`
	Progress *Progress `json:"progress,omitempty"`
	Question *Question `json:"question,omitempty"`
	Done     bool      `json:"done,omitempty"`
	Failure  *failure  `json:"failure,omitempty"`
}

// OtherAPI is a keeper of another version of the program, with which this one
// can't talk.
type OtherAPI struct {
	Name         string
	Theirs, Ours int
}

func (e *OtherAPI) Error() string {
	return fmt.Sprintf("the keeper of topology %q speaks version %d of its API, this program version %d", e.Name, e.Theirs, e.Ours)
}

// socketPath reaches the socket through its open folder: the path of a unix
// socket holds 107 bytes (unix(7)), that of a state folder any number.
func socketPath(l Layout, name string) (dir *os.File, path string, err error) {
	socket := l.socket(name)
	dir, err = os.Open(filepath.Dir(socket))
	if err != nil {
		return nil, "", fmt.Errorf("cannot reach the keeper of %q: %w", name, err)
	}
	return dir, fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket)), nil
}

// dialKeeper connects to a topology's keeper.
func dialKeeper(l Layout, name string) (net.Conn, error) {
	dir, path, err := socketPath(l, name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the keeper of %q: %w", name, err)
	}
	return conn, nil
}

// ask has the keeper do one thing and returns when it is done. Progress goes
// to progress, which may be nil.
func ask(ctx context.Context, l Layout, name string, r request, progress func(Progress)) error {
	conn, err := dialKeeper(l, name)
	if err != nil {
		return err
	}
	defer conn.Close()
	return converse(ctx, conn, name, r, progress)
}

// converse sends the request and follows the keeper until it is done.
func converse(ctx context.Context, conn net.Conn, name string, r request, progress func(Progress)) error {
	return hear(ctx, conn, name, r, func(said *reply) (bool, error) {
		if said.Progress != nil && progress != nil {
			progress(*said.Progress)
		}
		return said.Done, nil
	})
}

// hear sends the request and hands on what the keeper replies, until heard says
// that this is all.
func hear(ctx context.Context, conn net.Conn, name string, r request, heard func(*reply) (all bool, err error)) error {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	defer stop()
	r.API = apiVersion
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("cannot encode a request: %w", err)
	}
	// A keeper that has ended says why in what can still be read.
	_, writeErr := conn.Write(append(line, '\n'))
	err = hearOut(ctx, conn, name, heard)
	if ended := new(KeeperEnded); errors.As(err, &ended) {
		ended.Err = writeErr
	}
	return err
}

// hearOut hands on what the keeper says from now on.
func hearOut(ctx context.Context, conn net.Conn, name string, heard func(*reply) (all bool, err error)) error {
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadBytes('\n')
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
			return &KeeperEnded{Name: name}
		case err != nil:
			return fmt.Errorf("cannot hear the keeper of %q: %w", name, err)
		}
		var said reply
		if err := json.Unmarshal(line, &said); err != nil {
			return fmt.Errorf("cannot understand the keeper of %q: %w", name, err)
		}
		switch {
		case said.Failure != nil:
			return said.Failure.decode()
		case said.API != 0 && said.API != apiVersion:
			return &OtherAPI{name, said.API, apiVersion}
		}
		if all, err := heard(&said); all || err != nil {
			return err
		}
	}
}

// KeeperEnded is a keeper that went away in the middle of a request.
type KeeperEnded struct {
	Name string
	Err  error
}

func (e *KeeperEnded) Error() string {
	return fmt.Sprintf("the keeper of topology %q ended before it was done", e.Name)
}

func (e *KeeperEnded) Unwrap() error { return e.Err }

// watcher is told of each change of a topology's state and logs.
type watcher struct {
	conn  net.Conn
	lines *bufio.Reader
}

// watch connects to the keeper. What has changed before is not told.
func watch(l Layout, name string) (*watcher, error) {
	conn, err := dialKeeper(l, name)
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(request{API: apiVersion, Op: opWatch})
	if err == nil {
		_, err = conn.Write(append(line, '\n'))
	}
	w := &watcher{conn, bufio.NewReader(conn)}
	if err == nil {
		err = w.Wait() // the greeting
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot watch topology %q: %w", name, err)
	}
	return w, nil
}

// Wait blocks until something has changed; an error says that the keeper has
// gone. Close ends it.
func (w *watcher) Wait() error {
	if _, err := w.lines.ReadSlice('\n'); err != nil {
		return err
	}
	for w.lines.Buffered() > 0 { // many changes are one
		if _, err := w.lines.ReadSlice('\n'); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the watch.
func (w *watcher) Close() error { return w.conn.Close() }

// caller is the keeper's side of a connection. Nothing that a client does, or
// leaves undone, blocks the keeper.
type caller struct {
	conn   net.Conn
	queue  chan reply
	closed chan struct{} // after the last reply has been sent
}

func newCaller(conn net.Conn) *caller {
	c := &caller{conn: conn, queue: make(chan reply, 4096), closed: make(chan struct{})}
	go func() {
		defer close(c.closed)
		out := bufio.NewWriter(conn)
		for r := range c.queue {
			line, err := json.Marshal(r)
			if err != nil {
				continue
			}
			conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			_, err = out.Write(append(line, '\n'))
			if err == nil && len(c.queue) == 0 { // those of 500 stations go in a few pieces
				err = out.Flush()
			}
			if err != nil {
				conn.Close() // and the rest of the queue goes nowhere
			}
		}
	}()
	return c
}

// say queues a reply; progress that does not fit is dropped.
func (c *caller) say(r reply) {
	select {
	case c.queue <- r:
	default:
	}
}

func (c *caller) progress(p Progress) { c.say(reply{Progress: &p}) }

// finish sends the last reply and waits until it is out.
func (c *caller) finish(err error) {
	last := reply{Done: true}
	if err != nil {
		last = reply{Failure: encodeFailure(err)}
	}
	c.queue <- last
	close(c.queue)
	<-c.closed
}

// peerIsRoot tells whether the other end is root's: the socket's mode says so
// already, but modes can be changed.
func peerIsRoot(conn net.Conn) bool {
	raw, ok := conn.(syscall.Conn)
	return ok && native.PeerIsRoot(raw)
}
