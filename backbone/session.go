package backbone

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
)

// errNoKeeper is the answer to a request for a socket when the keeper is gone.
var errNoKeeper = errors.New("no keeper to open a socket")

// session is the backbone's end of the connection to one keeper. It pairs
// requests for sockets with the keeper's answers.
type session struct {
	pipe  *pipe
	shelf *shelf // the backbone's
	// dismissed is the loop's in run: nothing more of this session counts.
	dismissed bool

	mu      sync.Mutex
	lastID  uint64
	waiting map[uint64]chan *message
	gone    bool
}

func newSession(p *pipe, held *shelf) *session {
	return &session{pipe: p, shelf: held, waiting: map[uint64]chan *message{}}
}

// open is a DialFunc: the keeper opens the socket.
func (s *session) open(ctx context.Context, network string, addr netip.AddrPort) (*os.File, error) {
	return s.ask(ctx, &message{Type: msgSocket, Network: network, Addr: addr})
}

// ask sends a request for a socket.
func (s *session) ask(ctx context.Context, request *message) (*os.File, error) {
	answer := make(chan *message, 1)
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return nil, errNoKeeper
	}
	s.lastID++
	id := s.lastID
	s.waiting[id] = answer
	s.mu.Unlock()
	request.ID = id
	if err := s.pipe.send(request); err != nil {
		s.forget(id)
		return nil, fmt.Errorf("%w: %w", errNoKeeper, err)
	}
	select {
	case m := <-answer:
		if m == nil {
			return nil, errNoKeeper
		}
		if m.file == nil {
			return nil, errors.New(m.Error)
		}
		return m.file, nil
	case <-ctx.Done():
		if s.forget(id) {
			return nil, ctx.Err()
		}
		// The answer came at the same moment.
		if m := <-answer; m != nil && m.file != nil {
			m.file.Close()
		}
		return nil, ctx.Err()
	}
}

// forget gives a request up; false says that it has been answered.
func (s *session) forget(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.waiting[id]
	delete(s.waiting, id)
	return ok
}

// answer hands a keeper's message to who waits for it.
func (s *session) answer(m *message) {
	s.mu.Lock()
	c := s.waiting[m.ID]
	delete(s.waiting, m.ID)
	s.mu.Unlock()
	if c != nil {
		c <- m
	} else if m.file != nil {
		m.file.Close()
	}
}

// end closes the connection and answers all requests, now and from now on:
// nobody is there any more.
func (s *session) end() {
	s.pipe.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	for id, c := range s.waiting {
		delete(s.waiting, id)
		c <- nil
	}
}

// next answers requests, and holds files, until the keeper sends a configuration.
func (s *session) next() (*message, error) {
	for {
		m, err := s.pipe.receive()
		if err != nil {
			return nil, err
		}
		switch m.Type {
		case msgSocket, msgEgress:
			s.answer(m)
			continue
		case msgHold, msgDrop, msgTake:
			s.shelf.serve(s.pipe, m)
			continue
		}
		if m.file != nil {
			m.file.Close()
		}
		if m.Type == msgConfig {
			return m, nil
		}
	}
}
