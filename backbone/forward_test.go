package backbone

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// TestOneAskerLeavesRoom: a station that asks without end does not take the
// others' room, and all together have a bound.
func TestOneAskerLeavesRoom(t *testing.T) {
	f := forwards{of: map[netip.Addr]int{}}
	begin := func(from netip.Addr) (n int) {
		for f.begin(from) {
			n++
		}
		return n
	}
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	if n := begin(a); n != maxForwardsEach {
		t.Errorf("one asker has %d questions under way", n)
	}
	if n := begin(b); n != maxForwardsEach {
		t.Errorf("beside it another has %d", n)
	}
	for range maxForwardsEach {
		f.end(a)
	}
	if n := begin(a); n != maxForwardsEach || len(f.of) != 2 {
		t.Errorf("after they ended: %d, %v", n, f.of)
	}
	next := b
	for f.all < maxForwards {
		next = next.Next()
		begin(next)
	}
	// Who comes now has a little, until all have too much.
	if n := begin(netip.MustParseAddr("10.9.9.9")); n != fewForwards || f.begin(a) {
		t.Errorf("beside those who ask without end another has %d", n)
	}
	for next = netip.MustParseAddr("10.10.0.1"); begin(next) > 0; {
		next = next.Next()
	}
	if f.all != 2*maxForwards {
		t.Errorf("%d are under way", f.all)
	}
}

// TestUnderWayUntilSent: an asker that takes no answer over TCP has a bound of
// those that wait for it.
func TestUnderWayUntilSent(t *testing.T) {
	up := startResolver(t, "127.77.0.66", func(q *dns.Msg, _ bool) []*dns.Msg { return []*dns.Msg{replyA(q, "198.51.100.1")} })
	s := testServer(t, shop())
	s.upstream.set(Dial, &Config{Upstream: []netip.AddrPort{up}})
	from, sent := netip.MustParseAddr("203.0.113.7"), false
	_, later := s.handle(pack(t, func(q *dns.Msg) { q.Question[0].Name = "www.real.example." }), nil, transport{from: from, tcp: true})
	later(func([]byte) { sent = s.forwards.of[from] == 1 })
	if !sent || s.forwards.all != 0 {
		t.Errorf("under way while it is sent: %t, afterwards: %d", sent, s.forwards.all)
	}
}
