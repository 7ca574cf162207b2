package backbone

import (
	"context"
	"fmt"
	"net/netip"
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
	// server leaves room for others.
	maxForwardsEach = 128
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
	logf     func(format string, args ...any)

	ctx   context.Context // ends forwards when the server stops
	tasks sync.WaitGroup  // listeners, connections and forwards
}

func newServer(ctx context.Context, up *upstream, logf func(string, ...any)) *server {
	s := &server{ctx: ctx, upstream: up, names: newNames(), ledger: newLedger(func([]Asked) {}), forwards: forwards{of: map[netip.Addr]int{}}, logf: logf}
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
// may lie in buf. Otherwise later, when not nil, has to be called to get it
// and takes as long as an upstream resolver. Both nil: there is nothing to
// answer.
func (s *server) handle(packet, buf []byte, via transport) (packed []byte, later func() []byte) {
	f, began := s.follower.Load(), time.Now()
	packed, forward := s.respond(packet, buf, via)
	if forward == nil {
		f.tell(via, packed, SourceOwn, began)
		return packed, nil
	}
	return nil, func() []byte {
		packed, source := forward()
		f.tell(via, packed, source, began)
		return packed
	}
}

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
	if ours && outside == "" {
		return s.pack(r, buf, limit), nil
	}
	asked := &q
	if outside != "" {
		// The rest of an alias's answer.
		asked = q.Copy()
		asked.Question[0].Name = outside
	}
	if s.upstream.none(asked.Question[0].Name, via.from) || !s.config.Load().hears(via.from.Unmap().WithZone("")) {
		s.ledger.note(via.from.Unmap(), asked.Question[0].Name, false)
		r.Rcode = z.unknown(asked.Question[0].Name, asked.Question[0].Qtype)
		return s.pack(r, buf, limit), nil
	}
	if !s.forwards.begin(via.from) {
		r.Rcode = dns.RcodeServerFailure
		return s.pack(r, buf, limit), nil
	}
	s.ledger.note(via.from.Unmap(), asked.Question[0].Name, true)
	return nil, func() ([]byte, Source) {
		defer s.forwards.end(via.from)
		return s.forward(asked, r, via.from, limit)
	}
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
	if f.all >= maxForwards || f.of[from] >= maxForwardsEach {
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

// forward asks the upstream resolvers and makes their answer one to q: r is
// the reply set up for it.
func (s *server) forward(q, r *dns.Msg, from netip.Addr, limit int) ([]byte, Source) {
	ctx, cancel := context.WithTimeout(s.ctx, forwardTime)
	defer cancel()
	answer, cached, err := s.upstream.resolve(func() (*dns.Msg, error) { return s.upstream.exchange(ctx, q, from) }, q, from)
	if err != nil {
		if s.ctx.Err() == nil {
			s.logf("cannot resolve %s: %v", fmt.Sprintf("%q", q.Question[0].Name), err)
		}
		r.Rcode = dns.RcodeServerFailure
		return s.pack(r, nil, limit), SourceUpstream
	}
	return s.finish(r, answer, cached, limit)
}

// finish makes of what a resolver said the answer to who asked.
func (s *server) finish(r, answer *dns.Msg, cached bool, limit int) ([]byte, Source) {
	source := SourceUpstream
	if cached {
		source = SourceCache
	}
	r.Rcode = answer.Rcode
	if r.Rcode > 0xf && r.IsEdns0() == nil {
		r.Rcode = dns.RcodeServerFailure // an extended code needs an OPT record
	}
	r.Authoritative = false
	r.Truncated = answer.Truncated
	r.AuthenticatedData = answer.AuthenticatedData
	r.RecursionAvailable = answer.RecursionAvailable
	r.Answer, r.Ns = append(r.Answer, answer.Answer...), answer.Ns
	s.names.learn(r.Question[0], r.Answer)
	// EDNS is between neighbours: our OPT, not the resolver's.
	for _, rr := range answer.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			r.Extra = append(r.Extra, rr)
		}
	}
	return s.pack(r, nil, limit), source
}
