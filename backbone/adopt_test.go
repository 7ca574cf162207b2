package backbone

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// knock connects to a backbone as a later keeper does.
func knock(t testing.TB, socket string) *os.File {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// adoption is a keeper that has taken over.
type adoption struct {
	keeper *Keeper
	dials  atomic.Int64
	end    chan error
	cancel context.CancelFunc
}

func (s *started) adopt(t testing.TB, cfg Config) *adoption {
	t.Helper()
	return s.adoptGuarded(t, cfg, nil)
}

func (s *started) adoptGuarded(t testing.TB, cfg Config, egress EgressFunc) *adoption {
	t.Helper()
	a := &adoption{end: make(chan error, 1)}
	k, err := NewKeeper(knock(t, s.socket), func(ctx context.Context, network string, addr netip.AddrPort) (*os.File, error) {
		a.dials.Add(1)
		return Dial(ctx, network, addr)
	})
	if err != nil {
		t.Fatal(err)
	}
	a.keeper = k
	k.Guard(egress, nil)
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	t.Cleanup(cancel)
	ready := make(chan struct{})
	go func() { a.end <- k.Serve(ctx, cfg, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-a.end:
		t.Fatalf("the backbone is not adopted: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("the backbone does not answer the new keeper")
	}
	return a
}

// listening is d on the address that start uses.
func listening(d netplan.DNS) netplan.DNS {
	d.Listen = addrs("127.77.0.1")
	return d
}

func answering(t testing.TB, addr string) netip.AddrPort {
	return startResolver(t, addr, func(q *dns.Msg, _ bool) []*dns.Msg { return []*dns.Msg{replyA(q, "127.9.9.9")} })
}

// within waits for an end.
func within(t testing.TB, end chan error, what string) error {
	t.Helper()
	select {
	case err := <-end:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not end", what)
		return nil
	}
}

func TestAdoptionAfterTheKeeper(t *testing.T) {
	up, other := answering(t, "127.77.0.53"), answering(t, "127.77.0.54")
	s := start(t, shop(), up)
	s.keeper.pipe.close()
	within(t, s.serveEnd, "the keeper")
	d := listening(shop())
	d.Hosts = append(d.Hosts, netplan.DNSHost{Cluster: "lan", Name: "new", FQDN: "new.lan.deep.internal", Addresses: addrs("127.1.2.4")})
	a := s.adopt(t, Config{DNS: d, Upstream: []netip.AddrPort{other}})
	if r := s.ask(t, "udp", "new."); len(r.Answer) != 1 {
		t.Errorf("a station of the new configuration: %v", r)
	}
	before := a.dials.Load()
	if r := s.ask(t, "tcp", "a.example.org."); len(r.Answer) != 1 || a.dials.Load() == before {
		t.Errorf("an upstream name, after %d sockets of the new keeper: %v", a.dials.Load(), r)
	}
	if err := a.keeper.Update(t.Context(), Config{DNS: listening(shop())}); err != nil {
		t.Fatal(err)
	}
	if r := s.ask(t, "udp", "new."); r.Rcode != dns.RcodeNameError {
		t.Errorf("a removed station is still there: %v", r)
	}
	a.cancel()
	if err := within(t, a.end, "the new keeper"); err != context.Canceled {
		t.Errorf("the new keeper ended with %v", err)
	}
	if r := s.ask(t, "udp", "only."); len(r.Answer) != 1 {
		t.Errorf("after the second keeper: %v", r)
	}
}

// TestAdoptionFromAHungKeeper asks while a keeper opens no socket, and has
// another keeper take over.
func TestAdoptionFromAHungKeeper(t *testing.T) {
	up := answering(t, "127.77.0.53")
	const askers = 20
	var hung atomic.Bool
	reached := make(chan struct{}, 1000)
	s := startWith(t, func(ctx context.Context, network string, addr netip.AddrPort) (*os.File, error) {
		if hung.Load() {
			reached <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, errors.New("no spare socket")
	}, shop(), up)
	hung.Store(true)
	var wg sync.WaitGroup
	for i := range askers {
		wg.Go(func() {
			q := new(dns.Msg).SetQuestion("b.example.org.", dns.TypeA)
			network := []string{"udp", "tcp"}[i%2]
			r, _, err := (&dns.Client{Net: network, Timeout: 10 * time.Second}).Exchange(q, s.addr)
			if err != nil || len(r.Answer) != 1 {
				t.Errorf("a question under way: %v, %v", r, err)
			}
		})
	}
	for range askers {
		<-reached
	}
	a := s.adopt(t, Config{DNS: listening(shop()), Upstream: []netip.AddrPort{up}})
	wg.Wait()
	if err := within(t, s.serveEnd, "the replaced keeper"); err != nil {
		t.Errorf("the replaced keeper ended with %v", err)
	}
	if a.dials.Load() < askers {
		t.Errorf("the new keeper opened %d sockets", a.dials.Load())
	}
}

// TestAHungKeeperLeavesTheSpareSocket has a keeper that opens one socket and
// then no more.
func TestAHungKeeperLeavesTheSpareSocket(t *testing.T) {
	up := answering(t, "127.77.0.53")
	var dials atomic.Int64
	s := startWith(t, func(ctx context.Context, network string, addr netip.AddrPort) (*os.File, error) {
		if dials.Add(1) > 1 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return Dial(ctx, network, addr)
	}, shop(), up)
	for dials.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if r := s.ask(t, "udp", "b.example.org."); len(r.Answer) != 1 {
		t.Errorf("got %v", r)
	}
}

func frame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// nonsense is what may come from either side instead of messages.
var nonsense = map[string][]byte{
	"half a length":    {0, 0},
	"half a frame":     frame(`{"type":"config"}`)[:9],
	"no JSON":          frame("\x00\xff"),
	"an empty frame":   frame(""),
	"another type":     frame(`[1]`),
	"a frame too long": {0xff, 0xff, 0xff, 0xff},
	"no descriptor":    frame(`{"type":"socket","has_file":true}`),
}

func TestNonsenseDisplacesNoKeeper(t *testing.T) {
	up := answering(t, "127.77.0.53")
	s := start(t, shop(), up)
	for range maxPending / 2 {
		defer knock(t, s.socket).Close() // says nothing
	}
	for name, bytes := range nonsense {
		f := knock(t, s.socket)
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(bytes); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.UnixConn).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the backbone wrote %d bytes, %v", name, n, err)
		}
		c.Close()
	}
	for name, m := range map[string]*message{
		"no address to listen on": {Type: msgConfig, Version: protocol, Config: []byte(`{}`)},
		"version 99 ":             {Type: msgConfig, Version: 99, Config: []byte(`"of another form"`)},
		"cannot unmarshal":        {Type: msgConfig, Version: protocol, Config: []byte(`"of another form"`)},
		"unexpected end":          {Type: msgConfig, Version: protocol},
	} {
		p, err := newPipe(knock(t, s.socket))
		if err != nil {
			t.Fatal(err)
		}
		_ = p.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		// Answers to nobody's request, and a descriptor that nobody wants.
		for range 3 {
			if err := p.send(&message{Type: msgSocket, ID: 1, file: os.Stderr}); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.send(m); err != nil {
			t.Fatal(err)
		}
		reply, err := p.receive()
		if err != nil || reply.Type != msgFailed || reply.Version != protocol || !strings.Contains(reply.Error, name) {
			t.Errorf("%s: got %+v, %v", name, reply, err)
		}
		if _, err := p.receive(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection is still open: %v", name, err)
		}
		p.close()
	}
	if err := s.keeper.Update(t.Context(), Config{DNS: listening(shop()), Upstream: []netip.AddrPort{up}}); err != nil {
		t.Errorf("the keeper has been displaced: %v", err)
	}
	if r := s.ask(t, "udp", "b.example.org."); len(r.Answer) != 1 {
		t.Errorf("got %v", r)
	}
	s.adopt(t, Config{DNS: listening(shop())})
}

func TestSilenceHoldsNoKeeperUpForLong(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as a connection may be silent")
	}
	s := start(t, shop())
	for range maxPending {
		defer knock(t, s.socket).Close()
	}
	s.adopt(t, Config{DNS: listening(shop())})
}

func TestOnlyRootIsAdmitted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	s := start(t, shop())
	got := make(chan error, 1)
	go func() {
		// The thread ends with the goroutine, and its user with it.
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
			got <- errno
			return
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: s.socket})
		}
		if err == nil {
			got <- Serve(context.Background(), os.NewFile(uintptr(fd), "keeper"), Config{DNS: listening(shop())}, Dial, func() { t.Error("another user was let in") })
			return
		}
		got <- err
	}()
	if err := within(t, got, "the other user's connection"); err == nil || errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("another user got %v", err)
	}
	s.adopt(t, Config{DNS: listening(shop())})
}

// TestNewerKeeper has a backbone answer a keeper of a later version, and a
// keeper hear from a backbone of another.
func TestNewerKeeper(t *testing.T) {
	for _, reply := range []*message{{Type: msgFailed, Version: 7, Error: "no"}, {Type: msgReady, Version: 7}} {
		keeper, child, err := Socketpair()
		if err != nil {
			t.Fatal(err)
		}
		p, err := newPipe(child)
		if err != nil {
			t.Fatal(err)
		}
		end := make(chan error, 1)
		go func() { end <- Serve(t.Context(), keeper, Config{}, Dial, func() { t.Error("ready") }) }()
		m, err := p.receive()
		if err != nil {
			t.Fatal(err)
		}
		reply.ID = m.ID
		if err := p.send(reply); err != nil {
			t.Fatal(err)
		}
		var v *VersionError
		if err := within(t, end, "the keeper"); !errors.As(err, &v) || *v != (VersionError{Theirs: 7, Ours: protocol}) {
			t.Errorf("got %v", err)
		}
		p.close()
	}
}

func TestKeeperMeetsNonsense(t *testing.T) {
	for name, bytes := range nonsense {
		keeper, child, err := Socketpair()
		if err != nil {
			t.Fatal(err)
		}
		p, err := newPipe(child)
		if err != nil {
			t.Fatal(err)
		}
		end := make(chan error, 1)
		k, err := NewKeeper(keeper, Dial)
		if err != nil {
			t.Fatal(err)
		}
		ready := make(chan struct{})
		go func() { end <- k.Serve(t.Context(), Config{}, func() { close(ready) }) }()
		m, err := p.receive()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.send(&message{Type: msgReady, Version: protocol, ID: m.ID}); err != nil {
			t.Fatal(err)
		}
		<-ready
		if _, err := p.conn.Write(bytes); err != nil {
			t.Fatal(err)
		}
		_ = p.conn.CloseWrite()
		if err := within(t, end, "the keeper"); err == nil {
			t.Errorf("%s: no error", name)
		}
		p.close()
	}
}

// flood asks until stop, own and upstream names, and counts; whatever is lost
// is an error.
func (s *started) flood(t *testing.T, stop <-chan struct{}) (asked *atomic.Int64, wait func()) {
	asked = &atomic.Int64{}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			network := []string{"udp", "udp", "udp", "tcp"}[i%4]
			client := &dns.Client{Net: network, Timeout: 10 * time.Second}
			c, err := client.Dial(s.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				name := []string{"only.", "a.example.org."}[n%2]
				q := new(dns.Msg).SetQuestion(name, dns.TypeA)
				r, _, err := client.ExchangeWithConn(q, c)
				if err != nil || r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 {
					t.Errorf("question %d over %s, %s: %v, %v", n, network, name, r, err)
					return
				}
				asked.Add(1)
			}
		})
	}
	return asked, wg.Wait
}

// TestUpdatesLoseNothing changes names, addresses and the resolver under a
// flood of questions.
func TestUpdatesLoseNothing(t *testing.T) {
	ups := []netip.AddrPort{answering(t, "127.77.0.53"), answering(t, "127.77.0.54")}
	config := func(i int) Config {
		d := listening(shop())
		d.Hosts = append([]netplan.DNSHost{}, d.Hosts...)
		last := &d.Hosts[len(d.Hosts)-1]
		last.Addresses = addrs(fmt.Sprintf("127.1.2.%d", i%250))
		d.Hosts = append(d.Hosts, netplan.DNSHost{Cluster: "lan", Name: fmt.Sprintf("s%d", i), Addresses: addrs("127.1.3.1")})
		return Config{DNS: d, Upstream: ups[i%2 : i%2+1]}
	}
	const updates = 100
	for name, change := range map[string]func(s *started, i int){
		"updates": func(s *started, i int) {
			if err := s.keeper.Update(t.Context(), config(i)); err != nil {
				t.Fatal(err)
			}
			r := s.ask(t, "udp", "only.")
			if want := fmt.Sprintf("127.1.2.%d", i%250); len(r.Answer) != 1 || r.Answer[0].(*dns.A).A.String() != want {
				t.Errorf("update %d: %v", i, r)
			}
		},
		"adoptions": func(s *started, i int) { s.adopt(t, config(i)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, shop(), ups[0])
			stop := make(chan struct{})
			asked, wait := s.flood(t, stop)
			for i := range updates {
				// Some questions meet every configuration.
				for n := asked.Load(); asked.Load() < n+8 && !t.Failed(); {
					time.Sleep(time.Millisecond)
				}
				change(s, i)
			}
			close(stop)
			wait()
			t.Logf("%d questions", asked.Load())
		})
	}
}

func TestAFailedUpdateKeepsTheUpstream(t *testing.T) {
	up := answering(t, "127.77.0.53")
	s := start(t, shop(), up)
	if err := s.keeper.Update(t.Context(), Config{}); err == nil {
		t.Fatal("a configuration without addresses was taken")
	}
	s.keeper.mu.Lock()
	waiting := len(s.keeper.waiting)
	s.keeper.mu.Unlock()
	if !s.keeper.mayOpen("udp", up) || waiting > 0 {
		t.Errorf("the resolver in use is refused, or %d updates wait", waiting)
	}
}

func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestReconnectsLeakNothing(t *testing.T) {
	ups := []netip.AddrPort{answering(t, "127.77.0.53"), answering(t, "127.77.0.54")}
	s := start(t, shop(), ups[0])
	cycle := func(i int) {
		a := s.adopt(t, Config{DNS: listening(shop()), Upstream: ups[i%2 : i%2+1]})
		if i%10 == 0 {
			if r := s.ask(t, "udp", "a.example.org."); len(r.Answer) != 1 {
				t.Errorf("reconnect %d: %v", i, r)
			}
		}
		if i%3 > 0 { // otherwise the next one takes over from it
			a.cancel()
			within(t, a.end, "the keeper")
		}
	}
	cycle(0)
	settled := func(files, goroutines int) bool {
		for range 500 {
			if descriptors(t) <= files && runtime.NumGoroutine() <= goroutines {
				return true
			}
			time.Sleep(10 * time.Millisecond)
		}
		return false
	}
	time.Sleep(200 * time.Millisecond) // what the first one leaves ends
	files, goroutines := descriptors(t), runtime.NumGoroutine()
	for i := range 1000 {
		cycle(i)
	}
	cycle(0)
	if !settled(files, goroutines) {
		t.Errorf("%d descriptors and %d goroutines were %d and %d before", descriptors(t), runtime.NumGoroutine(), files, goroutines)
	}
}

func TestReceiveClosesWhatNobodyTakes(t *testing.T) {
	ours, theirs, err := Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPipe(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	q, err := newPipe(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer q.close()
	before := descriptors(t) // an earlier test's may still close
	for range 50 {
		rights := unix.UnixRights(0, 1, 2)
		if _, _, err := q.conn.WriteMsgUnix(frame(`{"type":"config"}`), rights, nil); err != nil {
			t.Fatal(err)
		}
		if m, err := p.receive(); err != nil || m.file != nil {
			t.Fatal(m, err)
		}
	}
	if n := descriptors(t); n > before {
		t.Errorf("%d descriptors were %d before", n, before)
	}
	// More in one message than any message has.
	begin := frame(strings.Repeat(" ", 100))
	for _, b := range begin {
		if _, _, err := q.conn.WriteMsgUnix([]byte{b}, unix.UnixRights(0, 1), nil); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := p.receive(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("got %v, %v", m, err)
	}
	if n := descriptors(t); n > before {
		t.Errorf("%d descriptors were %d before", n, before)
	}
}

// TestLateConfiguration takes what a keeper had sent before it was replaced.
func TestLateConfiguration(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := &backbone{port: freePort(t, "127.77.0.1"), logf: t.Logf, upstream: newUpstream(), listeners: map[netip.Addr]*listener{}}
	b.server = newServer(ctx, b.upstream, t.Logf)
	moving := newRelays(ctx, &b.server.tasks)
	b.ports = newPorts(&b.shelf, t.Logf, moving)
	b.divert = newDivert(ctx, t.Logf, &b.server.tasks, b.server.names, moving)
	defer b.server.tasks.Wait()
	defer b.close()
	defer cancel()
	var sessions []*session
	for range 2 {
		ours, theirs, err := Socketpair()
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		p, err := newPipe(ours)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		sessions = append(sessions, newSession(p, new(shelf), nil))
	}
	b.keeper = sessions[0]
	config := &message{Type: msgConfig, Version: protocol, Config: []byte(`{"dns": {"listen": ["127.77.0.1"]}}`)}
	for _, from := range []int{0, 1, 0} {
		if err := b.take(ctx, delivery{from: sessions[from], config: config}); err != nil {
			t.Fatal(err)
		}
	}
	if b.keeper != sessions[1] || sessions[1].dismissed {
		t.Error("the earlier keeper is back")
	}
	if err := b.take(ctx, delivery{from: sessions[0], err: io.EOF}); err != nil || len(b.listeners) != 1 {
		t.Errorf("the end of the earlier keeper: %v", err)
	}
}

// TestALateSpareSocket puts one by after its resolver has gone.
func TestALateSpareSocket(t *testing.T) {
	r := &resolver{spare: make(chan net.Conn, 1)}
	r.retire()
	ours, theirs := net.Pipe()
	r.keep(ours)
	_ = theirs.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF || len(r.spare) > 0 {
		t.Errorf("it is still open: %v", err)
	}
}
