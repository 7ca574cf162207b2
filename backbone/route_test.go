package backbone

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestRoutesAndCache: a domain's resolver is asked about its names, a station's
// about others, and each once while its answer lasts.
func TestRoutesAndCache(t *testing.T) {
	var asked atomic.Int64
	resolver := func(addr, says string) netip.AddrPort {
		return startResolver(t, addr, func(q *dns.Msg, _ bool) []*dns.Msg {
			asked.Add(1)
			if q.Question[0].Name == "none.corp.example." {
				r := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
				soa, _ := dns.NewRR("corp.example. 60 IN SOA ns.corp.example. x.corp.example. 1 2 3 4 60")
				r.Ns = append(r.Ns, soa)
				return []*dns.Msg{r}
			}
			return []*dns.Msg{replyA(q, says)}
		})
	}
	all, corp, deep, own := resolver("127.77.0.61", "198.51.100.1"), resolver("127.77.0.62", "198.51.100.2"), resolver("127.77.0.63", "198.51.100.3"), resolver("127.77.0.64", "198.51.100.4")
	s := start(t, shop(), all)
	config := Config{DNS: listening(shop()), Upstream: []netip.AddrPort{all}, Domains: []Domain{{Name: "corp.example", Upstream: []netip.AddrPort{corp}}, {Name: "deep.corp.example", Upstream: []netip.AddrPort{deep}}}}
	if err := s.keeper.Update(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	check := func(name, want string, questions int64) {
		t.Helper()
		before := asked.Load()
		r := s.ask(t, "udp", name)
		got := dns.RcodeToString[r.Rcode]
		if len(r.Answer) > 0 {
			got = r.Answer[0].(*dns.A).A.String()
		}
		if n := asked.Load() - before; got != want || n != questions {
			t.Errorf("%s: got %s and %d questions, want %s and %d", name, got, n, want, questions)
		}
	}
	check("www.real.example.", "198.51.100.1", 1)
	check("WWW.real.example.", "198.51.100.1", 0)
	check("corp.example.", "198.51.100.2", 1)
	check("a.Corp.example.", "198.51.100.2", 1)
	check("xcorp.example.", "198.51.100.1", 1)
	check("a.deep.corp.example.", "198.51.100.3", 1)
	check("none.corp.example.", "NXDOMAIN", 1)
	check("none.corp.example.", "NXDOMAIN", 0)

	// The questions come from the address that is asked.
	config.Askers = []Asker{{Addresses: addrs("127.0.0.1", "127.77.0.1"), Upstream: []netip.AddrPort{own}}}
	if err := s.keeper.Update(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	check("www.real.example.", "198.51.100.4", 1)
	check("www.real.example.", "198.51.100.4", 0)
	check("a.corp.example.", "198.51.100.2", 0)
}

// TestResolversThatFail: one that cuts its answers and says nothing, or
// something else, over TCP is no reason not to ask the next.
func TestResolversThatFail(t *testing.T) {
	failing := func(addr string, over func(q *dns.Msg) []*dns.Msg) netip.AddrPort {
		return startResolver(t, addr, func(q *dns.Msg, tcp bool) []*dns.Msg {
			if tcp {
				return over(q)
			}
			r := replyA(q, "198.51.100.66")
			r.Truncated = true
			return []*dns.Msg{r}
		})
	}
	silent := failing("127.77.0.71", func(*dns.Msg) []*dns.Msg { return nil })
	other := failing("127.77.0.72", func(q *dns.Msg) []*dns.Msg {
		r := replyA(q, "198.51.100.66")
		r.Question[0].Name = "other.example."
		return []*dns.Msg{r}
	})
	good := answering(t, "127.77.0.73")
	s := start(t, shop(), silent, other, good)
	for _, network := range []string{"udp", "tcp"} {
		if r := s.ask(t, network, "www.real.example."); r.Truncated || len(r.Answer) != 1 || r.Answer[0].(*dns.A).A.String() == "198.51.100.66" {
			t.Errorf("over %s: %v", network, r)
		}
	}
	if err := s.keeper.Update(t.Context(), Config{DNS: listening(shop()), Upstream: []netip.AddrPort{other}}); err != nil {
		t.Fatal(err)
	}
	if r := s.ask(t, "udp", "a.real.example."); !r.Truncated {
		t.Errorf("half an answer passes for a whole: %v", r)
	}
}

func TestQuestionsAreTold(t *testing.T) {
	up := answering(t, "127.77.0.65")
	s := start(t, shop(), up)
	told := make(chan Question, 16)
	if err := s.keeper.Follow(func(all []Question) {
		for _, q := range all {
			told <- q
		}
	}); err != nil {
		t.Fatal(err)
	}
	next := func(name string) Question {
		t.Helper()
		for deadline := time.After(5 * time.Second); ; {
			s.ask(t, "udp", name) // it may come before the wish to follow
			select {
			case q := <-told:
				return q
			case <-time.After(50 * time.Millisecond):
			case <-deadline:
				t.Fatal("nothing is told")
			}
		}
	}
	q := next("Only.")
	if q.Name != "Only." || q.Type != "A" || q.Rcode != "NOERROR" || len(q.Answer) != 1 || q.Answer[0] != "A 127.1.2.3" || q.Source != SourceOwn {
		t.Errorf("an own name: %+v", q)
	}
	for _, want := range []Source{SourceUpstream, SourceCache} {
		if q := next("www.real.example."); q.Source != want || q.Rcode != "NOERROR" {
			t.Errorf("want from %s: %+v", want, q)
		}
	}
	if err := s.keeper.Follow(nil); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		s.ask(t, "udp", "Only.")
		select {
		case <-told:
			if time.Now().After(deadline) {
				t.Fatal("questions are told to nobody")
			}
			continue
		case <-time.After(100 * time.Millisecond):
		}
		break
	}
}

// FuzzUpstreamAnswer: whatever a resolver says, what the asker gets is an
// answer to its question, and what is kept comes back the same.
func FuzzUpstreamAnswer(f *testing.F) {
	add := func(m *dns.Msg) {
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	q := new(dns.Msg).SetQuestion("www.real.example.", dns.TypeA)
	add(replyA(q, "198.51.100.1"))
	add(new(dns.Msg).SetRcode(q, dns.RcodeNameError))
	long := replyA(q, "198.51.100.1")
	for range 100 {
		long.Answer = append(long.Answer, long.Answer[0])
	}
	add(long)
	alias := replyA(q, "198.51.100.1")
	alias.Answer[0].Header().Name = "lb.shop.example."
	cname, _ := dns.NewRR("www.real.example. 60 IN CNAME lb.shop.example.")
	alias.Answer = append(alias.Answer, cname)
	add(alias)
	f.Fuzz(func(t *testing.T, packet []byte) {
		answer := &dns.Msg{}
		if answer.Unpack(packet) != nil || !matches(&dns.Msg{MsgHdr: dns.MsgHdr{Id: answer.Id}, Question: q.Question}, answer) {
			return
		}
		s := testServer(t, shop())
		way := s.upstream.way.Load().routes.all
		s.upstream.cache.put(keyOf(q, way), answer)
		for range 2 {
			reply := newReply(q)
			s.finish(s.zones.Load(), reply, answer, q.Question[0].Name, noCluster)
			packed := s.pack(reply, nil, dns.MinMsgSize)
			var r dns.Msg
			if err := r.Unpack(packed); err != nil || len(packed) > dns.MinMsgSize || r.Id != q.Id || r.Question[0] != q.Question[0] {
				t.Fatalf("%v: %v", answer, &r)
			}
			for _, rr := range r.Answer {
				if a, ok := rr.(*dns.A); ok && strings.EqualFold(a.Hdr.Name, "lb.shop.example.") && a.A.String() != "203.0.113.1" {
					t.Fatalf("%v: of a name of ours: %v", answer, &r)
				}
			}
			if answer = s.upstream.cache.get(keyOf(q, way)); answer == nil {
				return
			}
		}
	})
}
