package backbone

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	// udpSize is the longest answer over UDP that no path has to fragment
	// (DNS flag day 2020), and what we say we take.
	udpSize = 1232
	// maxForwards bounds the questions under way to upstream resolvers.
	maxForwards = 512
	// maxForwardsEach bounds those of one asker, so that one that floods the
	// server leaves room for others, and fewForwards is what each has room for
	// when several do, up to twice maxForwards.
	maxForwardsEach = 128
	fewForwards     = 8
	// forwardTime is how long one question may take, over all resolvers.
	forwardTime = 5 * time.Second
)

// server answers DNS questions from its zones and hands the rest to an
// upstream resolver.
type server struct {
	zones    atomic.Pointer[zones]
	config   atomic.Pointer[Config]
	names    *names
	ledger   *ledger
	upstream *upstream
	follower atomic.Pointer[follower] // of the questions; nil for nobody
	forwards forwards
	conns    conns
	logf     func(format string, args ...any)

	ctx   context.Context // ends forwards when the server stops
	tasks sync.WaitGroup  // listeners, connections and forwards
}

func newServer(ctx context.Context, up *upstream, logf func(string, ...any)) *server {
	s := &server{ctx: ctx, upstream: up, names: newNames(), ledger: newLedger(func([]Asked) {}), forwards: forwards{of: map[netip.Addr]int{}}, conns: conns{all: map[*askingConn]struct{}{}}, logf: logf}
	none, _ := newZones(Config{}.DNS, nil) // without records, nothing can be wrong
	s.zones.Store(none)
	s.config.Store(new(Config))
	return s
}

// transport is how an asker reached us.
type transport struct {
	from netip.Addr
	tcp  bool
}

// handle answers one packet. packed is the answer when it is known at once; it
// may lie in buf. Otherwise later, when not nil, has to be called with who
// sends it, and takes as long as an upstream resolver and the sending: until
// then it counts as under way. Both nil: there is nothing to answer.
func (s *server) handle(packet, buf []byte, via transport) (packed []byte, later func(send func([]byte))) {
	f, began := s.follower.Load(), time.Now()
	packed, forward := s.respond(packet, buf, via)
	if forward == nil {
		f.tell(via, packed, SourceOwn, began)
		return packed, nil
	}
	return nil, func(send func([]byte)) {
		defer s.forwards.end(via.from)
		packed, source := forward()
		f.tell(via, packed, source, began)
		if packed != nil {
			send(packed)
		}
	}
}

// respond is handle for what comes out of it; with later, a question is under
// way.
func (s *server) respond(packet, buf []byte, via transport) (packed []byte, later func() ([]byte, Source)) {
	var q dns.Msg
	if err := q.Unpack(packet); err != nil {
		return s.malformed(packet, buf), nil
	}
	if q.Response {
		// Answering an answer is how two servers keep each other busy.
		return nil, nil
	}
	r := newReply(&q)
	limit := replyLimit(&q, via.tcp)
	if rcode := s.refuse(&q); rcode != dns.RcodeSuccess {
		r.Rcode = rcode
		return s.pack(r, buf, limit), nil
	}
	z := s.zones.Load()
	ours, outside := z.answer(r, z.clusterOf(via.from))
	switch {
	case ours && outside == "":
		return s.pack(r, buf, limit), nil
	case !ours:
		outside = q.Question[0].Name
	}
	if s.unasked(z, r, outside, via.from) {
		return s.pack(r, buf, limit), nil
	}
	if !s.forwards.begin(via.from) {
		r.Rcode = dns.RcodeServerFailure
		return s.pack(r, buf, limit), nil
	}
	s.ledger.note(via.from.Unmap(), outside, true)
	return nil, func() ([]byte, Source) { return s.forward(&q, r, outside, via.from, limit) }
}

// unasked tells whether nobody outside is asked about a name, and sets r up to
// say so.
func (s *server) unasked(z *zones, r *dns.Msg, name string, from netip.Addr) bool {
	if !s.upstream.none(name, from) && s.config.Load().hears(from.Unmap().WithZone("")) {
		return false
	}
	s.ledger.note(from.Unmap(), name, false)
	r.Rcode = z.unknown(name, r.Question[0].Qtype)
	return true
}

// forwards counts the questions under way to upstream resolvers.
type forwards struct {
	mu  sync.Mutex
	all int
	of  map[netip.Addr]int // by asker
}

// begin tells whether there is room for one more.
func (f *forwards) begin(from netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of[from] >= maxForwardsEach || f.all >= maxForwards && (f.of[from] >= fewForwards || f.all >= 2*maxForwards) {
		return false
	}
	f.all++
	f.of[from]++
	return true
}

func (f *forwards) end(from netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all--
	if f.of[from]--; f.of[from] == 0 {
		delete(f.of, from)
	}
}

// malformed answers FORMERR when there is a whole header that asks something.
func (s *server) malformed(packet, buf []byte) []byte {
	if len(packet) < headerLen || packet[2]&0x80 != 0 {
		return nil
	}
	r := &dns.Msg{}
	r.Id = uint16(packet[0])<<8 | uint16(packet[1])
	r.Response = true
	r.Opcode = int(packet[2]>>3) & 0xf
	r.RecursionDesired = packet[2]&1 != 0
	r.Rcode = dns.RcodeFormatError
	return s.pack(r, buf, dns.MinMsgSize)
}

// newReply sets up a reply to q, with an OPT record where q has one (RFC 6891,
// section 6.1.1).
func newReply(q *dns.Msg) *dns.Msg {
	r := &dns.Msg{}
	r.Id = q.Id
	r.Response = true
	r.Opcode = q.Opcode
	r.RecursionDesired = q.RecursionDesired
	r.RecursionAvailable = true
	r.CheckingDisabled = q.CheckingDisabled
	r.Question = q.Question
	if len(r.Question) > 1 {
		r.Question = r.Question[:1]
	}
	if opt := q.IsEdns0(); opt != nil {
		r.Extra = append(r.Extra, newOPT(opt.Do()))
	}
	return r
}

func newOPT(do bool) *dns.OPT {
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.SetUDPSize(udpSize)
	if do {
		opt.SetDo()
	}
	return opt
}

// replyLimit is how long the reply to q may be.
func replyLimit(q *dns.Msg, tcp bool) int {
	if tcp {
		return dns.MaxMsgSize
	}
	opt := q.IsEdns0()
	if opt == nil {
		return dns.MinMsgSize
	}
	return min(max(int(opt.UDPSize()), dns.MinMsgSize), udpSize)
}

// refuse checks what no zone is needed for.
func (s *server) refuse(q *dns.Msg) int {
	if q.Opcode != dns.OpcodeQuery {
		return dns.RcodeNotImplemented
	}
	opts := 0
	for _, rr := range q.Extra {
		if opt, ok := rr.(*dns.OPT); ok {
			opts++
			if opt.Version() > 0 {
				return dns.RcodeBadVers
			}
		}
	}
	if len(q.Question) != 1 || opts > 1 {
		return dns.RcodeFormatError
	}
	switch question := q.Question[0]; {
	case question.Qclass != dns.ClassINET:
		return dns.RcodeRefused
	case question.Qtype == dns.TypeAXFR || question.Qtype == dns.TypeIXFR:
		return dns.RcodeRefused
	case question.Qtype == dns.TypeOPT || question.Qtype == dns.TypeNone || question.Qtype == dns.TypeTSIG || question.Qtype == dns.TypeTKEY:
		// Not types of data that could be asked for.
		return dns.RcodeFormatError
	}
	return dns.RcodeSuccess
}

// pack makes the packet of a reply. What is longer than limit is cut and
// marked so (RFC 2181, section 9).
func (s *server) pack(r *dns.Msg, buf []byte, limit int) []byte {
	// Compression costs time and is for long answers only.
	packed, err := r.PackBuffer(buf)
	if err == nil && len(packed) <= limit {
		return packed
	}
	r.Compress = true
	if r.Len() > limit {
		// What nobody asked for goes first, and is not missed.
		r.Extra = slices.DeleteFunc(r.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeOPT })
	}
	r.Truncate(limit)
	packed, err = r.PackBuffer(buf)
	if err == nil && len(packed) <= limit {
		return packed
	}
	if err != nil {
		s.logf("cannot pack an answer: %v", err)
	}
	fail := &dns.Msg{MsgHdr: r.MsgHdr, Question: r.Question}
	fail.Rcode = dns.RcodeServerFailure
	fail.Authoritative = false
	if packed, err = fail.PackBuffer(buf); err != nil {
		return nil
	}
	return packed
}

// forward adds to r, the reply set up for q, what upstream resolvers say about
// a name that q's leads to, and what we say where it leads back to a name of
// ours.
func (s *server) forward(q, r *dns.Msg, name string, from netip.Addr, limit int) ([]byte, Source) {
	ctx, cancel := context.WithTimeout(s.ctx, forwardTime)
	defer cancel()
	source := SourceCache
	for range maxChain {
		asked := q.Copy()
		asked.Question[0].Name = name
		answer, cached, err := s.upstream.resolve(func() (*dns.Msg, error) { return s.upstream.exchange(ctx, asked, from) }, asked, from)
		if !cached {
			source = SourceUpstream
		}
		if err != nil {
			if s.ctx.Err() == nil {
				s.logf("cannot resolve %s: %v", fmt.Sprintf("%q", name), err)
			}
			break
		}
		z := s.zones.Load()
		if name = s.finish(z, r, answer, name, z.clusterOf(from)); name == "" || s.unasked(z, r, name, from) {
			return s.pack(r, nil, limit), source
		}
	}
	r.Rcode = dns.RcodeServerFailure
	return s.pack(r, nil, limit), source
}

// finish adds to r what a resolver said about a name. Where that leads to a
// name of ours we go on, and outside is a name that this in turn leads to.
func (s *server) finish(z *zones, r, answer *dns.Msg, name string, asker int) (outside string) {
	r.Rcode = answer.Rcode
	if r.Rcode > 0xf && r.IsEdns0() == nil {
		r.Rcode = dns.RcodeServerFailure // an extended code needs an OPT record
	}
	r.Truncated = answer.Truncated
	r.AuthenticatedData = answer.AuthenticatedData
	r.RecursionAvailable = answer.RecursionAvailable
	home := z.take(r, answer, name)
	s.names.learn(r.Question[0], r.Answer)
	if home != "" {
		r.Rcode, r.Truncated, r.AuthenticatedData, r.RecursionAvailable = dns.RcodeSuccess, false, false, true
		_, outside = z.follow(r, home, asker)
	}
	z.addTargets(r, asker)
	r.Authoritative = false
	return outside
}
