package backbone

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestAnswersOfOthers: of what a resolver outside says, only what is about the
// question is passed on, and nothing about names of ours.
func TestAnswersOfOthers(t *testing.T) {
	says := map[string][]string{ // the answer; after ; the authority section; after ;; the additional one
		"www.real.example.":   {"www.real.example. 60 IN A 198.51.100.1", "lb.shop.example. 60 IN A 198.51.100.66", "bank.example. 60 IN A 198.51.100.66"},
		"alias.real.example.": {"www.real.example. 60 IN A 198.51.100.1", "alias.real.example. 60 IN CNAME www.real.example."},
		"to.real.example.":    {"to.real.example. 60 IN CNAME cdn.real.example.", "cdn.real.example. 60 IN CNAME LB.shop.example.", "lb.shop.example. 60 IN A 198.51.100.66"},
		"gone.real.example.":  {"NXDOMAIN", "gone.real.example. 60 IN CNAME nobody.shop.example.", ";real.example. 60 IN SOA a. b. 1 2 3 4 5"},
		"back.real.example.":  {"back.real.example. 60 IN CNAME far.shop.example.", "far.shop.example. 60 IN A 198.51.100.66"},
		"loop.real.example.":  {"loop.real.example. 60 IN CNAME pool.real.example.", "pool.real.example. 60 IN CNAME loop.real.example."},
		"round.real.example.": {"round.real.example. 60 IN CNAME round.shop.example."},
		"none.real.example.":  {"NXDOMAIN", ";real.example. 60 IN SOA a. b. 1 2 3 4 5", ";shop.example. 60 IN NS evil.example.", ";bank.example. 60 IN NS evil.example.", ";;evil.example. 60 IN A 198.51.100.66"},
		"d.real.example.":     {"real.example. 60 IN DNAME other.example.", "d.real.example. 60 IN CNAME d.other.example.", "d.other.example. 60 IN A 198.51.100.3", "shop.example. 60 IN DNAME evil.example."},
		"mx.real.example.":    {"mx.real.example. 60 IN MX 10 lb.shop.example.", ";;lb.shop.example. 60 IN A 198.51.100.66"},
	}
	chain := []string{}
	for i := range 100 {
		chain = append(chain, fmt.Sprintf("long%d.real.example. 60 IN CNAME long%d.real.example.", i, i+1))
	}
	says["long0.real.example."] = chain
	up := startResolver(t, "127.77.0.67", func(q *dns.Msg, _ bool) []*dns.Msg {
		r := new(dns.Msg).SetReply(q)
		for _, text := range says[strings.ToLower(q.Question[0].Name)] {
			if code, ok := dns.StringToRcode[text]; ok {
				r.Rcode = code
				continue
			}
			rr, err := dns.NewRR(strings.TrimLeft(text, ";"))
			switch {
			case err != nil:
				t.Error(err)
			case strings.HasPrefix(text, ";;"):
				r.Extra = append(r.Extra, rr)
			case strings.HasPrefix(text, ";"):
				r.Ns = append(r.Ns, rr)
			default:
				r.Answer = append(r.Answer, rr)
			}
		}
		return []*dns.Msg{r}
	})
	d := shop()
	d.Records = recordsOf(t, "far CNAME www.real.example.", "round CNAME round.real.example.")
	s := testServer(t, d)
	s.upstream.set(Dial, &Config{Upstream: []netip.AddrPort{up}})
	for _, test := range []struct{ name, want string }{
		{"www.real.example.", "NOERROR A 198.51.100.1"},
		{"alias.real.example.", "NOERROR A 198.51.100.1 CNAME www.real.example."},
		{"to.real.example.", "NOERROR CNAME cdn.real.example. CNAME LB.shop.example. A 203.0.113.1"},
		{"gone.real.example.", "NXDOMAIN CNAME nobody.shop.example. SOA:shop.example."},
		{"back.real.example.", "NOERROR CNAME far.shop.example. CNAME www.real.example. A 198.51.100.1"},
		{"far.shop.example.", "NOERROR CNAME www.real.example. A 198.51.100.1"},
		{"loop.real.example.", "NOERROR CNAME pool.real.example. CNAME loop.real.example."},
		{"none.real.example.", "NXDOMAIN SOA:real.example."},
		{"d.real.example.", "NOERROR DNAME other.example. CNAME d.other.example. A 198.51.100.3"},
	} {
		for _, from := range []string{"resolver", "cache"} {
			if got := gist(t, s.whole(t, test.name, dns.TypeA)); got != test.want {
				t.Errorf("%s from the %s:\ngot  %s\nwant %s", test.name, from, got, test.want)
			}
		}
	}
	if got, want := gist(t, s.whole(t, "mx.real.example.", dns.TypeMX)), "NOERROR MX 10 lb.shop.example. +203.0.113.1 +fd00:1::1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, name := range []string{"round.real.example.", "round.shop.example."} {
		if got := gist(t, s.whole(t, name, dns.TypeA)); !strings.HasPrefix(got, "SERVFAIL ") {
			t.Errorf("%s leads to itself: %s", name, got)
		}
	}
	if got := strings.Count(gist(t, s.whole(t, "long0.real.example.", dns.TypeA)), "CNAME"); got > 20 {
		t.Errorf("%d aliases are followed", got)
	}
}

// whole asks over TCP, and waits.
func (s *server) whole(t testing.TB, name string, qtype uint16) []byte {
	t.Helper()
	packet, err := new(dns.Msg).SetQuestion(name, qtype).Pack()
	if err != nil {
		t.Fatal(err)
	}
	packed, later := s.handle(packet, nil, transport{from: netip.MustParseAddr("203.0.113.7"), tcp: true})
	if later != nil {
		later(func(p []byte) { packed = p })
	}
	return packed
}
