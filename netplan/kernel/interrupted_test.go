package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"platelayer/topology"
)

// TestConvergeSendsNothing where nothing differs.
func TestConvergeSendsNothing(t *testing.T) {
	l := up(t, "same")
	for range 2 {
		l.extend()
		if sent := l.converge(l.plan.NetNSNames()...); sent != 0 {
			t.Errorf("%d requests for what is there", sent)
		}
		if err := Prune(l.plan, l.options); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := converge(context.Background(), nil, l.plan, l.options, []string{"nobody"}); err == nil {
		t.Error("converged a namespace that the plan does not have")
	}
}

// TestRepair breaks a running topology in the ways in which killed runs and
// the stations' own programs do, and repairs it.
func TestRepair(t *testing.T) {
	l := up(t, "repair")
	iproute := func(node string, args ...string) func(t *testing.T) {
		return func(t *testing.T) {
			out, err := exec.Command("ip", append([]string{"-n", l.plan.Topology + "." + node}, args...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("ip %v in %s: %v: %s", args, node, err, out)
			}
		}
	}
	pin := func(node string) string { return filepath.Join(l.options.PinDir, l.plan.Topology+"."+node) }
	name := func(node string) string { return filepath.Join(l.options.NetNSDir, l.plan.Topology+"."+node) }
	unmount := func(node string) func(t *testing.T) {
		return func(t *testing.T) {
			if err := unix.Unmount(pin(node), unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(path string) func(t *testing.T) {
		return func(t *testing.T) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	port := func(node string) string {
		for _, n := range l.plan.Nodes {
			if n.NetNS == l.plan.Topology+"."+node {
				return n.Interfaces[0].Peer
			}
		}
		return ""
	}
	held := func(t *testing.T) { // a process lives in the namespace whose pin goes
		f, err := os.Open(pin("plain.c"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
	}
	type steps []func(t *testing.T)
	for what, break_ := range map[string]steps{
		"pin gone":                 {unmount("plain.c"), remove(pin("plain.c"))},
		"pin and name gone":        {unmount("plain.c"), remove(pin("plain.c")), remove(name("plain.c"))},
		"pin half made":            {unmount("plain.c")},
		"pin gone, namespace held": {held, unmount("plain.c"), remove(pin("plain.c"))},
		"name gone":                {remove(name("plain.c"))},
		"fabric gone":              {unmount("fabric"), remove(pin("fabric"))},
		"all gone":                 {func(t *testing.T) { _ = Remove(l.options) }},
		"port gone":                {iproute("fabric", "link", "delete", port("plain.c"))},
		"port down":                {iproute("fabric", "link", "set", port("plain.c"), "down")},
		"port in no bridge":        {iproute("fabric", "link", "set", port("plain.c"), "nomaster")},
		"port in another bridge":   {iproute("fabric", "link", "set", port("plain.c"), "master", "br-app")},
		"stray port":               {iproute("fabric", "link", "add", "stray", "type", "veth", "peer", "stray2")},
		"stray bridge":             {iproute("fabric", "link", "add", "stray", "type", "bridge")},
		"bridge gone":              {iproute("fabric", "link", "delete", "br-plain")},
		"bridge changed":           {iproute("fabric", "link", "set", "br-plain", "type", "bridge", "stp_state", "1"), iproute("fabric", "link", "set", "br-plain", "address", "02:00:00:00:00:77", "mtu", "1000")},
		"bridge down":              {iproute("fabric", "link", "set", "br-plain", "down")},
		"eth0 gone":                {iproute("web.a", "link", "delete", "eth0")},
		"eth0 another":             {iproute("web.a", "link", "delete", "eth0"), iproute("web.a", "link", "add", "eth0", "type", "bridge")},
		"eth0 down":                {iproute("web.a", "link", "set", "eth0", "down")},
		"eth0's MAC":               {iproute("web.a", "link", "set", "eth0", "address", "02:00:00:00:00:66")},
		"eth0's MTU":               {iproute("web.a", "link", "set", "eth0", "mtu", "1000")},
		"lo down":                  {iproute("web.a", "link", "set", "lo", "down")},
		"addresses flushed":        {iproute("web.a", "address", "flush", "dev", "eth0")},
		"routes flushed":           {iproute("web.a", "route", "flush", "dev", "eth0")},
		"stray route":              {iproute("web.a", "route", "add", "198.51.100.0/24", "via", "203.0.113.99", "proto", "static")},
		"stray multipath route":    {iproute("web.a", "route", "add", "198.51.100.0/24", "proto", "static", "nexthop", "via", "203.0.113.99", "nexthop", "via", "203.0.113.98")},
		"stray blackhole":          {iproute("web.a", "route", "add", "blackhole", "198.51.100.0/24", "proto", "static")},
		"other default":            {iproute("web.a", "route", "replace", "default", "via", "203.0.113.99"), iproute("web.a", "-6", "route", "replace", "default", "via", "2001:db8:1::99")},
		"default with more":        {iproute("web.a", "route", "replace", "default", "via", "203.0.113.1", "mtu", "1300", "proto", "static")},
		"policy routes flushed":    {iproute("backbone", "route", "flush", "table", "1000"), iproute("web.gw", "route", "flush", "table", "1000")},
		"rules flushed":            {iproute("backbone", "rule", "delete", "priority", "1000"), iproute("backbone", "-6", "rule", "delete", "priority", "1001")},
		"stray rule":               {iproute("web.a", "rule", "add", "priority", "1007", "table", "1007"), iproute("web.a", "-6", "rule", "add", "priority", "1007", "from", "2001:db8:1::/64", "table", "1007")},
		"forwarding": {func(t *testing.T) {
			l.in("web.gw", func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0) })
		}},
		"IPv6 off": {func(t *testing.T) {
			l.in("app.b", func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0) })
		}},
	} {
		ok := t.Run(what, func(t *testing.T) {
			if _, err := exec.LookPath("ip"); err != nil {
				t.Skip("needs iproute2: ", err)
			}
			l.T = t
			for _, step := range break_ {
				step(t)
			}
			l.repair()
			l.wantFresh(sample)
			if sent := l.converge(l.plan.NetNSNames()...); sent != 0 {
				t.Errorf("%d requests after the repair", sent)
			}
		})
		l.T = t
		if !ok {
			return
		}
	}
}

// TestConvergeKeepsWhatIsNotOurs leaves alone what a station's programs made.
func TestConvergeKeepsWhatIsNotOurs(t *testing.T) {
	l := up(t, "foreign")
	for _, args := range [][]string{
		{"link", "add", "dummy0", "type", "bridge"},
		{"address", "add", "10.99.0.1/32", "dev", "lo"},
		{"address", "add", "203.0.113.97/32", "dev", "eth0"},
		{"address", "add", "203.0.113.99/24", "dev", "eth0"},
		{"address", "add", "2001:db8:1::99/64", "dev", "eth0", "nodad"},
		{"address", "add", "203.0.113.98/24", "dev", "eth0", "valid_lft", "1000", "preferred_lft", "1000"},
		{"route", "add", "198.51.100.0/24", "via", "203.0.113.1"},
		{"route", "add", "198.51.100.0/24", "via", "203.0.113.1", "proto", "bgp", "metric", "20"},
		{"rule", "add", "priority", "500", "table", "500"},
		{"rule", "add", "priority", "1500", "table", "7"},
	} {
		out, err := exec.Command("ip", append([]string{"-n", l.plan.Topology + ".web.a"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	if sent := l.converge(l.plan.NetNSNames()...); sent != 0 {
		t.Errorf("%d requests against what is not ours", sent)
	}
}

// TestUnmarkedAddressesGo: programs before this one did not mark the plan's
// addresses, which an edit takes away all the same.
func TestUnmarkedAddressesGo(t *testing.T) {
	l := up(t, "unmarked")
	for _, args := range [][]string{
		{"address", "delete", "10.30.0.11/24", "dev", "eth0"},
		{"address", "add", "10.30.0.11/24", "dev", "eth0"},
	} {
		if out, err := exec.Command("ip", append([]string{"-n", l.plan.Topology + ".plain.c"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	l.change(edited("address")(l.plan.Topology))
	l.wantFresh(edited("address"))
}

// TestOthersLoseNothing sends a packet each millisecond between stations that
// no change is about, on one bridge and across the backbone.
func TestOthersLoseNothing(t *testing.T) {
	l := up(t, "loss")
	name := l.plan.Topology
	one := l.stream("app.b", "10.20.0.12:7")
	l.serve("app.multi", "10.20.0.12:7")
	two := l.stream("app.b", "10.30.0.11:7")
	l.serve("plain.c", "10.30.0.11:7")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, s := range []*stream{one, two} {
		s.send(t, 0)
		s.wait(t, 1) // the neighbours know each other
		wg.Go(func() { s.run(stop) })
	}
	edits := []func(top *topology.Topology){
		func(top *topology.Topology) {
			top.Clusters[1].Stations = append(top.Clusters[1].Stations, topology.Station{Name: "d", Cluster: "app", Addresses: addrs("10.20.0.13")})
		},
		func(top *topology.Topology) {
			top.Clusters = append(top.Clusters, topology.Cluster{Name: "new", Domain: "new.test", MTU: 1500,
				Subnets: prefixes("10.40.0.0/24"), BackboneAddresses: addrs("10.40.0.1"),
				Stations: []topology.Station{{Name: "n", Cluster: "new", Addresses: addrs("10.40.0.11")}}})
		},
		func(top *topology.Topology) { top.Clusters[0].Gateway = "a" },
		func(top *topology.Topology) { top.Clusters[0].Stations[1].Addresses = addrs("203.0.113.99") },
		func(top *topology.Topology) { top.Clusters[0].MTU = 1300 },
		func(top *topology.Topology) {},
	}
	for range 3 {
		for _, edit := range edits {
			top := sample(name)
			edit(top)
			l.change(top)
		}
	}
	close(stop)
	wg.Wait()
	for _, s := range []*stream{one, two} {
		s.wait(t, s.sent)
		t.Logf("%d packets, each answered", s.sent)
	}
}

// stream is numbered packets and their answers.
type stream struct {
	c    net.Conn
	sent int

	mu       sync.Mutex
	answered map[uint32]bool
}

func (l *lab) stream(node, addr string) *stream {
	l.Helper()
	s := &stream{answered: map[uint32]bool{}}
	l.in(node, func() error {
		c, err := net.Dial("udp", addr)
		s.c = c
		return err
	})
	l.Cleanup(func() { s.c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, err := s.c.Read(buf)
			if err != nil && n == 0 {
				if _, refused := err.(*net.OpError); refused && !isClosed(err) {
					continue // nobody serves yet
				}
				return
			}
			if n >= 4 {
				s.mu.Lock()
				s.answered[binary.BigEndian.Uint32(buf[n-4:n])] = true
				s.mu.Unlock()
			}
		}
	}()
	return s
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }

func (s *stream) send(t *testing.T, number uint32) {
	t.Helper()
	if _, err := s.c.Write(binary.BigEndian.AppendUint32(nil, number)); err != nil {
		t.Fatal(err)
	}
	s.sent++
}

func (s *stream) run(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
		_, _ = s.c.Write(binary.BigEndian.AppendUint32(nil, uint32(s.sent))) // a failed one misses its answer
		s.sent++
	}
}

// wait returns once n packets have been answered.
func (s *stream) wait(t *testing.T, n int) {
	t.Helper()
	got := 0
	for range 500 {
		s.mu.Lock()
		got = len(s.answered)
		s.mu.Unlock()
		if got == n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d of %d packets were answered", got, n)
}

// TestNeighboursLearn moves an address to a station of another MAC: who talked
// to it goes on.
func TestNeighboursLearn(t *testing.T) {
	l := up(t, "learn")
	ask := func() {
		t.Helper()
		for _, addr := range []string{"10.20.0.11:7", "[fd00:20::11]:7"} {
			var err error
			// Less than what a neighbour's entry lasts without an answer: 8 s.
			for range 5 {
				if _, err = l.ask("app.multi", addr, 0); err == nil {
					break
				}
			}
			if err != nil {
				t.Errorf("asked %s: %v", addr, err)
			}
		}
	}
	l.serve("app.b", "10.20.0.11:7")
	l.serve("app.b", "[fd00:20::11]:7")
	ask()
	top := sample(l.plan.Topology)
	top.Clusters[1].Stations[0].Name = "d"
	l.change(top)
	l.serve("app.d", "10.20.0.11:7")
	l.serve("app.d", "[fd00:20::11]:7")
	ask()
	top.Clusters[1].Stations[0].Addresses = addrs("10.20.0.99")
	top.Clusters[1].Stations = append(top.Clusters[1].Stations, topology.Station{Name: "e", Cluster: "app", Addresses: addrs("10.20.0.98", "fd00:20::98")})
	l.change(top)
	top.Clusters[1].Stations[2].Addresses = addrs("10.20.0.11", "fd00:20::11")
	l.change(top)
	l.serve("app.e", "10.20.0.11:7")
	l.serve("app.e", "[fd00:20::11]:7")
	ask()
}

func TestDial(t *testing.T) {
	l := up(t, "dial")
	l.in("app.b", func() error {
		for network, address := range map[string]string{"unix": "@platelayer-test", "tcp": "10.20.0.11:7"} {
			listener, err := net.Listen(network, address)
			if err != nil {
				return err
			}
			t.Cleanup(func() { listener.Close() })
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					_, _ = c.Write([]byte("hello"))
					c.Close()
				}
			}()
		}
		return nil
	})
	b := l.plan.Topology + ".app.b"
	for network, address := range map[string]string{"unix": "@platelayer-test", "tcp": "10.20.0.11:7"} {
		f, err := Dial(l.options, b, network, address)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(c)
		if err != nil || string(raw) != "hello" {
			t.Errorf("%s said %q, %v", address, raw, err)
		}
		c.Close()
	}
	if _, err := Dial(l.options, l.plan.Topology+".plain.c", "unix", "@platelayer-test"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the other namespace said %v", err)
	}
	for network, address := range map[string]string{"unix": "/run/x", "tcp": "localhost:7"} {
		if _, err := Dial(l.options, b, network, address); err == nil {
			t.Errorf("connected to %s", address)
		}
	}
	if _, err := Dial(l.options, "nobody", "unix", "@x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no namespace: %v", err)
	}
}

// TestStationCannotPointAtOthersPorts gives a station's own veth the indexes
// of another station's: only the impostor goes.
func TestStationCannotPointAtOthersPorts(t *testing.T) {
	l := up(t, "impostor")
	ports := func() map[string]int32 {
		found := map[string]int32{}
		l.in("fabric", func() error {
			s, err := openSocket()
			if err != nil {
				return err
			}
			defer s.close()
			links, err := s.links()
			for _, p := range links {
				found[p.name] = p.index
			}
			return err
		})
		return found
	}
	var own, other string
	for _, n := range l.plan.Nodes {
		switch n.NetNS {
		case l.plan.Topology + ".web.a":
			own = n.Interfaces[0].Peer
		case l.plan.Topology + ".app.b":
			other = n.Interfaces[0].Peer
		}
	}
	before := ports()
	for _, args := range [][]string{
		{"link", "delete", "eth0"},
		{"link", "add", "fake", "index", strconv.Itoa(firstInside), "type", "veth", "peer", "name", "fake2", "index", strconv.Itoa(int(before[other]))},
	} {
		out, err := exec.Command("ip", append([]string{"-n", l.plan.Topology + ".web.a"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	l.repair()
	after := ports()
	delete(before, own)
	if after[own] == 0 {
		t.Error("the station has no port")
	}
	delete(after, own)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
}
