package backbone

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxHeld bounds the files that a backbone keeps.
const maxHeld = 4096

// shelf keeps files for keepers: what a station would lose with its keeper, and
// what the next keeper goes on with. The backbone outlives them all.
type shelf struct {
	mu sync.Mutex
	// Descriptors, as Go's poller would wake at whatever happens to an os.File
	// that nobody here reads.
	files map[string]int
}

// serve does what a keeper asks of the shelf; the message's file is its own
// from here on.
func (s *shelf) serve(p *pipe, m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, isHeld := s.files[m.Name]
	switch m.Type {
	case msgHold:
		if m.file == nil || !isHeld && len(s.files) >= maxHeld {
			break
		}
		fd, err := duplicate(m.file)
		if err != nil {
			break
		}
		if isHeld {
			unix.Close(held)
		}
		if s.files == nil {
			s.files = map[string]int{}
		}
		s.files[m.Name] = fd
	case msgDrop:
		if isHeld {
			unix.Close(held)
			delete(s.files, m.Name)
		}
	case msgTake:
		answer := &message{Type: msgTake, ID: m.ID, Name: m.Name}
		answer.Error = "nothing is held under that name"
		if isHeld {
			if fd, err := unix.FcntlInt(uintptr(held), unix.F_DUPFD_CLOEXEC, 0); err != nil {
				answer.Error = err.Error()
			} else {
				answer.file, answer.Error = os.NewFile(uintptr(fd), m.Name), ""
				defer answer.file.Close()
			}
		}
		_ = p.send(answer) // the keeper's end is seen by the session
	}
	if m.file != nil {
		m.file.Close()
	}
}

func duplicate(f *os.File) (int, error) {
	raw, err := f.SyscallConn() // Fd would make it block, and whoever shares it
	if err != nil {
		return -1, err
	}
	fd := -1
	var failed error
	if err := raw.Control(func(from uintptr) { fd, failed = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	return fd, failed
}

// Hold has the backbone keep a duplicate of a file under a name, in the place
// of an earlier one. It has it also when this process ends at once.
func (k *Keeper) Hold(name string, f *os.File) error {
	if err := k.pipe.send(&message{Type: msgHold, Name: name, file: f}); err != nil {
		return fmt.Errorf("cannot have the backbone hold %s: %w", name, err)
	}
	return nil
}

// Drop has the backbone close what it keeps under a name, if anything.
func (k *Keeper) Drop(name string) error {
	if err := k.pipe.send(&message{Type: msgDrop, Name: name}); err != nil {
		return fmt.Errorf("cannot have the backbone drop %s: %w", name, err)
	}
	return nil
}

// Take gives a duplicate of what the backbone keeps under a name, and goes on
// keeping. It works while Serve does.
func (k *Keeper) Take(ctx context.Context, name string) (*os.File, error) {
	taken := make(chan *message, 1)
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil, fmt.Errorf("cannot take %s from the backbone: the connection has ended", name)
	}
	k.lastID++
	id := k.lastID
	k.taking[id] = taken
	k.mu.Unlock()
	err := k.pipe.send(&message{Type: msgTake, ID: id, Name: name})
	if err == nil {
		select {
		case m := <-taken:
			switch {
			case m == nil:
				err = errors.New("the backbone ended")
			case m.file == nil:
				err = errors.New(m.Error)
			default:
				return m.file, nil
			}
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	k.mu.Lock()
	delete(k.taking, id)
	k.mu.Unlock()
	select {
	case m := <-taken: // the answer came at the same moment
		if m != nil && m.file != nil {
			m.file.Close()
		}
	default:
	}
	return nil, fmt.Errorf("cannot take %s from the backbone: %w", name, err)
}

// hand gives the backbone's answer to who asked for a file.
func (k *Keeper) hand(m *message) {
	k.mu.Lock()
	taken := k.taking[m.ID]
	delete(k.taking, m.ID)
	if taken != nil {
		taken <- m // there is room for one
	}
	k.mu.Unlock()
	if taken == nil && m.file != nil {
		m.file.Close()
	}
}
