package backbone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// maxDials bounds the sockets a keeper opens for a backbone at a time.
	maxDials = 256
	// dialTimeout is how long the keeper tries; the backbone gives up sooner.
	dialTimeout = 5 * time.Second
)

// Serve is the keeper's side in one call: see Keeper. ready, when not nil, is
// called once, when the backbone answers DNS.
func Serve(ctx context.Context, conn *os.File, cfg Config, dial DialFunc, ready func()) error {
	k, err := NewKeeper(conn, dial)
	if err != nil {
		return err
	}
	return k.Serve(ctx, cfg, ready)
}

// Keeper is the keeper's end of the connection to the backbone.
type Keeper struct {
	pipe *pipe
	dial DialFunc

	mu      sync.Mutex
	config  Config
	lastID  uint64
	waiting map[uint64]chan error // configurations not yet answered
	closed  bool
}

// NewKeeper takes conn over, also when it fails.
func NewKeeper(conn *os.File, dial DialFunc) (*Keeper, error) {
	p, err := newPipe(conn)
	if err != nil {
		return nil, err
	}
	return &Keeper{pipe: p, dial: dial, waiting: map[uint64]chan error{}}, nil
}

// Serve hands the configuration over and then answers the backbone's requests
// for sockets until the connection closes (nil), the backbone cannot listen
// (its reason), or ctx ends. It is called once.
func (k *Keeper) Serve(ctx context.Context, cfg Config, ready func()) error {
	defer k.close()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { k.pipe.close() })
	var dials sync.WaitGroup
	defer dials.Wait()
	defer stop()
	defer cancel()

	first := make(chan error, 1)
	go func() {
		err := k.Update(ctx, cfg)
		if err != nil {
			// Nothing serves: end the loop below.
			k.pipe.close()
		} else if ready != nil {
			ready()
		}
		first <- err
	}()
	err := k.loop(ctx, &dials)
	k.close()
	firstErr := <-first
	switch {
	case context.Cause(ctx) != nil:
		return ctx.Err()
	case firstErr != nil:
		return firstErr
	case errors.Is(err, io.EOF):
		return nil
	}
	return fmt.Errorf("cannot talk to the backbone: %w", err)
}

// Update replaces the configuration and waits until the backbone works from
// it. After an error the backbone goes on as before.
func (k *Keeper) Update(ctx context.Context, cfg Config) error {
	answer := make(chan error, 1)
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return errors.New("cannot configure the backbone: it has ended")
	}
	k.lastID++
	id := k.lastID
	k.waiting[id] = answer
	// The backbone may ask for a new upstream as soon as it knows of it.
	k.config = cfg
	k.mu.Unlock()
	if err := k.pipe.send(&message{Type: msgConfig, Version: protocol, ID: id, Config: &cfg}); err != nil {
		return fmt.Errorf("cannot configure the backbone: %w", err)
	}
	select {
	case err := <-answer:
		if err != nil {
			return fmt.Errorf("cannot configure the backbone: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Keeper) loop(ctx context.Context, dials *sync.WaitGroup) error {
	defer k.pipe.drop()
	slots := make(chan struct{}, maxDials)
	for {
		m, err := k.pipe.receive()
		if err != nil {
			return err
		}
		if m.file != nil {
			// The backbone has nothing to hand to the keeper.
			m.file.Close()
		}
		switch m.Type {
		case msgReady:
			k.answer(m.ID, nil)
		case msgFailed:
			k.answer(m.ID, errors.New(m.Error))
		case msgSocket:
			select {
			case slots <- struct{}{}:
			default:
				if err := k.pipe.send(&message{Type: msgSocket, ID: m.ID, Error: "too many sockets at a time"}); err != nil {
					return err
				}
				continue
			}
			dials.Go(func() {
				k.socket(ctx, m)
				<-slots
			})
		}
	}
}

func (k *Keeper) answer(id uint64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.waiting[id]; ok {
		delete(k.waiting, id)
		c <- err
	}
}

// socket opens one socket for the backbone: to a configured resolver and to
// nowhere else, since what runs in the backbone is not to reach the machine's
// network at will.
func (k *Keeper) socket(ctx context.Context, m *message) {
	reply := &message{Type: msgSocket, ID: m.ID}
	k.mu.Lock()
	known := slices.Contains(k.config.Upstream, m.Addr)
	k.mu.Unlock()
	if !known || (m.Network != "udp" && m.Network != "tcp") {
		reply.Error = "not an upstream resolver"
	} else {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		f, err := k.dial(ctx, m.Network, m.Addr)
		if err != nil {
			reply.Error = err.Error()
		} else {
			defer f.Close()
			reply.file = f
		}
	}
	// A connection that broke is seen by the loop.
	_ = k.pipe.send(reply)
}

func (k *Keeper) close() {
	k.pipe.close()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for id, c := range k.waiting {
		delete(k.waiting, id)
		c <- errors.New("the backbone ended")
	}
}
