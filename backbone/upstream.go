package backbone

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// attemptTime is how long one resolver may take before the next is asked.
const attemptTime = 2 * time.Second

// upstream asks other resolvers, over sockets that open gets from the keeper.
type upstream struct {
	open DialFunc

	mu      sync.Mutex
	servers []*resolver
}

// resolver is one upstream server and the socket kept for the time when no
// keeper is there to open others.
type resolver struct {
	addr netip.AddrPort
	// spare holds at most one socket; who takes it puts it back.
	spare chan net.Conn
}

func (u *upstream) none() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.servers) == 0
}

func (u *upstream) list() []*resolver {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.servers
}

// set replaces the resolvers; known ones keep their spare socket.
func (u *upstream) set(addrs []netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := map[netip.AddrPort]*resolver{}
	for _, r := range u.servers {
		old[r.addr] = r
	}
	u.servers = make([]*resolver, 0, len(addrs))
	for _, addr := range addrs {
		r := old[addr]
		if r == nil {
			r = &resolver{addr: addr, spare: make(chan net.Conn, 1)}
		}
		delete(old, addr)
		u.servers = append(u.servers, r)
	}
	for _, r := range old {
		select {
		case c := <-r.spare:
			c.Close()
		default: // in use, or never there: the collector closes it
		}
	}
}

// reserve fills the resolvers' spare sockets.
func (u *upstream) reserve(ctx context.Context) {
	for _, r := range u.list() {
		if len(r.spare) > 0 {
			continue
		}
		c, err := u.dial(ctx, "udp", r.addr)
		if err != nil {
			continue
		}
		select {
		case r.spare <- c:
		default:
			c.Close()
		}
	}
}

func (u *upstream) dial(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	f, err := u.open(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("cannot use the socket to %s: %w", addr, err)
	}
	return c, nil
}

// exchange asks the resolvers in turn, until one gives an answer that is worth
// passing on. What it returns is an answer to q's question.
func (u *upstream) exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	var refused *dns.Msg
	err := errors.New("no upstream resolver")
	for _, r := range u.list() {
		var answer *dns.Msg
		if answer, err = u.ask(ctx, r, q); err != nil {
			if ctx.Err() != nil {
				break
			}
			continue
		}
		switch answer.Rcode {
		case dns.RcodeSuccess, dns.RcodeNameError:
			return answer, nil
		}
		refused = answer
	}
	if refused != nil {
		return refused, nil
	}
	return nil, err
}

// query makes the question as we ask it: what the asker chose, under an ID
// that nobody can guess.
func query(q *dns.Msg) *dns.Msg {
	m := &dns.Msg{Question: q.Question}
	m.Id = uint16(rand.Uint32()) // ChaCha8, seeded by the kernel
	m.RecursionDesired = q.RecursionDesired
	m.CheckingDisabled = q.CheckingDisabled
	m.AuthenticatedData = q.AuthenticatedData
	if opt := q.IsEdns0(); opt != nil {
		m.Extra = append(m.Extra, newOPT(opt.Do()))
	}
	return m
}

// ask asks one resolver: over UDP, and over TCP when the answer was cut.
func (u *upstream) ask(ctx context.Context, r *resolver, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	m := query(q)
	packed, err := m.Pack()
	if err != nil {
		return nil, err
	}
	answer, err := u.askUDP(ctx, r, m, packed)
	if err != nil || !answer.Truncated {
		return answer, err
	}
	if whole, err := u.askTCP(ctx, r.addr, m, packed); err == nil {
		return whole, nil
	}
	return answer, nil
}

// askUDP uses a socket of its own, so that each question has a source port of
// its own (RFC 5452), or the spare one when the keeper gives none.
func (u *upstream) askUDP(ctx context.Context, r *resolver, m *dns.Msg, packed []byte) (*dns.Msg, error) {
	c, err := u.dial(ctx, "udp", r.addr)
	if err == nil {
		defer c.Close()
		return converse(ctx, c, m, packed)
	}
	if len(r.spare) == 0 && errors.Is(err, errNoKeeper) {
		// It may be in use by another question; if there never was one, this
		// waits for nothing, which a short look avoids.
		ctx, cancel := context.WithTimeout(ctx, attemptTime/4)
		defer cancel()
		select {
		case c = <-r.spare:
		case <-ctx.Done():
			return nil, err
		}
	} else {
		select {
		case c = <-r.spare:
		default:
			return nil, err
		}
	}
	defer func() {
		select {
		case r.spare <- c:
		default: // another one has been put there meanwhile
			c.Close()
		}
	}()
	return converse(ctx, c, m, packed)
}

// converse sends the question and waits for its answer; packets that are not
// it are passed over, since anybody may have forged them.
func converse(ctx context.Context, c net.Conn, m *dns.Msg, packed []byte) (*dns.Msg, error) {
	stop := bind(ctx, c)
	defer stop()
	if _, err := c.Write(packed); err != nil {
		// On a spare socket this may be the refusal of an earlier packet.
		if _, err = c.Write(packed); err != nil {
			return nil, err
		}
	}
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		answer := &dns.Msg{}
		if err := answer.Unpack(buf[:n]); err == nil && matches(m, answer) {
			return answer, nil
		}
		if n >= 12 && binary.BigEndian.Uint16(buf) == m.Id && buf[2]&0x82 == 0x82 {
			// Cut in the middle of a record, by a server that is careless.
			answer = &dns.Msg{Question: m.Question}
			answer.Truncated = true
			return answer, nil
		}
	}
}

func (u *upstream) askTCP(ctx context.Context, addr netip.AddrPort, m *dns.Msg, packed []byte) (*dns.Msg, error) {
	c, err := u.dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := bind(ctx, c)
	defer stop()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, buf); err != nil {
		return nil, err
	}
	answer := &dns.Msg{}
	if err := answer.Unpack(buf); err != nil {
		return nil, err
	}
	if !matches(m, answer) {
		return nil, errors.New("the answer is to another question")
	}
	return answer, nil
}

// bind ends the connection's reads and writes with ctx.
func bind(ctx context.Context, c net.Conn) (stop func() bool) {
	_ = c.SetDeadline(time.Time{})
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}

// matches says whether answer answers m (RFC 5452, section 9.1).
func matches(m, answer *dns.Msg) bool {
	if answer.Id != m.Id || !answer.Response || len(answer.Question) != 1 {
		return false
	}
	a, b := answer.Question[0], m.Question[0]
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}

// errNoKeeper is the answer to a request for a socket when the keeper is gone.
var errNoKeeper = errors.New("no keeper to open a socket")

// requests pairs requests for sockets with the keeper's answers.
type requests struct {
	pipe *pipe

	mu      sync.Mutex
	lastID  uint64
	waiting map[uint64]chan *message
	gone    bool
}

func newRequests(p *pipe) *requests {
	return &requests{pipe: p, waiting: map[uint64]chan *message{}}
}

// open is the DialFunc of the backbone.
func (r *requests) open(ctx context.Context, network string, addr netip.AddrPort) (*os.File, error) {
	answer := make(chan *message, 1)
	r.mu.Lock()
	if r.gone {
		r.mu.Unlock()
		return nil, errNoKeeper
	}
	r.lastID++
	id := r.lastID
	r.waiting[id] = answer
	r.mu.Unlock()
	if err := r.pipe.send(&message{Type: msgSocket, ID: id, Network: network, Addr: addr}); err != nil {
		r.forget(id)
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
		if r.forget(id) {
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
func (r *requests) forget(id uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.waiting[id]
	delete(r.waiting, id)
	return ok
}

// answer hands a keeper's message to who waits for it.
func (r *requests) answer(m *message) {
	r.mu.Lock()
	c := r.waiting[m.ID]
	delete(r.waiting, m.ID)
	r.mu.Unlock()
	if c != nil {
		c <- m
	} else if m.file != nil {
		m.file.Close()
	}
}

// end answers all requests, now and from now on: nobody is there any more.
func (r *requests) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	for id, c := range r.waiting {
		delete(r.waiting, id)
		c <- nil
	}
}
