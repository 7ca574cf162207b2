package backbone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// diverting is a backbone whose port for outside connections is asked directly:
// what was sent to 127.88.0.N arrives there as it does by TPROXY.
type diverting struct {
	*started
	config Config
	keeper *adoption
	port   uint16
}

func startDivert(t *testing.T, egress EgressFunc) *diverting {
	t.Helper()
	if unix.Geteuid() != 0 {
		t.Skip("needs root: IP_TRANSPARENT")
	}
	d := &diverting{started: start(t, shop()), port: everywhereFree(t)}
	d.config = Config{DNS: listening(shop()), Divert: d.port}
	d.keeper = d.adoptGuarded(t, d.config, egress)
	return d
}

// everywhereFree is a port that nobody has at any address. Sockets get theirs
// from above, so that nobody takes it meanwhile.
func everywhereFree(t *testing.T) uint16 {
	t.Helper()
	for range 100 {
		at := fmt.Sprintf(":%d", 20000+rand.IntN(10000))
		l, err := net.Listen("tcp", at)
		if err != nil {
			continue
		}
		defer l.Close()
		u, err := net.ListenPacket("udp", at)
		if err != nil {
			continue
		}
		defer u.Close()
		return netip.MustParseAddrPort(l.Addr().String()).Port()
	}
	t.Fatal("there is no free port")
	return 0
}

func (d *diverting) outside(host string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), d.port)
}

func dial(t *testing.T, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial(network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// listenOutside serves each connection and returns the address.
func listenOutside(t *testing.T, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// to is an EgressFunc that has every destination at one place.
func to(place netip.AddrPort) EgressFunc {
	return func(ctx context.Context, network string, _, _ netip.AddrPort, _ []string) (*os.File, error) {
		return Dial(ctx, network, place)
	}
}

func TestEgressMovesBytesUntilBothEnd(t *testing.T) {
	echo := listenOutside(t, func(c *net.TCPConn) {
		defer c.Close()
		all, err := io.ReadAll(c) // the station's end comes before its answer
		if err == nil {
			_, _ = c.Write(all)
		}
	})
	asked := make(chan string, 1)
	d := startDivert(t, func(ctx context.Context, network string, from, at netip.AddrPort, _ []string) (*os.File, error) {
		asked <- network + " " + from.Addr().String() + " " + at.String()
		return Dial(ctx, network, echo)
	})
	c := dial(t, "tcp", d.outside("127.88.0.1"))
	sent := make([]byte, 3<<20)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(sent)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(sent), err)
	}
	if got, want := <-asked, "tcp 127.0.0.1 "+d.outside("127.88.0.1").String(); got != want {
		t.Errorf("the keeper was asked for %s, want %s", got, want)
	}
}

func TestEgressPassesResetsOn(t *testing.T) {
	seen := make(chan error, 1)
	place := listenOutside(t, func(c *net.TCPConn) {
		b := make([]byte, 1)
		_, _ = c.Read(b)
		if b[0] == 'r' {
			reset(c)
			return
		}
		_, err := c.Write(b)
		if err == nil {
			_, err = c.Read(b)
		}
		seen <- err
		c.Close()
	})
	d := startDivert(t, to(place))
	c := dial(t, "tcp", d.outside("127.88.0.1"))
	_, _ = c.Write([]byte("r"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset outside a station reads %v", err)
	}
	c = dial(t, "tcp", d.outside("127.88.0.1"))
	_, _ = c.Write([]byte("x"))
	_, _ = c.Read(make([]byte, 1))
	reset(c.(*net.TCPConn))
	if err := within(t, seen, "the outside"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a station's reset the outside reads %v", err)
	}
}

func TestEgressRefusedIsAReset(t *testing.T) {
	d := startDivert(t, func(context.Context, string, netip.AddrPort, netip.AddrPort, []string) (*os.File, error) {
		return nil, errors.New("no")
	})
	// Of its own addresses the second is not outside. The reset may come before
	// net.Dial has looked at its socket.
	for _, host := range []string{"127.88.0.1", "127.77.0.1"} {
		c, err := net.DialTimeout("tcp", d.outside(host).String(), 20*time.Second)
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("who asks %s gets %v", host, err)
		}
	}
}

func TestEgressOutlivesTheKeeper(t *testing.T) {
	echo := listenOutside(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	d := startDivert(t, to(echo))
	talk := func(c net.Conn) {
		t.Helper()
		b := make([]byte, 5)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
			t.Fatalf("got %q, %v", b, err)
		}
	}
	c := dial(t, "tcp", d.outside("127.88.0.1"))
	talk(c)
	d.keeper.keeper.pipe.close()
	_ = within(t, d.keeper.end, "the keeper")
	talk(c)
	waits := dial(t, "tcp", d.outside("127.88.0.2"))
	d.keeper = d.adoptGuarded(t, d.config, to(echo))
	talk(waits)
	talk(c)
}

func TestEgressOfDatagrams(t *testing.T) {
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go func() {
		buf := make([]byte, maxUDP)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(buf[:n], from)
		}
	}()
	d := startDivert(t, to(netip.MustParseAddrPort(u.LocalAddr().String())))
	var conns []net.Conn
	for range 3 { // to the same address at a time
		conns = append(conns, dial(t, "udp", d.outside("127.88.0.1")))
	}
	for i, n := range []int{5, 0, 1400, 60000} {
		for j, c := range conns {
			sent := bytes.Repeat([]byte{byte('a' + j), byte(i)}, n)[:n]
			got := make([]byte, maxUDP)
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			m, err := c.Read(got)
			if err != nil || !bytes.Equal(got[:m], sent) {
				t.Errorf("of %d bytes came back %d: %v", n, m, err)
			}
		}
	}
}

// TestFlowsMakeRoom: of a station that may have no more flows the idle ones end,
// and those of others don't.
func TestFlowsMakeRoom(t *testing.T) {
	fs := flows{all: map[flowKey]*flow{}, of: map[netip.Addr]map[*flow]bool{}}
	var ended []string
	add := func(from string, idle time.Duration) {
		f := newFlow(nil)
		f.end = func() { ended = append(ended, from) }
		f.last.Store(time.Now().Add(-idle).UnixNano())
		fs.add(flowKey{from: netip.MustParseAddrPort(from)}, f)
	}
	one := netip.MustParseAddr("10.0.0.1")
	add("10.0.0.2:1", time.Hour)
	add("10.0.0.1:1", 0)
	add("10.0.0.1:2", flowSpare/2)
	if fs.yield(one); ended != nil {
		t.Errorf("%v made room", ended)
	}
	add("10.0.0.1:3", 2*flowSpare)
	add("10.0.0.1:4", 3*flowSpare)
	fs.yield(one)
	fs.yield(one)
	fs.yield(one)
	if want := []string{"10.0.0.1:4", "10.0.0.1:3"}; !slices.Equal(ended, want) {
		t.Errorf("%v made room, want %v", ended, want)
	}
	for key, f := range fs.all {
		fs.remove(key, f)
	}
	if len(fs.of) != 0 {
		t.Errorf("%v are left", fs.of)
	}
}

func TestFlowPatience(t *testing.T) {
	f := newFlow(nil)
	last := func(after time.Duration) time.Duration {
		f.last.Store(f.began.Add(after).UnixNano())
		return f.patience()
	}
	if got := last(time.Minute); got != flowBrief {
		t.Errorf("one that nobody answers may be idle for %s", got)
	}
	f.answered.Store(true)
	if got := last(flowStream / 2); got != flowBrief {
		t.Errorf("one question and answer may be idle for %s", got)
	}
	if got := last(flowStream); got != flowIdle {
		t.Errorf("a stream may be idle for %s", got)
	}
}

func TestCrowd(t *testing.T) {
	c := newCrowd(5, 1)
	c.each = 3
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	var in []bool
	for range 4 {
		in = append(in, c.enter(one))
	}
	for range 3 {
		in = append(in, c.enter(two))
	}
	c.leave(one)
	in = append(in, c.enter(two))
	if want := []bool{true, true, true, false, true, true, false, true}; !slices.Equal(in, want) {
		t.Errorf("let in %v, want %v", in, want)
	}
	c.leave(one)
	c.leave(one)
	for range 3 {
		c.leave(two)
	}
	if c.total != 0 || len(c.here) != 0 {
		t.Errorf("%d are left, of %v", c.total, c.here)
	}
}

// TestNamesAreOfTheQuestion: what else an answer carries names nothing.
func TestNamesAreOfTheQuestion(t *testing.T) {
	n := newNames()
	var answer []dns.RR
	for _, line := range []string{
		"www.example. CNAME cdn.example.", "cdn.example. A 198.51.100.7", "cdn.example. AAAA 2001:db8:9::7",
		"registry.example. A 198.51.100.8",
	} {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		answer = append(answer, rr)
	}
	n.learn(dns.Question{Name: "WWW.example."}, answer)
	n.learn(dns.Question{Name: "other.example."}, []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "Other.example."}, A: net.IPv4(198, 51, 100, 7)}})
	for addr, want := range map[string][]string{
		"198.51.100.7": {"other.example", "www.example"}, "2001:db8:9::7": {"www.example"}, "198.51.100.8": nil,
	} {
		if got := n.of(netip.MustParseAddr(addr)); !slices.Equal(got, want) {
			t.Errorf("%s is called %v, want %v", addr, got, want)
		}
	}
	for i := range 2 * maxNamed {
		n.call([]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}, "many.example.", 60)
	}
	if len(n.calls) != maxNamed || len(n.order) != maxNamed {
		t.Errorf("%d addresses are kept, in order %d", len(n.calls), len(n.order))
	}
}

// TestCrowdOfANetwork: who sends under its neighbours' addresses keeps none of
// another network out.
func TestCrowdOfANetwork(t *testing.T) {
	c := newCrowd(8, 4)
	near := netip.MustParsePrefix("10.0.0.0/24")
	c.network = func(a netip.Addr) string { return map[bool]string{true: "near", false: "far"}[near.Contains(a)] }
	count := func(from string) (in int) {
		for a := netip.MustParseAddr(from); in < 8 && c.enter(a); in++ {
			a = a.Next()
		}
		return in
	}
	if near, far := count("10.0.0.1"), count("10.0.1.1"); near != 4 || far != 4 {
		t.Errorf("%d and %d of two networks are in", near, far)
	}
	for i := range 4 {
		c.leave(netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)}))
		c.leave(netip.AddrFrom4([4]byte{10, 0, 1, byte(1 + i)}))
	}
	if c.total != 0 || len(c.here) != 0 || len(c.networks) != 0 {
		t.Errorf("left are %d, %v, %v", c.total, c.here, c.networks)
	}
}

// TestListedNamesStay: whatever else an address is called, it is the listed
// name's as long as DNS said not too long ago.
func TestListedNamesStay(t *testing.T) {
	n, now := newNames(), time.Now()
	n.now = func() time.Time { return now }
	n.list([]string{"registry.example"})
	addr := netip.MustParseAddr("198.51.100.7")
	say := func(name string, ttl uint32) {
		header := dns.RR_Header{Name: name, Ttl: ttl}
		n.learn(dns.Question{Name: name}, []dns.RR{&dns.A{Hdr: header, A: addr.AsSlice()}})
	}
	say("Registry.example.", 1)
	for i := range 2 * maxNamed {
		say(string(rune('a'+i%26))+"x.example.", 60)
		n.call([]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}, "many.example.", 60)
	}
	n.list([]string{"other.example", "registry.example"})
	has := func() bool { return slices.Contains(n.of(addr), "registry.example") }
	if !has() {
		t.Errorf("it is called %v", n.of(addr))
	}
	now = now.Add(listedTime)
	if has() {
		t.Error("it is registry.example for ever")
	}
	say("registry.example.", 2*3600)
	if now = now.Add(listedTime); !has() {
		t.Error("it is forgotten before its time to live")
	}
}

func TestWhoHearsOfOutsideNames(t *testing.T) {
	c := Config{Outside: map[netip.Prefix]bool{
		netip.MustParsePrefix("10.1.0.0/16"): true, netip.MustParsePrefix("10.1.0.5/32"): false,
		netip.MustParsePrefix("fd00::/64"): false, netip.MustParsePrefix("fd00::5/128"): true,
	}}
	for addr, want := range map[string]bool{"10.1.0.5": false, "10.1.0.6": true, "10.2.0.1": false, "fd00::5": true, "fd00::6": false, "fe80::5": false} {
		if got := c.hears(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %t", addr, got)
		}
	}
}

func TestLedgerIsBounded(t *testing.T) {
	told := make(chan []Asked, 1)
	l := newLedger(func(all []Asked) { told <- all })
	from := netip.MustParseAddr("10.0.0.1")
	for i := range 3 * maxAsked {
		l.note(from, string(rune('a'+i%26))+string(rune('a'+i/26))+".example.", false)
	}
	all, sum := <-told, 0
	for _, a := range all {
		sum += a.Count
	}
	if len(all) != maxAsked+1 || sum != 3*maxAsked {
		t.Errorf("told of %d names, %d times", len(all), sum)
	}
}

// FuzzHeldPacket: whatever a station sends, nothing but a whole packet is read.
func FuzzHeldPacket(f *testing.F) {
	four := append([]byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 198, 51, 100, 7}, make([]byte, 20)...)
	f.Add(four)
	f.Add(append([]byte{0x46}, four[1:]...))
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 20, 6, 64}, make([]byte, 52)...))
	mapped := append([]byte{0x60, 0, 0, 0, 0, 20, 6, 64}, make([]byte, 52)...)
	copy(mapped[24:], netip.MustParseAddr("::ffff:198.51.100.1").AsSlice())
	f.Add(mapped)
	g := &gate{send4: -1, send6: -1, divert: &divert{logf: func(string, ...any) {}}}
	f.Fuzz(func(t *testing.T, packet []byte) {
		key, ok := ends(packet)
		if !ok {
			return
		}
		if !key.from.IsValid() || !key.to.IsValid() || key.to.Addr().Is4In6() || key.from.Addr().Is4In6() {
			t.Errorf("%x goes from %s to %s", packet, key.from, key.to)
		}
		if isTCP(packet) {
			g.refuse(key, packet)
		} else {
			g.filtered(key, packet)
		}
	})
}
