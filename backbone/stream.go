package backbone

import (
	"net"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// streamBuffer is what is read of a connection at a time, while it is less.
	streamBuffer = 64 << 10
	// firstBuffer is what is read before the loop does: a question, mostly.
	firstBuffer = 4 << 10
	// streamTurn is how often a connection moves something before others' turn.
	streamTurn = 16
)

// join takes two connections over and moves bytes both ways until both ways
// have ended, or the backbone does. An end is passed on, and a reset too, so
// that nobody takes a broken connection's part for the whole.
func (r *relays) join(a, b *net.TCPConn) {
	fda, erra := takeOver(a)
	fdb, errb := takeOver(b)
	if erra != nil || errb != nil {
		resetSocket(fda)
		resetSocket(fdb)
		return
	}
	done := make(chan struct{})
	r.joinSockets(nil, fda, fdb, func() { close(done) })
	<-done
}

// joinSockets is join, on the loop first if others have not less to do. It calls
// over at the end.
func (r *relays) joinSockets(first *loop, a, b int, over func()) {
	s := &stream{finish: over}
	s.lanes = [2]lane{{from: a, to: b, pipes: r.pipes}, {from: b, to: a, pipes: r.pipes}}
	l, err := r.loop(first)
	if err != nil {
		s.abort()
		return
	}
	l.pairs.Add(1)
	s.finish = func() {
		l.pairs.Add(-1)
		over()
	}
	s.loop = l
	s.start()
}

func resetSocket(fd int) {
	if fd >= 0 {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(fd)
	}
}

// stream is a pair of connections on a loop.
type stream struct {
	loop   *loop
	finish func()

	mu      sync.Mutex
	lanes   [2]lane
	numbers [2]uint64 // of the watched sockets: from of each way
	over    bool
}

// lane is one direction. Little is copied, which costs less than a pipe does;
// much is spliced.
type lane struct {
	from, to int
	rest     []byte // was read, and can't be written yet
	pipes    *pipes
	pipe     splicePipe // taken at a full buffer
	has      bool       // a pipe
	held     int        // bytes in the pipe
	ending   bool       // a read that leaves room in the buffer may have left the end
	ended    bool       // nothing more comes
	done     bool
	waits    bool // for room: the loop looks for that from the first time on
}

// readable is what a loop looks for. Room is always there at first, and would
// wake it for nothing.
const readable = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// stuck tells whether there is something that could not be written.
func (w *lane) stuck() bool { return len(w.rest) > 0 || w.held > 0 }

// start moves what a client has said already: waking the loop would take longer.
func (s *stream) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.lanes[0].step(make([]byte, firstBuffer)); err != nil {
		s.close(true)
		return
	}
	for i := range s.lanes {
		events := uint32(readable)
		if back := &s.lanes[1-i]; back.stuck() {
			events |= unix.EPOLLOUT
			back.waits = true
		}
		number, err := s.loop.watch(s.lanes[i].from, events, watch{
			ready: func(events uint32) { s.ready(i, events) },
			stop:  s.abort,
		})
		if err != nil {
			s.close(true)
			return
		}
		s.numbers[i] = number
	}
}

// ready is called for the socket that lanes[i] comes from, and the other goes to.
func (s *stream) ready(i int, events uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	const end = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if events&(unix.EPOLLIN|end) != 0 {
		s.lanes[i].ending = s.lanes[i].ending || events&end != 0
		s.move(i)
	}
	if back := &s.lanes[1-i]; events&(unix.EPOLLOUT|end) != 0 && back.stuck() {
		s.move(1 - i)
	}
}

// move moves what there is in a direction, on the loop.
func (s *stream) move(i int) {
	w := &s.lanes[i]
	if s.over || w.done {
		return
	}
	if s.loop.buffer == nil {
		s.loop.buffer = make([]byte, streamBuffer)
	}
	for range streamTurn {
		more, err := w.step(s.loop.buffer)
		switch {
		case err != nil:
			s.close(true)
			return
		case w.done:
			w.close()
			_ = unix.Shutdown(w.to, unix.SHUT_WR) // fails where all is over
			if s.lanes[1-i].done {
				s.close(false)
			}
			return
		case !more:
			if w.stuck() && !w.waits {
				w.waits = true
				if s.loop.control(unix.EPOLL_CTL_MOD, w.to, s.numbers[1-i], readable|unix.EPOLLOUT) != nil {
					s.close(true)
				}
			}
			return
		}
	}
	s.loop.again = append(s.loop.again, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.move(i)
	})
}

// step makes one move, with room for what is read. More may come without another
// event.
func (w *lane) step(buffer []byte) (more bool, err error) {
	switch {
	case len(w.rest) > 0:
		n, err := unix.Write(w.to, w.rest)
		if err != nil {
			return later(err)
		}
		if w.rest = w.rest[n:]; len(w.rest) == 0 {
			w.rest = nil
		}
		return true, nil
	case w.held > 0:
		n, err := unix.Splice(w.pipe.r, nil, w.to, nil, w.held, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != nil {
			return later(err)
		}
		w.held -= int(n)
		return true, nil
	case w.ended:
		w.done = true
		return false, nil
	case w.has:
		n, err := unix.Splice(w.from, nil, w.pipe.w, nil, pipeSize, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err == unix.EAGAIN && !w.pipes.keeps() {
			w.give()
		}
		if err != nil {
			return later(err)
		}
		w.held, w.ended = int(n), n == 0
		return true, nil
	}
	n, err := unix.Read(w.from, buffer)
	if err != nil {
		return later(err)
	}
	if w.ended = n == 0; w.ended {
		return true, nil
	}
	m, err := unix.Write(w.to, buffer[:n])
	if _, lasting := later(err); lasting != nil {
		return false, lasting
	}
	if m = max(m, 0); m < n {
		w.rest = slices.Clone(buffer[m:n])
	}
	if n == streamBuffer {
		w.pipe, err = w.pipes.take() // without one it goes on as before
		w.has = err == nil
	}
	return n == len(buffer) || m < n || w.ending, nil
}

// give gives the pipe back.
func (w *lane) give() {
	switch {
	case w.held > 0:
		w.pipes.drop(w.pipe)
	case w.has:
		w.pipes.put(w.pipe)
	}
	w.has, w.held = false, 0
}

func (w *lane) close() {
	w.rest = nil
	w.give()
}

// later tells what is no lasting error: an interrupted call is to be made again,
// another after the next event.
func later(err error) (again bool, lasting error) {
	switch err {
	case unix.EINTR:
		return true, nil
	case unix.EAGAIN:
		return false, nil
	}
	return false, err
}

// abort ends it from outside.
func (s *stream) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close(true)
}

// close ends it, broken with a reset of both sides.
func (s *stream) close(broken bool) {
	if s.over {
		return
	}
	s.over = true
	for i := range s.lanes {
		fd := s.lanes[i].from
		s.lanes[i].close()
		if broken {
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		if s.numbers[i] != 0 {
			s.loop.forget(fd, s.numbers[i])
		} else {
			unix.Close(fd)
		}
	}
	s.finish()
}
