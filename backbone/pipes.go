package backbone

import (
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is what a pipe is asked to hold (F_SETPIPE_SZ, fcntl(2)); the
	// kernel gives less where the user has many (pipe(7)).
	pipeSize = 1 << 20
	// fewPipes are kept by directions that wait for bytes; beyond, one is given
	// back for the wait, and maxIdlePipes are kept for others.
	fewPipes     = 256
	maxIdlePipes = 64
)

// pipes are those through which bytes are spliced. Of many connections each
// holds one only while bytes of it are in there: idle ones cost no more than
// their sockets.
type pipes struct {
	few int

	mu   sync.Mutex
	idle []splicePipe
	made int // with those that are idle
}

type splicePipe struct{ r, w int }

func newPipes() *pipes { return &pipes{few: fewPipes} }

func (p *pipes) take() (splicePipe, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		taken := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return taken, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return splicePipe{}, err
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	p.made++
	return splicePipe{fds[0], fds[1]}, nil
}

// put takes an empty pipe back.
func (p *pipes) put(one splicePipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) < maxIdlePipes {
		p.idle = append(p.idle, one)
		return
	}
	p.made--
	one.close()
}

// drop closes a pipe with what is in it.
func (p *pipes) drop(one splicePipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made--
	one.close()
}

// keeps tells whether a direction may keep its pipe while it waits.
func (p *pipes) keeps() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made <= p.few
}

// close closes those that are idle.
func (p *pipes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.idle {
		one.close()
	}
	p.made -= len(p.idle)
	p.idle = nil
}

func (p splicePipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}
