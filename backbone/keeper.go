package backbone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// maxDials bounds the sockets a keeper opens for a backbone at a time.
	maxDials = 256
	// dialTimeout is how long the keeper tries; the backbone gives up sooner.
	dialTimeout = 5 * time.Second
)

// VersionError says that a running backbone speaks another version of the
// protocol, having been started by another version of the program. It goes on
// as before; only a restart brings it up to date.
type VersionError struct{ Theirs, Ours int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the other side speaks version %d of the protocol, this one version %d", e.Theirs, e.Ours)
}

// Keeper is the keeper's end of the connection to the backbone.
type Keeper struct {
	pipe *pipe
	dial DialFunc

	egress EgressFunc
	sought func([]Asked)

	updateMu sync.Mutex // configurations are sent in the order of their IDs

	mu       sync.Mutex
	upstream []netip.AddrPort // that the backbone works with
	lastID   uint64
	waiting  map[uint64]*update
	taking   map[uint64]chan *message
	tell     func([]Question) // nil while nobody follows
	closed   bool
}

// update is a configuration that the backbone has not answered yet.
type update struct {
	upstream []netip.AddrPort
	answer   chan error
}

// NewKeeper takes conn over, also when it fails. It is the keeper's end of
// Socketpair, or a stream socket connected to SocketName in the namespace of a
// backbone that runs already.
func NewKeeper(conn *os.File, dial DialFunc) (*Keeper, error) {
	p, err := newPipe(conn)
	if err != nil {
		return nil, err
	}
	return &Keeper{pipe: p, dial: dial, waiting: map[uint64]*update{}, taking: map[uint64]chan *message{}}, nil
}

// Guard has egress open what stations ask for outside, and sought hear of
// questions for outside names. It is called before Serve, or never.
func (k *Keeper) Guard(egress EgressFunc, sought func([]Asked)) {
	k.egress, k.sought = egress, sought
}

// Serve hands the configuration over and then answers the backbone's requests
// for sockets until the connection closes (nil: the backbone has ended or
// another keeper has taken over), the backbone cannot work from the
// configuration (its reason; *VersionError when it cannot read it), or ctx
// ends. It is called once.
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
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		return nil
	}
	return fmt.Errorf("cannot talk to the backbone: %w", err)
}

// Update replaces the configuration and waits until the backbone works from
// it. After an error the backbone goes on as before.
func (k *Keeper) Update(ctx context.Context, cfg Config) error {
	u, err := k.request(cfg)
	if err != nil {
		return fmt.Errorf("cannot configure the backbone: %w", err)
	}
	select {
	case err := <-u.answer:
		if err != nil {
			return fmt.Errorf("cannot configure the backbone: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// request sends a configuration.
func (k *Keeper) request(cfg Config) (*update, error) {
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	u := &update{cfg.resolvers(), make(chan error, 1)}
	k.updateMu.Lock()
	defer k.updateMu.Unlock()
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil, errors.New("the connection has ended")
	}
	k.lastID++
	id := k.lastID
	k.waiting[id] = u
	k.mu.Unlock()
	if err := k.pipe.send(&message{Type: msgConfig, Version: protocol, ID: id, Config: text}); err != nil {
		k.answer(id, err)
		return nil, err
	}
	return u, nil
}

func (k *Keeper) loop(ctx context.Context, dials *sync.WaitGroup) error {
	// Apart from each other: what stations wait for outside does not hold up DNS.
	slots, egress := make(chan struct{}, maxDials), make(chan struct{}, maxDials)
	for {
		m, err := k.pipe.receive()
		if err != nil {
			return err
		}
		if m.Type == msgTake {
			k.hand(m)
			continue
		}
		if m.file != nil {
			// The backbone has nothing else to hand to the keeper.
			m.file.Close()
		}
		switch m.Type {
		case msgReady, msgFailed:
			switch {
			case m.Version != protocol:
				k.answer(m.ID, &VersionError{Theirs: m.Version, Ours: protocol})
			case m.Type == msgFailed:
				k.answer(m.ID, errors.New(m.Error))
			default:
				k.answer(m.ID, nil)
			}
		case msgAsked:
			k.asked(m.Asked)
		case msgSought:
			if k.sought != nil {
				k.sought(m.Sought)
			}
		case msgSocket, msgEgress:
			free, serve := slots, k.socket
			if m.Type == msgEgress {
				free, serve = egress, k.outside
			}
			select {
			case free <- struct{}{}:
			default:
				if err := k.pipe.send(&message{Type: m.Type, ID: m.ID, Error: "too many sockets at a time"}); err != nil {
					return err
				}
				continue
			}
			dials.Go(func() {
				serve(ctx, m)
				<-free
			})
		}
	}
}

func (k *Keeper) answer(id uint64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	u, ok := k.waiting[id]
	if !ok {
		return
	}
	delete(k.waiting, id)
	if err == nil {
		k.upstream = u.upstream
	}
	u.answer <- err
}

// mayOpen says whether addr is a resolver of the configuration that the
// backbone works with or, since only it knows the moment, is about to.
func (k *Keeper) mayOpen(network string, addr netip.AddrPort) bool {
	if network != "udp" && network != "tcp" {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Contains(k.upstream, addr) {
		return true
	}
	for _, u := range k.waiting {
		if slices.Contains(u.upstream, addr) {
			return true
		}
	}
	return false
}

// socket opens one socket for the backbone: to a configured resolver and to
// nowhere else, since what runs in the backbone is not to reach the machine's
// network at will.
func (k *Keeper) socket(ctx context.Context, m *message) {
	reply := &message{Type: msgSocket, ID: m.ID}
	if !k.mayOpen(m.Network, m.Addr) {
		reply.Error = "not an upstream resolver"
	} else {
		dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		f, err := k.dial(dialCtx, m.Network, m.Addr)
		if err != nil {
			if ctx.Err() != nil {
				// The connection is closing, on which the backbone asks
				// elsewhere; an answer would be final.
				return
			}
			reply.Error = err.Error()
		} else {
			defer f.Close()
			reply.file = f
		}
	}
	// A connection that broke is seen by the loop.
	_ = k.pipe.send(reply)
}

// outside opens one socket for a station.
func (k *Keeper) outside(ctx context.Context, m *message) {
	reply := &message{Type: msgEgress, ID: m.ID}
	if k.egress == nil {
		reply.Error = "nothing may leave"
	} else {
		f, err := k.egress(ctx, m.Network, m.From, m.Addr, m.Names)
		if err != nil {
			reply.Error = err.Error()
		} else {
			defer f.Close()
			reply.file = f
		}
	}
	_ = k.pipe.send(reply)
}

func (k *Keeper) close() {
	k.pipe.close()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for id, u := range k.waiting {
		delete(k.waiting, id)
		u.answer <- errors.New("the backbone ended")
	}
	for id, taken := range k.taking {
		delete(k.taking, id)
		taken <- nil
	}
}
