package lifecycle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"platelayer/topology"
)

// logs collects the output of all of a keeper's containers. An idle container
// costs two descriptors and no goroutine: one epoll(7) watches all streams, and
// a few workers take turns at those that have something.
type logs struct {
	told func() // after each write; must not block

	mu      sync.Mutex
	poll    *poller // nil while nothing is collected
	streams map[int32]*logStream
	files   map[string]*logFile
	lastID  int32
}

func newLogs(told func()) *logs {
	return &logs{told: told, streams: map[int32]*logStream{}, files: map[string]*logFile{}}
}

// collection is the output of one run of a container.
type collection struct {
	drained <-chan struct{} // closed when nobody can write any more and all is in the log

	logs    *logs
	file    *logFile
	done    chan struct{}
	open    int // streams; under logs.mu
	streams []*logStream
	writers []int // descriptors; under logs.mu
	slaves  []int // of terminals, likewise
}

// logStream is one FIFO or terminal that is read.
type logStream struct {
	name       string        // stdout or stderr
	rest       time.Duration // after each turn: what is written meanwhile is read at once
	id         int32
	epoll      int
	collection *collection

	mu sync.Mutex
	fd int // -1 once closed
}

// collect appends what comes through the FIFOs stdout and stderr to the log at
// path until nobody can write into them any more. Until release is called that
// can't happen, though the container has not started. Collections with the same
// path share the file.
func (l *logs) collect(path string, limits topology.Logging, stdout, stderr string) (*collection, error) {
	c := &collection{logs: l, done: make(chan struct{})}
	c.drained = c.done
	for _, s := range []*logStream{{name: "stdout"}, {name: "stderr"}} {
		fifo := stdout
		if s.name == "stderr" {
			fifo = stderr
		}
		s.collection = c
		if err := s.open(fifo); err != nil {
			c.release()
			for _, s := range c.streams {
				syscall.Close(s.fd)
			}
			return nil, fmt.Errorf("cannot collect output into %s: %w", path, err)
		}
	}
	c.file = l.use(path)
	c.file.setLimits(limits)
	if err := l.add(c); err != nil {
		c.abandon()
		return nil, fmt.Errorf("cannot collect output into %s: %w", path, err)
	}
	return c, nil
}

func (l *logs) use(path string) *logFile {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[path]
	if f == nil {
		f = &logFile{path: path}
		l.files[path] = f
	}
	f.users++
	return f
}

func (l *logs) drop(f *logFile) {
	l.mu.Lock()
	f.users--
	last := f.users == 0
	l.mu.Unlock()
	if !last || !f.finish() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.users == 0 {
		delete(l.files, f.path)
	}
}

// add has the workers read the collection's streams.
func (l *logs) add(c *collection) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.open = len(c.streams)
	if l.poll == nil {
		p, err := newPoller()
		if err != nil {
			return err
		}
		l.poll = p
		for range pollWorkers {
			go l.work(p)
		}
	}
	for _, s := range c.streams {
		if err := l.watch(s); err != nil {
			return err
		}
	}
	return nil
}

// watch has the workers read a stream. The logs' mutex is held.
func (l *logs) watch(s *logStream) error {
	l.lastID++
	s.id, s.epoll = l.lastID, l.poll.fd
	l.streams[s.id] = s
	return s.arm(syscall.EPOLL_CTL_ADD)
}

// open opens the FIFO for reading, and for writing too so that it has no end
// before the container has started.
func (s *logStream) open(fifo string) error {
	const flags = syscall.O_NONBLOCK | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	fd, err := syscall.Open(fifo, syscall.O_RDONLY|flags, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: fifo, Err: err}
	}
	s.fd = fd
	s.collection.streams = append(s.collection.streams, s)
	w, err := syscall.Open(fifo, syscall.O_WRONLY|flags, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: fifo, Err: err}
	}
	s.collection.writers = append(s.collection.writers, w)
	return nil
}

// release lets the FIFOs have their end: the container has started, or never
// will.
func (c *collection) release() {
	c.logs.mu.Lock()
	defer c.logs.mu.Unlock()
	for _, fd := range c.writers {
		syscall.Close(fd)
	}
	c.writers = nil
}

// setLimits changes how much the log may hold, from the next record on.
func (c *collection) setLimits(limits topology.Logging) { c.file.setLimits(limits) }

// hangUp lets terminals have their end: the container has ended. Until then its
// processes may close theirs and open it again.
func (c *collection) hangUp() {
	c.logs.mu.Lock()
	defer c.logs.mu.Unlock()
	for _, fd := range c.slaves {
		syscall.Close(fd)
	}
	c.slaves = nil
}

// abandon stops reading though somebody may still write: a process outside the
// container that holds its output open.
func (c *collection) abandon() {
	c.release()
	c.hangUp()
	c.logs.mu.Lock()
	streams := slices.Clone(c.streams)
	c.logs.mu.Unlock()
	for _, s := range streams {
		s.mu.Lock()
		if s.fd >= 0 {
			s.end()
		}
		s.mu.Unlock()
	}
}

const (
	pollWorkers = 4        // more than one: a slow disk or a flood must not hold up the others
	turnSize    = 64 << 10 // bytes; what a FIFO holds (pipe(7))

	// A terminal hands on each write by itself, often a line or less, and wakes
	// its reader for it. So it is read at most every 2 ms: some MB/s.
	terminalTurn = 16 << 10 // bytes
	terminalRest = 2 * time.Millisecond
)

// poller is an epoll(7) descriptor, itself waited for through Go's own poller
// so that it holds no thread.
type poller struct {
	file *os.File
	fd   int
	raw  syscall.RawConn
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, err
	}
	return p, nil
}

// next waits for a stream to have something and gives its id; closed ends it.
func (p *poller) next() (id int32, closed bool) {
	var events [1]syscall.EpollEvent
	for {
		n := 0
		err := p.raw.Read(func(fd uintptr) bool {
			n, _ = syscall.EpollWait(int(fd), events[:], 0)
			return n != 0
		})
		if err != nil {
			return 0, true
		}
		if n == 1 {
			return events[0].Fd, false
		}
	}
}

// arm asks for one wake-up: the kernel then forgets the stream until it is
// armed again, and queues it behind the others that are ready.
func (s *logStream) arm(op int) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLONESHOT, Fd: s.id}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(s.epoll, op, s.fd, &event))
}

// work serves one stream after the other, each for one read.
func (l *logs) work(p *poller) {
	in, out := make([]byte, turnSize), make([]byte, 0, turnSize+lineSize)
	for {
		id, closed := p.next()
		if closed {
			return
		}
		l.mu.Lock()
		s := l.streams[id]
		l.mu.Unlock()
		if s != nil {
			s.turn(in, out)
		}
	}
}

func (s *logStream) turn(in, out []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return
	}
	n, err := s.read(in)
	if n > 0 {
		s.collection.file.append(s.name, in[:n], out)
		s.collection.logs.told()
	}
	switch {
	case err != nil:
	case s.rest > 0:
		time.AfterFunc(s.rest, s.again)
	default:
		err = s.arm(syscall.EPOLL_CTL_MOD)
	}
	if err != nil {
		s.end()
	}
}

// read reads what there is: a FIFO gives it all at once, a terminal in pieces.
// An error is the end.
func (s *logStream) read(in []byte) (n int, err error) {
	if s.rest > 0 {
		in = in[:terminalTurn]
	}
	for n < len(in) {
		got, err := syscall.Read(s.fd, in[n:])
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR:
			return n, nil
		case err != nil:
			return n, err
		case got == 0:
			return n, io.EOF
		}
		if n += got; s.rest == 0 {
			break
		}
	}
	return n, nil
}

// again arms a stream that has rested.
func (s *logStream) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 && s.arm(syscall.EPOLL_CTL_MOD) != nil {
		s.end()
	}
}

// end closes the stream; the caller holds its lock.
func (s *logStream) end() {
	syscall.Close(s.fd)
	s.fd = -1
	c, l := s.collection, s.collection.logs
	l.mu.Lock()
	delete(l.streams, s.id)
	l.rest()
	c.open--
	last := c.open == 0
	l.mu.Unlock()
	if last {
		l.drop(c.file)
		close(c.done)
	}
}

// rest ends the workers when there is nothing to collect.
func (l *logs) rest() {
	if len(l.streams) == 0 && l.poll != nil {
		l.poll.file.Close()
		l.poll = nil
	}
}

func logPath(l Layout, name, container string) string {
	return filepath.Join(l.logs(name), container+".log")
}

// removeLogs removes a container's log and the older ones.
func removeLogs(path string) error {
	older, err := filepath.Glob(path + ".*")
	if err != nil {
		return fmt.Errorf("cannot find logs: %w", err)
	}
	for _, file := range append(older, path) {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove a log: %w", err)
		}
	}
	return nil
}
