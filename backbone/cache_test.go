package backbone

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func answerOf(t testing.TB, rcode int, records ...string) *dns.Msg {
	m := &dns.Msg{}
	m.SetQuestion("www.real.example.", dns.TypeA)
	m.Response, m.Rcode = true, rcode
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, is := rr.(*dns.SOA); is {
			m.Ns = append(m.Ns, rr)
		} else {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

func TestLifetime(t *testing.T) {
	const soa = "real.example. 600 IN SOA ns.real.example. x.real.example. 1 2 3 4 "
	for _, test := range []struct {
		m    *dns.Msg
		want time.Duration
	}{
		{answerOf(t, dns.RcodeSuccess, "www.real.example. 60 IN A 198.51.100.1", "www.real.example. 30 IN A 198.51.100.2"), 30 * time.Second},
		{answerOf(t, dns.RcodeSuccess, "www.real.example. 5 IN CNAME x.real.example.", "x.real.example. 30 IN A 198.51.100.2"), 5 * time.Second},
		{answerOf(t, dns.RcodeSuccess, "www.real.example. 0 IN A 198.51.100.1"), 0},
		{answerOf(t, dns.RcodeSuccess, "www.real.example. 999999 IN A 198.51.100.1"), maxPositive},
		{answerOf(t, dns.RcodeSuccess, "www.real.example. 4294967295 IN A 198.51.100.1"), 0},
		{answerOf(t, dns.RcodeNameError, soa+"20"), 20 * time.Second},
		{answerOf(t, dns.RcodeNameError, soa+"3600"), 600 * time.Second},
		{answerOf(t, dns.RcodeSuccess, soa+"20"), 20 * time.Second},
		{answerOf(t, dns.RcodeSuccess, "www.real.example. 5 IN CNAME x.real.example.", soa+"20"), 5 * time.Second},
		{answerOf(t, dns.RcodeSuccess, "www.real.example. 5 IN CNAME x.real.example."), 0},
		{answerOf(t, dns.RcodeNameError), 0},
		{answerOf(t, dns.RcodeServerFailure, soa+"20"), 0},
	} {
		if got := lifetime(test.m); got != test.want {
			t.Errorf("%v is kept for %s, want %s", test.m, got, test.want)
		}
	}
	cut := answerOf(t, dns.RcodeSuccess, "www.real.example. 60 IN A 198.51.100.1")
	cut.Truncated = true
	if got := lifetime(cut); got != 0 {
		t.Errorf("half an answer is kept for %s", got)
	}
}

func TestCache(t *testing.T) {
	c, now := newCache(), time.Unix(1e9, 0)
	c.now = func() time.Time { return now }
	key := cacheKey{name: "www.real.example.", qtype: dns.TypeA}
	m := answerOf(t, dns.RcodeSuccess, "www.real.example. 60 IN A 198.51.100.1")
	m.SetEdns0(1232, true)
	c.put(key, m)
	now = now.Add(20500 * time.Millisecond)
	got := c.get(key)
	if got == nil || got.Answer[0].Header().Ttl != 40 || !got.IsEdns0().Do() {
		t.Errorf("after 20.5 s: %v", got)
	}
	other := key
	other.do = true
	if c.get(other) != nil {
		t.Error("an answer without signatures is one with them")
	}
	now = now.Add(40 * time.Second)
	if got := c.get(key); got != nil {
		t.Errorf("after its time: %v", got)
	}
	if c.size != 0 || len(c.entries) != 0 {
		t.Errorf("%d bytes are left in %d entries", c.size, len(c.entries))
	}
}

// TestCacheIsBounded: names that nobody asks for again push out each other,
// and not the one that is asked for all the time.
func TestCacheIsBounded(t *testing.T) {
	c := newCache()
	m := answerOf(t, dns.RcodeSuccess, "www.real.example. 60 IN A 198.51.100.1")
	c.put(cacheKey{name: "wanted."}, m)
	for i := range 100_000 {
		c.put(cacheKey{name: fmt.Sprintf("n%d.", i)}, m)
		if c.get(cacheKey{name: "wanted."}) == nil {
			t.Fatalf("the name that is wanted went after %d others", i)
		}
	}
	if c.size > cacheSize || c.used.Len() != len(c.entries) {
		t.Errorf("%d bytes, %d entries, %d listed", c.size, len(c.entries), c.used.Len())
	}
	if c.get(cacheKey{name: "n0."}) != nil || c.get(cacheKey{name: "n99999."}) == nil {
		t.Error("the longest unused is not what went")
	}
}
