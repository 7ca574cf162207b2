package backbone

import (
	"context"
	"errors"
	"maps"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// relays move bytes and datagrams between sockets, each pair of them on one of
// a few threads that wait in the kernel (epoll(7)). Through the runtime's poller
// a message would pass its scheduler twice on each way, which takes longer than
// all that there is to do for it.
type relays struct {
	mu    sync.Mutex
	loops []*loop // made when they are needed

	ctx   context.Context
	tasks *sync.WaitGroup
	pipes *pipes
}

func newRelays(ctx context.Context, tasks *sync.WaitGroup) *relays {
	return &relays{ctx: ctx, tasks: tasks, pipes: newPipes()}
}

// loop is one for another pair: first, unless others have less to do.
func (r *relays) loop(first *loop) (*loop, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	best := first
	for _, l := range r.loops {
		if best == nil || l.pairs.Load() < best.pairs.Load() {
			best = l
		}
	}
	if best != nil && (best.pairs.Load() == 0 || len(r.loops) == runtime.GOMAXPROCS(0)) {
		return best, nil
	}
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	r.loops = append(r.loops, l)
	r.tasks.Go(l.run)
	context.AfterFunc(r.ctx, func() { l.do(func() { l.over = true }) })
	return l, nil
}

// loop is one thread. What it calls, and only that, uses its fields but for
// those under mu, and none of it waits for long.
type loop struct {
	epoll, bell int
	gone        chan struct{} // closed at the end
	pairs       atomic.Int32
	again       []func()
	over        bool
	buffer      []byte // of a connection's bytes; made when it is needed
	volley      *volley

	mu      sync.Mutex
	watched map[uint64]watch
	last    uint64
	calls   []func()
	ended   bool
}

// watch is what happens to a socket: ready with the events of epoll, and stop
// when the loop ends.
type watch struct {
	ready func(events uint32)
	stop  func()
}

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(err, unix.Close(epoll))
	}
	l := &loop{epoll: epoll, bell: bell, gone: make(chan struct{}), watched: map[uint64]watch{}}
	if _, err := l.watch(bell, unix.EPOLLIN, watch{ready: l.rung}); err != nil {
		return nil, errors.Join(err, unix.Close(epoll), unix.Close(bell))
	}
	return l, nil
}

// do has the loop call f, unless it ends.
func (l *loop) do(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	if l.calls = append(l.calls, f); len(l.calls) == 1 {
		one := [8]byte{1} // a number, in either order of bytes not 0
		_, _ = unix.Write(l.bell, one[:])
	}
}

// call is do, and waits for it.
func (l *loop) call(f func()) {
	done := make(chan struct{})
	l.do(func() {
		f()
		close(done)
	})
	select {
	case <-done:
	case <-l.gone:
	}
}

func (l *loop) rung(uint32) {
	var count [8]byte
	_, _ = unix.Read(l.bell, count[:])
	l.mu.Lock()
	calls := l.calls
	l.calls = nil
	l.mu.Unlock()
	for _, f := range calls {
		f()
	}
}

var errEnded = errors.New("the backbone ends")

// watch begins to look at a socket, from wherever it is called. The number is
// for forget.
func (l *loop) watch(fd int, events uint32, w watch) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return 0, errEnded
	}
	l.last++ // a socket's own number may come again at once
	if err := l.control(unix.EPOLL_CTL_ADD, fd, l.last, events); err != nil {
		return 0, err
	}
	l.watched[l.last] = w
	return l.last, nil
}

// control looks for other events.
func (l *loop) control(op, fd int, number uint64, events uint32) error {
	return unix.EpollCtl(l.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(number), Pad: int32(number >> 32)})
}

// forget looks no more, and closes.
func (l *loop) forget(fd int, number uint64) {
	l.release(fd, number)
	unix.Close(fd)
}

// release looks no more.
func (l *loop) release(fd int, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.watched, number)
	_ = l.control(unix.EPOLL_CTL_DEL, fd, 0, 0) // another duplicate may be open
}

func (l *loop) run() {
	// Without passing the scheduler it answers sooner, and at less cost.
	runtime.LockOSThread()
	events := make([]unix.EpollEvent, 64)
	for !l.over {
		wait := -1
		if len(l.again) > 0 {
			wait = 0
		}
		n, err := unix.EpollWait(l.epoll, events, wait)
		if err != nil && err != unix.EINTR {
			break
		}
		for _, e := range events[:max(n, 0)] {
			l.mu.Lock()
			w, ok := l.watched[uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32]
			l.mu.Unlock()
			if ok {
				w.ready(e.Events)
			}
		}
		again := l.again
		l.again = nil
		for _, f := range again {
			f()
		}
	}
	l.mu.Lock()
	l.ended = true
	watched := maps.Clone(l.watched)
	calls := l.calls
	l.mu.Unlock()
	for _, f := range calls { // which find that it is over
		f()
	}
	for _, w := range watched {
		if w.stop != nil {
			w.stop()
		}
	}
	unix.Close(l.bell)
	unix.Close(l.epoll)
	close(l.gone)
}

// takeOver is a socket's descriptor without the runtime's poller, which would
// wake for all that comes.
func takeOver(c interface {
	syscall.Conn
	Close() error
}) (int, error) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(cerr, err)
}

// silence has the loop call over once no time is left. Who is over sooner stops
// the timer, so that none is kept for what there is no more.
func (l *loop) silence(left func() time.Duration, over func()) *time.Timer {
	var timer *time.Timer
	look := func() {
		if more := left(); more > 0 {
			timer.Reset(more)
		} else {
			over()
		}
	}
	timer = time.AfterFunc(math.MaxInt64, func() { l.do(look) })
	timer.Reset(left())
	return timer
}
