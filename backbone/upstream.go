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
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// attemptTime is how long one resolver may take before the next is asked.
const attemptTime = 2 * time.Second

// socketTime is how long the keeper may take for a socket that needs no
// handshake: the rest of attemptTime is for the spare one.
const socketTime = attemptTime / 2

// upstream asks other resolvers, over sockets that a keeper opens.
type upstream struct {
	way   atomic.Pointer[way]
	cache *cache
}

// way is how questions get out. It is replaced as a whole: a keeper opens
// sockets to the resolvers of its own configuration only.
type way struct {
	open    DialFunc
	servers []*resolver // all
	routes  routes
}

// resolver is one upstream server and the socket kept for the time when no
// keeper is there to open others.
type resolver struct {
	addr netip.AddrPort
	// spare holds at most one socket; who takes it puts it back.
	spare   chan net.Conn
	retired atomic.Bool
}

// keep puts a socket by, or closes it when it is of no use.
func (r *resolver) keep(c net.Conn) {
	select {
	case r.spare <- c:
		if r.retired.Load() {
			r.retire()
		}
	default:
		c.Close()
	}
}

func (r *resolver) retire() {
	r.retired.Store(true)
	select {
	case c := <-r.spare:
		c.Close()
	default: // in use, or never there
	}
}

func newUpstream() *upstream {
	u := &upstream{cache: newCache()}
	u.way.Store(&way{routes: newRoutes(&Config{}, nil)})
	return u
}

// none tells whether nobody is there to be asked about a name.
func (u *upstream) none(name string, from netip.Addr) bool {
	w := u.way.Load()
	return len(w.routes.find(name, from).servers) == 0
}

// set replaces the resolvers and who opens sockets to them; known resolvers
// keep their spare socket. One goroutine at a time may call it.
func (u *upstream) set(open DialFunc, config *Config) {
	old := map[netip.AddrPort]*resolver{}
	for _, r := range u.way.Load().servers {
		old[r.addr] = r
	}
	w := &way{open: open}
	known := map[netip.AddrPort]*resolver{}
	for _, addr := range config.resolvers() {
		r := old[addr]
		if r == nil {
			r = &resolver{addr: addr, spare: make(chan net.Conn, 1)}
		}
		delete(old, addr)
		known[addr] = r
		w.servers = append(w.servers, r)
	}
	w.routes = newRoutes(config, known)
	u.way.Store(w)
	for _, r := range old {
		r.retire()
	}
}

// reserve fills the resolvers' spare sockets.
func (u *upstream) reserve(ctx context.Context) {
	w := u.way.Load()
	for _, r := range w.servers {
		if len(r.spare) > 0 {
			continue
		}
		if c, err := w.dial(ctx, "udp", r.addr); err == nil {
			r.keep(c)
		}
	}
}

func (w *way) dial(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	f, err := w.open(ctx, network, addr)
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
func (u *upstream) exchange(ctx context.Context, q *dns.Msg, from netip.Addr) (*dns.Msg, error) {
	for {
		w := u.way.Load()
		answer, err := u.try(ctx, w, w.routes.find(q.Question[0].Name, from), q)
		// What failed on a way that has been replaced meanwhile says nothing
		// about the new one.
		if err == nil || ctx.Err() != nil || u.way.Load() == w {
			return answer, err
		}
	}
}

func (u *upstream) try(ctx context.Context, w *way, to *route, q *dns.Msg) (*dns.Msg, error) {
	var refused, cut *dns.Msg
	err := errors.New("no upstream resolver")
	for _, r := range to.servers {
		var answer *dns.Msg
		if answer, err = u.ask(ctx, w, r, q); err != nil {
			if ctx.Err() != nil || u.way.Load() != w {
				break
			}
			continue
		}
		switch answer.Rcode {
		case dns.RcodeSuccess, dns.RcodeNameError:
			if !answer.Truncated {
				return answer, nil
			}
			cut = answer // the whole could not be had
			continue
		}
		refused = answer
	}
	switch {
	case cut != nil:
		return cut, nil
	case refused != nil:
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
func (u *upstream) ask(ctx context.Context, w *way, r *resolver, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	m := query(q)
	packed, err := m.Pack()
	if err != nil {
		return nil, err
	}
	answer, err := u.askUDP(ctx, w, r, m, packed)
	if err != nil || !answer.Truncated {
		return answer, err
	}
	whole, err := w.askTCP(ctx, r.addr, m, packed)
	switch {
	case err == nil:
		return whole, nil
	case u.way.Load() != w:
		return nil, err
	}
	return answer, nil
}

// askUDP uses a socket of its own, so that each question has a source port of
// its own (RFC 5452), or the spare one when the keeper gives none.
func (u *upstream) askUDP(ctx context.Context, w *way, r *resolver, m *dns.Msg, packed []byte) (*dns.Msg, error) {
	dialCtx, cancel := context.WithTimeout(ctx, socketTime)
	c, err := w.dial(dialCtx, "udp", r.addr)
	cancel()
	if err == nil {
		defer c.Close()
		return converse(ctx, c, m, packed)
	}
	if u.way.Load() != w {
		return nil, err
	}
	if errors.Is(err, errNoKeeper) {
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
	defer r.keep(c)
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
	// Nobody was asked for more than udpSize.
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		answer := &dns.Msg{}
		if err := answer.Unpack(buf[:n]); err == nil && matches(m, answer) {
			return answer, nil
		}
		const response, cut = 0x80, 0x02
		if n >= headerLen && binary.BigEndian.Uint16(buf) == m.Id && buf[2]&response != 0 && (buf[2]&cut != 0 || n == len(buf)) {
			// Cut in the middle of a record, by a server that is careless, or here.
			answer = &dns.Msg{Question: m.Question}
			answer.Truncated = true
			return answer, nil
		}
	}
}

func (w *way) askTCP(ctx context.Context, addr netip.AddrPort, m *dns.Msg, packed []byte) (*dns.Msg, error) {
	c, err := w.dial(ctx, "tcp", addr)
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
