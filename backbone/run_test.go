package backbone

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// resolverFunc answers as an upstream server; nil is silence.
type resolverFunc func(q *dns.Msg, tcp bool) []*dns.Msg

// startResolver serves on an address of its own in 127/8.
func startResolver(t testing.TB, addr string, answer resolverFunc) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	pc, err := net.ListenPacket("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: l}, {PacketConn: pc}} {
		tcp := s.Listener != nil
		s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			for _, r := range answer(q, tcp) {
				_ = w.WriteMsg(r)
			}
		})
		go s.ActivateAndServe()
		t.Cleanup(func() { s.Shutdown() })
	}
	return at
}

func replyA(q *dns.Msg, addr string) *dns.Msg {
	r := new(dns.Msg).SetReply(q)
	r.RecursionAvailable = true
	rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A " + addr)
	r.Answer = append(r.Answer, rr)
	return r
}

// started is a backbone under test.
type started struct {
	keeper   *Keeper
	addr     string
	socket   string
	serveEnd chan error
	runEnd   chan error
	stop     context.CancelFunc
}

// freePort finds a port that is free for both protocols on addr.
func freePort(t testing.TB, addr string) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

func start(t testing.TB, d netplan.DNS, upstream ...netip.AddrPort) *started {
	t.Helper()
	return startWith(t, Dial, d, upstream...)
}

func startWith(t testing.TB, dial DialFunc, d netplan.DNS, upstream ...netip.AddrPort) *started {
	t.Helper()
	const addr = "127.77.0.1"
	d.Listen = addrs(addr)
	port := freePort(t, addr)
	keeper, child, err := Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &started{addr: fmt.Sprintf("%s:%d", addr, port), serveEnd: make(chan error, 1), runEnd: make(chan error, 1), stop: cancel}
	s.socket = socketName()
	go func() { s.runEnd <- run(ctx, child, os.Stderr, port, s.socket) }()
	s.keeper, err = NewKeeper(keeper, dial)
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		s.serveEnd <- s.keeper.Serve(ctx, Config{DNS: d, Upstream: upstream}, func() { close(ready) })
	}()
	select {
	case <-ready:
	case err := <-s.serveEnd:
		t.Fatalf("the backbone is not ready: %v", err)
	}
	t.Cleanup(func() {
		begin := time.Now()
		cancel()
		select {
		case err := <-s.runEnd:
			if err != nil {
				t.Errorf("the backbone ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the backbone does not end")
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("the backbone took %v to end", d)
		}
	})
	return s
}

func (s *started) ask(t testing.TB, network, name string) *dns.Msg {
	t.Helper()
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	r, _, err := (&dns.Client{Net: network, Timeout: 6 * time.Second}).Exchange(q, s.addr)
	if err != nil {
		t.Fatalf("%s over %s: %v", name, network, err)
	}
	if r.Question[0].Name != name {
		t.Errorf("asked %s, the reply is to %s", name, r.Question[0].Name)
	}
	return r
}

func TestRunAnswersAndForwards(t *testing.T) {
	silent := startResolver(t, "127.77.0.52", func(*dns.Msg, bool) []*dns.Msg { return nil })
	up := startResolver(t, "127.77.0.53", func(q *dns.Msg, tcp bool) []*dns.Msg {
		name := strings.ToLower(q.Question[0].Name)
		switch {
		case name == "long.upstream.example." && !tcp:
			r := new(dns.Msg).SetReply(q)
			r.Truncated = true
			return []*dns.Msg{r}
		case name == "forged.upstream.example.":
			forged := replyA(q, "127.6.6.6")
			forged.Id++
			other := replyA(q, "127.6.6.6")
			other.Question = []dns.Question{{Name: "other.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
			return []*dns.Msg{forged, other, replyA(q, "127.9.9.9")}
		case name == "no.upstream.example.":
			return []*dns.Msg{new(dns.Msg).SetRcode(q, dns.RcodeNameError)}
		}
		return []*dns.Msg{replyA(q, "127.9.9.9")}
	})
	s := start(t, shop(), up)
	for _, network := range []string{"udp", "tcp"} {
		if r := s.ask(t, network, "Only."); len(r.Answer) != 1 || !r.Authoritative {
			t.Errorf("own name over %s: %v", network, r)
		}
		for _, name := range []string{"a.uPstReam.example.", "long.upstream.example.", "forged.upstream.example."} {
			r := s.ask(t, network, name)
			if len(r.Answer) != 1 || r.Authoritative || r.Truncated || r.Answer[0].(*dns.A).A.String() != "127.9.9.9" {
				t.Errorf("%s over %s: %v", name, network, r)
			}
		}
		if r := s.ask(t, network, "no.upstream.example."); r.Rcode != dns.RcodeNameError {
			t.Errorf("NXDOMAIN of upstream: %v", r)
		}
	}

	d := shop()
	d.Listen = addrs("127.77.0.1", "127.77.0.2")
	d.Hosts = d.Hosts[:1]
	if err := s.keeper.Update(t.Context(), Config{DNS: d, Upstream: []netip.AddrPort{silent, up}}); err != nil {
		t.Fatal(err)
	}
	if r := s.ask(t, "udp", "only."); r.Rcode != dns.RcodeNameError {
		t.Errorf("a removed station is still there: %v", r)
	}
	begin := time.Now()
	if r := s.ask(t, "udp", "b.upstream.example."); len(r.Answer) != 1 || time.Since(begin) > 3*time.Second {
		t.Errorf("the second resolver was not asked in time: %v after %v", r, time.Since(begin))
	}
	if err := s.keeper.Update(t.Context(), Config{DNS: netplan.DNS{}}); err == nil {
		t.Error("a configuration without addresses was taken")
	}
	if err := s.keeper.Update(t.Context(), Config{DNS: d}); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	if r := s.ask(t, "udp", "b.upstream.example."); r.Rcode != dns.RcodeNameError || time.Since(begin) > time.Second/2 {
		t.Errorf("without upstream: %v after %v", r, time.Since(begin))
	}
}

func TestRunOutlivesKeeper(t *testing.T) {
	up := startResolver(t, "127.77.0.53", func(q *dns.Msg, _ bool) []*dns.Msg { return []*dns.Msg{replyA(q, "127.9.9.9")} })
	s := start(t, shop(), up)
	s.ask(t, "udp", "a.example.org.") // the spare socket is there by now, or soon
	time.Sleep(100 * time.Millisecond)
	s.keeper.pipe.close()
	if err := <-s.serveEnd; err == nil {
		t.Log("the keeper's end was orderly")
	}
	if r := s.ask(t, "udp", "only."); len(r.Answer) != 1 {
		t.Errorf("own name: %v", r)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			q := new(dns.Msg).SetQuestion("b.example.org.", dns.TypeA)
			r, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(q, s.addr)
			if err != nil || len(r.Answer) != 1 {
				t.Errorf("upstream name over the spare socket: %v, %v", r, err)
			}
		})
	}
	wg.Wait()
	if err := s.keeper.Update(t.Context(), Config{}); err == nil {
		t.Error("a closed connection took a configuration")
	}
}

func TestServeEndsWithBackbone(t *testing.T) {
	s := start(t, shop())
	s.stop()
	if err := <-s.serveEnd; err != nil && err != context.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestRunReportsWhatItCannotListenOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.77.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	keeper, child, err := Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	d := shop()
	d.Listen = addrs("127.77.0.3")
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	ended := make(chan error, 1)
	go func() { ended <- run(t.Context(), child, t.Output(), port, socketName()) }()
	err = Serve(t.Context(), keeper, Config{DNS: d}, Dial, func() { t.Error("ready") })
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("the keeper got %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the backbone ended well")
	}
}

func TestKeeperOpensNothingElse(t *testing.T) {
	keeper, child, err := Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPipe(child)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	allowed := netip.MustParseAddrPort("127.77.0.53:53")
	go Serve(t.Context(), keeper, Config{Upstream: []netip.AddrPort{allowed}}, func(_ context.Context, network string, addr netip.AddrPort) (*os.File, error) {
		if addr != allowed {
			t.Errorf("the keeper dialled %s %s", network, addr)
		}
		return os.Open(os.DevNull)
	}, nil)
	if m, err := p.receive(); err != nil || m.Type != msgConfig {
		t.Fatal(m, err)
	}
	for _, test := range []struct {
		network, addr string
		ok            bool
	}{{"udp", "127.77.0.53:53", true}, {"udp", "127.77.0.53:54", false}, {"tcp", "127.0.0.1:22", false}, {"unix", "127.77.0.53:53", false}} {
		if err := p.send(&message{Type: msgSocket, ID: 1, Network: test.network, Addr: netip.MustParseAddrPort(test.addr)}); err != nil {
			t.Fatal(err)
		}
		m, err := p.receive()
		if err != nil {
			t.Fatal(err)
		}
		if (m.file != nil) != test.ok {
			t.Errorf("%+v: got %+v", test, m)
		}
		if m.file != nil {
			m.file.Close()
		}
	}
}

func TestLargeConfiguration(t *testing.T) {
	d := shop()
	for i := range 20_000 {
		name := fmt.Sprintf("station-%d", i)
		d.Hosts = append(d.Hosts, netplan.DNSHost{Cluster: "lan", Name: name, FQDN: name + ".lan.deep.internal",
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{127, 80, byte(i >> 8), byte(i)})}})
	}
	s := start(t, d)
	if r := s.ask(t, "udp", "station-19999."); len(r.Answer) != 1 {
		t.Errorf("got %v", r)
	}
}

// BenchmarkUDP keeps some questions under way from each client, as many askers
// do; an operation is one question.
func BenchmarkUDP(b *testing.B) {
	const window = 32
	s := start(b, shop())
	packet := pack(b, func(*dns.Msg) {})
	var begin, end unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &begin)
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("udp", s.addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		buf := make([]byte, 1500)
		underWay := 0
		for more := true; more || underWay > 0; {
			if more = more && pb.Next(); more {
				if _, err := c.Write(packet); err != nil {
					b.Error(err)
					return
				}
				underWay++
			}
			for underWay > 0 && (!more || underWay == window) {
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, err := c.Read(buf); err != nil {
					b.Error(err)
					return
				}
				underWay--
				if more && underWay <= window/2 {
					break
				}
			}
		}
	})
	_ = unix.Getrusage(unix.RUSAGE_SELF, &end)
	cpu := end.Utime.Nano() + end.Stime.Nano() - begin.Utime.Nano() - begin.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "questions/s")
}

// socketName is a name of its own for each backbone: the tests share the
// machine's namespace.
func socketName() string { return "@platelayer-test-" + rand.Text() }
