package lifecycle

import (
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

	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/netplan"
)

// keeper is the one background process of a running topology: it launches it,
// is the parent of its containers, keeps their logs and records their ends.
type keeper struct {
	layout Layout
	name   string
	intent *Intent
	plan   *netplan.Plan
	site   site
	engine *native.Engine
	caller *os.File // the `up` that started this keeper

	mu       sync.Mutex
	state    State
	launched bool
	dirty    chan struct{} // state has changed, or a log has grown
	ended    chan struct{} // closed when the first container has ended
	endOnce  sync.Once
	watchers map[net.Conn]struct{}
}

// launchInKeeper starts a keeper and follows it until the topology is up or
// has failed.
func launchInKeeper(ctx context.Context, l Layout, i *Intent, o UpOptions) error {
	conn, err := startKeeper(l, i, o.Keep)
	if err != nil {
		return err
	}
	defer conn.Close()
	return follow(ctx, conn, o.Progress)
}

// startKeeper starts the program's copy in the store as the keeper: in a
// session and a cgroup of its own, with nothing of the caller's but one socket.
func startKeeper(l Layout, i *Intent, keep bool) (*os.File, error) {
	name := i.Topology.Name
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot make the keeper's socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "keeper"), os.NewFile(uintptr(pair[1]), "up")
	defer theirs.Close()

	logFile, err := os.OpenFile(filepath.Join(l.logs(name), "keeper.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("cannot open the keeper's log: %w", err)
	}
	defer logFile.Close()

	cmd := exec.Command(i.Binary, "keeper", "--run", l.Run, "--lib", l.Lib, "--name", name)
	if keep {
		cmd.Args = append(cmd.Args, "--keep")
	}
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
		ours.Close()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("cannot start the keeper: %w", err)
	}
	go cmd.Wait() // no zombie while this program goes on
	return ours, nil
}

// RunKeeper is the keeper process. It returns when its topology has failed; a
// running one it keeps until `down` ends it.
func RunKeeper(l Layout, name string, keep bool) error {
	if err := native.Protect(); err != nil {
		return err
	}
	syscall.CloseOnExec(3)
	k := &keeper{
		layout: l, name: name, caller: os.NewFile(3, "up"),
		dirty: make(chan struct{}, 1), ended: make(chan struct{}), watchers: map[net.Conn]struct{}{},
	}
	if err := k.open(); err != nil {
		k.say(report{Failure: encodeFailure(err)})
		return err
	}
	socket, err := k.listen()
	if err != nil {
		k.say(report{Failure: encodeFailure(err)})
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	callerGone := make(chan struct{})
	go func() {
		io.Copy(io.Discard, k.caller) // `up` says nothing; it only goes away
		close(callerGone)
		k.mu.Lock()
		defer k.mu.Unlock()
		if !k.launched {
			cancel()
		}
	}()
	go k.recordChanges()

	err = k.launch(ctx)
	if err != nil && keep {
		err = errors.Join(err, k.become(StatusFailed))
	}
	if err == nil {
		k.say(report{Up: true})
	} else {
		k.say(report{Failure: encodeFailure(err)})
		if !keep {
			<-callerGone // it has undone everything, this process too, before it goes
			return errors.Join(err, k.undoAlone())
		}
	}
	return k.serve(socket)
}

// open reads what is to be made and makes this process fit to make it.
func (k *keeper) open() (err error) {
	if err := native.Harden(); err != nil {
		return err
	}
	if err := native.JoinCgroup(keeperCgroup(k.name), os.Getpid()); err != nil {
		return err
	}
	if k.intent, err = readIntent(k.layout, k.name); err != nil {
		return err
	}
	if k.plan, err = netplan.Build(k.intent.Topology); err != nil {
		return err
	}
	k.site = site{layout: k.layout, builtin: k.intent.Builtin, program: "/bin/platelayer"}
	t := k.intent.Topology
	k.state = State{
		Version: formatVersion, Status: StatusStarting, Keeper: native.Self(), Started: time.Now(),
		Backbone: ContainerState{Container: backboneName(t), State: Created},
	}
	for _, s := range stations(t) {
		k.state.Stations = append(k.state.Stations, ContainerState{Container: t.ContainerName(s), State: Created})
	}
	if err := write(k.layout.state(k.name), &k.state, false); err != nil {
		return err
	}
	k.engine, err = native.New(native.Config{Cgroup: cgroup(k.name)})
	return err
}

// undoAlone runs when `up` was killed before it could undo a failed launch: a
// `down` outside the keeper's cgroup does it.
func (k *keeper) undoAlone() error {
	if err := native.JoinCgroup("", os.Getpid()); err != nil {
		return err
	}
	cmd := exec.Command(k.intent.Binary, "down", "--run", k.layout.Run, "--lib", k.layout.Lib, "--name", k.name)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot undo the launch of %q: %w", k.name, err)
	}
	return nil
}

func (k *keeper) say(r report) {
	line, err := json.Marshal(r)
	if err == nil {
		k.caller.Write(append(line, '\n'))
	}
}

func (k *keeper) report(p Progress) { k.say(report{Progress: &p}) }

// become writes the state that a launch ends in; what changes later is written
// by recordChanges.
func (k *keeper) become(status string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state.Status = status
	k.launched = true
	return write(k.layout.state(k.name), &k.state, true)
}

// update changes the state; recordChanges writes it soon after.
func (k *keeper) update(change func(*State)) {
	k.mu.Lock()
	change(&k.state)
	k.mu.Unlock()
	k.touch()
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
	var last []byte
	for range k.dirty {
		k.mu.Lock()
		data, err := json.Marshal(&k.state)
		launched := k.launched
		if err == nil && launched && string(data) != string(last) {
			if err := write(k.layout.state(k.name), &k.state, false); err == nil {
				last = data
			}
		}
		for w := range k.watchers {
			w.SetWriteDeadline(time.Now().Add(gather))
			if _, err := w.Write([]byte("\n")); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				w.Close()
				delete(k.watchers, w)
			}
		}
		k.mu.Unlock()
		time.Sleep(gather)
	}
}

// listen opens the keeper's socket, before the launch: a topology that is up
// can be followed.
func (k *keeper) listen() (net.Listener, error) {
	dir, path, err := socketPath(k.layout, k.name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", k.layout.socket(k.name), err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, fmt.Errorf("cannot protect %s: %w", k.layout.socket(k.name), err)
	}
	return l, nil
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

// serve keeps whoever connects as a watcher: it is sent a newline after each
// change of the state or the logs.
func (k *keeper) serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return fmt.Errorf("cannot accept on %s: %w", k.layout.socket(k.name), err)
		}
		k.mu.Lock()
		k.watchers[conn] = struct{}{}
		k.mu.Unlock()
		go func() { // a watcher says nothing; it only goes away
			io.Copy(io.Discard, conn)
			k.mu.Lock()
			delete(k.watchers, conn)
			k.mu.Unlock()
			conn.Close()
		}()
	}
}
