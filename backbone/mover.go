package backbone

import (
	"errors"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is what a pipe is asked to hold; the kernel gives less where the
	// user has many (pipe(7)).
	pipeSize = 1 << 20
	// fewPipes are kept by directions that wait for bytes; beyond, one is given
	// back for the wait, and maxIdlePipes are kept for others.
	fewPipes     = 256
	maxIdlePipes = 64
)

// mover has the kernel move bytes between connections (splice(2)). Of many
// connections each holds a pipe only while bytes of it are in there: idle ones
// cost no more than their sockets.
type mover struct {
	few int

	mu    sync.Mutex
	idle  []splicePipe
	pipes int // with those that are not idle
	// buffers are for when there are no descriptors left for pipes.
	buffers sync.Pool
}

type splicePipe struct{ r, w int }

func newMover() *mover {
	return &mover{few: fewPipes, buffers: sync.Pool{New: func() any { return new([32 << 10]byte) }}}
}

func (m *mover) take() (splicePipe, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.idle); n > 0 {
		p := m.idle[n-1]
		m.idle = m.idle[:n-1]
		return p, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return splicePipe{}, err
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	m.pipes++
	return splicePipe{fds[0], fds[1]}, nil
}

// put takes an empty pipe back.
func (m *mover) put(p splicePipe) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.idle) < maxIdlePipes {
		m.idle = append(m.idle, p)
		return
	}
	m.pipes--
	p.close()
}

// drop closes a pipe with what is in it.
func (m *mover) drop(p splicePipe) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pipes--
	p.close()
}

// keeps tells whether a direction may keep its pipe while it waits.
func (m *mover) keeps() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pipes <= m.few
}

func (p splicePipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

// close is called when nothing moves any more.
func (m *mover) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.idle {
		p.close()
	}
	m.pipes -= len(m.idle)
	m.idle = nil
}

// join moves bytes both ways until both are done, and closes both. The end of
// one side, or its reset, is the other's: nobody takes a broken connection's
// part for the whole.
func (m *mover) join(a, b *net.TCPConn) {
	var both sync.WaitGroup
	pump := func(to, from *net.TCPConn) {
		if m.move(to, from) != nil {
			reset(a)
			reset(b)
			return
		}
		_ = to.CloseWrite() // fails where all is over
	}
	both.Go(func() { pump(a, b) })
	pump(b, a)
	both.Wait()
	a.Close()
	b.Close()
}

// move moves what comes from one connection to the other until its end (nil), or
// an error of either.
func (m *mover) move(to, from *net.TCPConn) error {
	in, err := from.SyscallConn()
	if err != nil {
		return err
	}
	out, err := to.SyscallConn()
	if err != nil {
		return err
	}
	d := direction{mover: m, in: in, out: out}
	defer d.give()
	for {
		if more, err := d.some(); err != nil || !more {
			return err
		}
	}
}

// direction is one of a connection's two.
type direction struct {
	*mover
	in, out syscall.RawConn
	pipe    splicePipe
	has     bool // a pipe, which is empty
}

func (d *direction) give() {
	if d.has {
		d.put(d.pipe)
		d.has = false
	}
}

// some moves what there is, when something is, and tells whether there may be
// more.
func (d *direction) some() (more bool, err error) {
	var n int
	var failed error
	buffered := false
	err = d.in.Read(func(fd uintptr) bool {
		if !d.has {
			if d.pipe, failed = d.take(); failed != nil {
				buffered = true
				return true
			}
			d.has = true
		}
		n, failed = again(func() (int, error) {
			n, err := unix.Splice(int(fd), nil, d.pipe.w, nil, pipeSize, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			return int(n), err
		})
		if failed == unix.EAGAIN && !d.keeps() {
			d.give()
		}
		return failed != unix.EAGAIN
	})
	if err != nil {
		return false, err
	}
	if buffered {
		return d.someBuffered()
	}
	if failed != nil {
		return false, failed
	}
	for left := n; left > 0; {
		err := write(d.out, func(fd int) (int, error) {
			n, err := unix.Splice(d.pipe.r, nil, fd, nil, left, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			left -= max(int(n), 0)
			return int(n), err
		})
		if err != nil {
			d.drop(d.pipe)
			d.has = false
			return false, err
		}
	}
	return n > 0, nil
}

// someBuffered is some without a pipe.
func (d *direction) someBuffered() (more bool, err error) {
	held := d.buffers.Get().(*[32 << 10]byte)
	defer d.buffers.Put(held)
	var n int
	var failed error
	err = d.in.Read(func(fd uintptr) bool {
		n, failed = again(func() (int, error) { return unix.Read(int(fd), held[:]) })
		return failed != unix.EAGAIN
	})
	if err := errors.Join(err, failed); err != nil {
		return false, err
	}
	for left := held[:n]; len(left) > 0; {
		err := write(d.out, func(fd int) (int, error) {
			n, err := unix.Write(fd, left)
			left = left[max(n, 0):]
			return n, err
		})
		if err != nil {
			return false, err
		}
	}
	return n > 0, nil
}

// write waits until some bytes can go.
func write(out syscall.RawConn, once func(fd int) (int, error)) error {
	var failed error
	err := out.Write(func(fd uintptr) bool {
		_, failed = again(func() (int, error) { return once(int(fd)) })
		return failed != unix.EAGAIN
	})
	return errors.Join(err, failed)
}

// again repeats a call that a signal interrupts.
func again(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}
