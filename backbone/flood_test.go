package backbone

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestFlood: one asks for random names without end, outside where nobody
// answers and in the topology's domain; another, which asks again as resolvers
// do, gets its answers, and memory has a bound.
func TestFlood(t *testing.T) {
	up := startResolver(t, "127.77.0.68", func(q *dns.Msg, _ bool) []*dns.Msg {
		if dns.IsSubDomain("hole.example.", q.Question[0].Name) {
			return nil
		}
		return []*dns.Msg{replyA(q, "198.51.100.1")}
	})
	s := start(t, shop(), up)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 8)}}).DialContext(ctx, "udp", s.addr)
		if err != nil {
			return
		}
		defer c.Close()
		for i := 0; ctx.Err() == nil; i++ {
			domain := []string{"hole.example.", "shop.example.", "open.example."}[i%3]
			packed, _ := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.%s", i, domain), dns.TypeA).Pack()
			_, _ = c.Write(packed)
		}
	}()
	defer func() { cancel(); <-done }()
	client := &dns.Client{Timeout: 2 * time.Second, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}}}
	for i := range 20 {
		for _, name := range []string{"lb.shop.example.", fmt.Sprintf("w%d.real.example.", i)} {
			const tries = 5
			for try := 1; ; try++ {
				r, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), s.addr)
				if err == nil && len(r.Answer) > 0 {
					break
				}
				if try == tries {
					t.Fatalf("%s: %v, %v", name, r, err)
				}
			}
		}
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	if memory.HeapInuse > 64<<20 {
		t.Errorf("%d bytes are in use", memory.HeapInuse)
	}
}
