package lifecycle

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"platelayer/authority"
	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/netplan"
	"platelayer/netplan/kernel"
	"platelayer/topology"
)

// keeper is the one background process of a running topology: it launches it,
// is the parent of its containers, keeps their logs, repairs what ends and
// changes what it is told to.
type keeper struct {
	layout Layout
	name   string
	engine *native.Engine
	logs   *logs
	events *eventLog

	operating sync.Mutex // held by the one operation under way
	naming    sync.Mutex // held while the backbone is configured
	freezing  sync.Mutex // held while stations are paused or let go on; guards their holds
	tidying   sync.Mutex // held while the keeper itself waits for operating, or has it

	mu       sync.Mutex // guards all below, and the members' fields
	intent   *Intent
	plan     *netplan.Plan
	site     site
	state    State
	members  []*member // in the order of state.Stations
	backbone router
	// files are the sockets of the published ports, and pending is what a change
	// under way makes of them.
	files     map[string]*os.File
	pending   *published
	told      []string       // the stations that it knows to be out of turn
	guard     guard          // guards itself
	retired   bool           // `down` is at work
	teller    func(Progress) // must not block
	watchers  map[*caller]struct{}
	listeners map[*caller]struct{} // to DNS questions
	// hostPaths are folders that were made for volumes of a launch or a change
	// that may still be refused.
	hostPaths []string
	written   []byte // what state.json holds; nil where nobody knows

	signing   sync.Mutex // guards the rest of this group
	authority *authority.Authority
	signsFor  *topology.Topology // whose names authority is known to take
	unsaved   bool               // authority is not on disk yet

	dirty   chan struct{} // the state has changed, or a log has grown
	renamed chan struct{} // the state has changed, and with it perhaps who answers to a name
	ended   chan struct{} // a station has ended
}

// startKeeper starts the program's copy in the store as the keeper: in a
// session and a cgroup of its own, with nothing of the caller's but one socket.
func startKeeper(l Layout, i *Intent) (net.Conn, error) {
	name := i.Topology.Name
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot make the keeper's socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "keeper"), os.NewFile(uintptr(pair[1]), "caller")
	defer ours.Close()
	defer theirs.Close()

	logFile, err := os.OpenFile(filepath.Join(l.logs(name), "keeper.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the keeper's log: %w", err)
	}
	defer logFile.Close()

	cmd := exec.Command(i.Binary, "keeper", "--root", l.Root, "--run", l.Run, "--lib", l.Lib, "--name", name)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stderr = logFile
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	group, err := native.OpenCgroup(keeperCgroup(name))
	unsupported := new(containers.Unsupported)
	switch {
	case err == nil:
		// Born there: a keeper is never outside what `down` empties.
		defer group.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	case !errors.As(err, &unsupported):
		return nil, err
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("cannot use the keeper's socket: %w", err)
	}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot start the keeper: %w", err)
	}
	go cmd.Wait() // no zombie while this program goes on
	return conn, nil
}

// RunKeeper is the keeper process. Its first caller, on descriptor 3, has it
// launch the topology or adopt it. It returns when that has failed; a running
// topology it keeps until `down` ends it.
func RunKeeper(l Layout, name string) error {
	if err := native.Protect(); err != nil {
		return err
	}
	syscall.CloseOnExec(3)
	conn, err := net.FileConn(os.NewFile(3, "caller"))
	if err != nil {
		return fmt.Errorf("cannot use the caller's socket: %w", err)
	}
	first := newCaller(conn)
	first.say(reply{API: apiVersion})
	r, gone, err := first.request()
	if err != nil {
		return err
	}
	k := &keeper{
		layout: l, name: name, events: newEventLog(l.events(name)), watchers: map[*caller]struct{}{}, listeners: map[*caller]struct{}{},
		dirty: make(chan struct{}, 1), renamed: make(chan struct{}, 1), ended: make(chan struct{}, 1),
	}
	k.logs = newLogs(k.touch)
	k.guard.waiting = map[string]int{}
	k.guard.leaks = openLeaks(l.leaks(name))
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-gone
		cancel()
	}()
	socket, err := k.open(r.Op)
	if err == nil {
		k.operating.Lock()
		k.tellTo(first.progress)
		go k.recordChanges()
		go k.mindNames()
		err = k.begin(ctx, r)
		k.tellTo(nil)
		k.operating.Unlock()
	}
	// Not asked for when it is up: the caller's end is no longer ours.
	kept := err != nil && r.Op == opLaunch && r.Keep && socket != nil
	if kept {
		err = errors.Join(err, k.become(StatusFailed))
	} else if err != nil {
		err = errors.Join(err, k.dropHostPaths())
	}
	first.finish(err)
	if err != nil && !kept {
		if r.Op == opLaunch {
			<-gone // it has undone everything, this process too, before it goes
			return errors.Join(err, k.undoAlone())
		}
		return err
	}
	return k.serve(socket)
}

func (k *keeper) begin(ctx context.Context, r *request) error {
	if r.Op == opAdopt {
		return k.adopt(ctx)
	}
	ctx, stop := withTimeout(ctx, r.Timeout)
	defer stop()
	return k.launch(ctx)
}

// withTimeout ends ctx after d, if that is not 0, with a TimeoutError.
func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, d, &TimeoutError{After: d})
}

// open reads what is to be kept and makes this process fit to keep it.
func (k *keeper) open(op string) (net.Listener, error) {
	if err := native.Harden(); err != nil {
		return nil, err
	}
	if err := native.JoinCgroup(keeperCgroup(k.name), os.Getpid()); err != nil {
		return nil, err
	}
	if err := native.LeaveSession(cgroup(k.name), os.Getpid()); err != nil {
		return nil, err
	}
	intent, err := readIntent(k.layout, k.name)
	if err != nil {
		return nil, err
	}
	k.state = State{Status: StatusStarting, Started: time.Now(), Backbone: &ContainerState{Container: backboneName(intent.Topology), State: Created}}
	if op == opAdopt {
		found, err := readState(k.layout, k.name)
		if err != nil {
			return nil, err
		}
		k.state = *found
	}
	k.state.Version, k.state.API, k.state.Boot, k.state.NetNS = formatVersion, apiVersion, native.BootID(), netNS()
	k.state.Keeper, k.state.Binary = native.Self(), intent.Binary
	if err := k.intend(intent); err != nil {
		return nil, err
	}
	if k.engine, err = native.New(native.Config{Cgroup: cgroup(k.name)}); err != nil {
		return nil, err
	}
	if err := k.flush(); err != nil {
		return nil, err
	}
	return k.listen()
}

// intend makes an intent the keeper's, with a member for each of its stations;
// those that are there already stay.
func (k *keeper) intend(i *Intent) error {
	plan, err := netplan.Build(i.Topology)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.intent, k.plan = i, plan
	k.guard.set(newPolicy(i.Topology, plan))
	k.site = site{layout: k.layout, builtin: i.Builtin, program: "/bin/platelayer", images: i.Images}
	k.reorder()
	return nil
}

func (k *keeper) kernelOptions() kernel.Options {
	return k.layout.kernelOptions(k.name)
}

// undoAlone runs when `up` was killed before it could undo a failed launch: a
// `down` outside the keeper's cgroup does it.
func (k *keeper) undoAlone() error {
	if err := native.JoinCgroup("", os.Getpid()); err != nil {
		return err
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("cannot find this program: %w", err)
	}
	if k.intent != nil {
		self = k.intent.Binary
	}
	cmd := exec.Command(self, "undo", "--run", k.layout.Run, "--lib", k.layout.Lib, "--name", k.name)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot undo the launch of %q: %w", k.name, err)
	}
	return nil
}

// tellTo makes tell the listener of the operation under way.
func (k *keeper) tellTo(tell func(Progress)) {
	k.mu.Lock()
	k.teller = tell
	k.mu.Unlock()
}

// tell holds the mutex: the listener's connection ends once it has been taken
// away, and a life may tell at any time.
func (k *keeper) tell(p Progress) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.teller != nil {
		k.teller(p)
	}
}

// become writes a new status at once; what changes later is written by
// recordChanges.
func (k *keeper) become(status string) error { return k.becomeFor(status, false) }

// becomeFor does the same for a change that is, perhaps, only of one-off
// stations.
func (k *keeper) becomeFor(status string, oneOff bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state.Status, k.state.OneOff = status, oneOff
	return k.record()
}

// flush writes the state now: who asked for a change sees it.
func (k *keeper) flush() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.record()
}

// record writes the state where it has changed; not synced, for it means
// nothing after a crash of the machine. What can't be written, to a full disk
// for example, is tried again. The keeper's mutex is held.
func (k *keeper) record() error {
	data, err := json.Marshal(&k.state)
	if err != nil {
		return fmt.Errorf("cannot encode the state of %q: %w", k.name, err)
	}
	if bytes.Equal(data, k.written) {
		return nil
	}
	k.written = nil
	if err := writeData(k.layout.state(k.name), data, false); err != nil {
		time.AfterFunc(time.Second, k.touch)
		return err
	}
	k.written = data
	return nil
}

func (k *keeper) touch() {
	select {
	case k.dirty <- struct{}{}:
	default: // already told
	}
}

// recordChanges writes the state and wakes the watchers, many changes at once:
// 500 stations that end together are a few writes, not 500.
func (k *keeper) recordChanges() {
	const gather = 20 * time.Millisecond
	for range k.dirty {
		k.mu.Lock()
		_ = k.record()
		for w := range k.watchers {
			w.say(reply{Changed: true})
		}
		k.mu.Unlock()
		select {
		case k.renamed <- struct{}{}:
		default: // already told
		}
		time.Sleep(gather)
	}
}

// listen opens the keeper's socket, before the launch: a topology that is up
// can be followed. An earlier keeper's is replaced.
func (k *keeper) listen() (net.Listener, error) {
	dir, path, err := socketPath(k.layout, k.name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot replace %s: %w", k.layout.socket(k.name), err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", k.layout.socket(k.name), err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot protect %s: %w", k.layout.socket(k.name), err)
	}
	return l, nil
}

// serve answers whoever connects, for ever.
func (k *keeper) serve(l net.Listener) error {
	for pause := time.Millisecond; ; {
		conn, err := l.Accept()
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) {
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot accept on %s: %w", k.layout.socket(k.name), err)
		}
		pause = time.Millisecond
		if !peerIsRoot(conn) {
			conn.Close()
			continue
		}
		go k.answer(newCaller(conn))
	}
}

// request reads the caller's one request. gone is closed when the caller goes
// away, or says more than it should.
func (c *caller) request() (r *request, gone <-chan struct{}, err error) {
	const most = 64 << 20 // bytes; a topology of thousands of stations is a few million
	lines := bufio.NewReader(io.LimitReader(c.conn, most))
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read a request: %w", err)
	}
	r = new(request)
	if err := json.Unmarshal(line, r); err != nil {
		return nil, nil, fmt.Errorf("cannot read a request: %w", err)
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		io.Copy(io.Discard, c.conn)
	}()
	return r, left, nil
}

// tryOperating begins an operation, unless another caller's is under way. The
// keeper's own are waited for.
func (k *keeper) tryOperating() bool {
	if k.operating.TryLock() {
		return true
	}
	k.tidying.Lock()
	defer k.tidying.Unlock()
	return k.operating.TryLock()
}

// answer does what one caller asks for.
func (k *keeper) answer(c *caller) {
	defer c.conn.Close()
	c.say(reply{API: apiVersion})
	c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	r, gone, err := c.request()
	if err != nil {
		c.finish(err)
		return
	}
	c.conn.SetReadDeadline(time.Time{})
	switch {
	case r.API != apiVersion:
		c.finish(&OtherAPI{k.name, apiVersion, r.API})
	case r.Op == opWatch:
		k.mu.Lock()
		k.watchers[c] = struct{}{}
		k.mu.Unlock()
		<-gone
		k.mu.Lock()
		delete(k.watchers, c)
		k.mu.Unlock()
		close(c.queue)
	case r.Op == opQuestions:
		k.tellQuestions(c, gone)
		close(c.queue)
	case r.Op == opHold:
		c.finish(k.hold(c, r.Stations, gone))
	case r.Op == opRetire:
		c.finish(k.retire())
	case r.Op == opDrain:
		k.drain(gone)
		c.finish(nil)
	case r.Op == opReach:
		c.finish(k.reachAgain())
	case r.Op == opEndRun:
		c.finish(k.tidy(r.Stations, func(id string) bool { return k.runsFor(id, r.OneOff) }))
	case !k.tryOperating():
		c.finish(&Busy{k.name})
	default:
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			<-gone
			cancel()
		}()
		ctx, stop := withTimeout(ctx, r.Timeout)
		if r.Op != opAdopt {
			k.unretire()
		}
		k.tellTo(c.progress)
		err := k.operate(ctx, r)
		if flushed := k.flush(); err == nil {
			err = flushed
		}
		k.tellTo(nil)
		k.operating.Unlock()
		stop()
		c.finish(err)
	}
}
