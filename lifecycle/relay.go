package lifecycle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"platelayer/containers"
)

// relay moves a command's input and output through pipes of its own. The
// caller's files are never handed over: a station could open them anew through
// /proc, for writing, and change their modes.
type relay struct {
	ours, theirs [3]*os.File
	caller       [3]*os.File
	ended        atomic.Bool
	copied       sync.WaitGroup
}

func newRelay(stdin, stdout, stderr *os.File) (*relay, error) {
	r := &relay{caller: [3]*os.File{stdin, stdout, stderr}}
	for i := range r.ours {
		read, write, err := os.Pipe()
		if err != nil {
			r.close()
			return nil, fmt.Errorf("cannot make a pipe: %w", err)
		}
		if r.ours[i], r.theirs[i] = read, write; i == 0 {
			r.ours[i], r.theirs[i] = write, read
		}
	}
	return r, nil
}

func (r *relay) close() {
	for i := range r.ours {
		if r.ours[i] != nil {
			r.ours[i].Close()
			r.theirs[i].Close()
		}
	}
}

// start begins to copy for a command that has started, or gives up.
func (r *relay) start(p containers.Process, err error) (containers.Process, error) {
	if err != nil {
		r.close()
		return nil, err
	}
	for _, f := range r.theirs {
		f.Close()
	}
	go func() { // may outlive the command: nothing interrupts a read of the caller's input
		io.Copy(r.ours[0], r.caller[0])
		r.ours[0].Close()
	}()
	for i := 1; i <= 2; i++ {
		r.copied.Go(func() { r.copyOut(r.caller[i], r.ours[i]) })
	}
	return &relayed{Process: p, relay: r}, nil
}

// copyOut copies until nobody holds the other end, and after the command's end
// only what is in the pipe: what it left running may hold it for ever.
func (r *relay) copyOut(to, from *os.File) {
	defer from.Close()
	buffer := make([]byte, 32<<10)
	for {
		if r.ended.Load() {
			from.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		}
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return // nobody reads any more: the command gets EPIPE
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && !r.ended.Load() {
			continue
		}
		if err != nil {
			return
		}
	}
}

// relayed is a process whose end is told when its output has been copied.
type relayed struct {
	containers.Process
	relay *relay
}

func (p *relayed) Wait() (containers.Exit, error) {
	exit, err := p.Process.Wait()
	p.relay.ended.Store(true)
	for _, f := range p.relay.ours[1:] {
		f.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // wakes a read under way
	}
	p.relay.copied.Wait()
	return exit, err
}
