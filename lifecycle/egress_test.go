package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"platelayer/backbone"
	"platelayer/netplan"
	"platelayer/topology"
)

func policyOf(t *testing.T, text string) egressRules {
	t.Helper()
	top, err := topology.Load("/x/platelayer.yaml", []byte(text), topology.Options{})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := netplan.Build(top)
	if err != nil {
		t.Fatal(err)
	}
	return newPolicy(top, plan)
}

func TestPolicy(t *testing.T) {
	p := policyOf(t, `
name: x
clusters:
  open:
    subnet: 10.1.0.0/24
    stations: {a: {address: 10.1.0.5, loopback: [10.9.0.1], interfaces: [{cluster: shut, address: 10.2.0.5}]}}
  shut:
    subnet: 10.2.0.0/24
    egress: none
    stations: {b: {address: 10.2.0.6}, c: {address: 10.2.0.7, egress: allow}}
  some:
    subnet: 10.3.0.0/24
    egress: [registry.example:443, 198.51.100.0/24, "192.168.7.7:5432", other.example]
    stations: {d: {address: 10.3.0.6}}
backbone:
  routes: [{to: 203.0.113.0/24, via: 10.1.0.5}]
`)
	local := func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.168.7.7")} }
	for _, c := range []struct {
		from, to string
		names    []string
		want     string
	}{
		{"10.1.0.5", "198.51.100.7:443", nil, ""},
		{"10.9.0.1", "198.51.100.7:443", nil, ""},
		{"10.2.0.5", "198.51.100.7:443", nil, ""}, // the same station
		{"10.1.0.99", "198.51.100.7:443", nil, ""},
		{"10.2.0.99", "198.51.100.7:443", nil, "egress is none"},
		{"10.99.0.1", "198.51.100.7:443", nil, "egress is none"},
		{"10.1.0.5", "192.168.7.7:22", nil, "it is the machine's own"},
		{"10.1.0.5", "169.254.169.254:80", nil, "it is the machine's own"},
		{"10.1.0.5", "127.0.0.1:80", nil, "it is not outside"},
		{"10.1.0.5", "10.2.0.6:80", nil, "it is not outside"},
		{"10.1.0.5", "203.0.113.9:80", nil, "it is not outside"},
		{"10.2.0.6", "198.51.100.7:443", nil, "egress is none"},
		{"10.2.0.7", "198.51.100.7:443", nil, ""},
		{"10.3.0.6", "198.51.100.7:80", nil, ""},
		{"10.3.0.6", "198.51.101.7:443", nil, "egress does not list it"},
		{"10.3.0.6", "198.51.101.7:443", []string{"a.example", "registry.example"}, ""},
		{"10.3.0.6", "198.51.101.7:80", []string{"registry.example"}, "egress does not list it"},
		{"10.3.0.6", "198.51.101.7:80", []string{"other.example"}, ""},
		{"10.3.0.6", "192.168.7.7:5432", nil, ""}, // said by address
		{"10.3.0.6", "192.168.7.7:22", []string{"other.example"}, "it is the machine's own"},
		{"10.3.0.6", "169.254.169.254:80", []string{"other.example"}, "it is the machine's own"},
		{"10.3.0.6", "10.2.0.6:80", []string{"other.example"}, "it is not outside"},
	} {
		s := p.who(netip.MustParseAddr(c.from))
		if got := p.refuses(s, netip.MustParseAddrPort(c.to), c.names, local); got != c.want {
			t.Errorf("%s (%s) to %s %v: %q, want %q", c.from, s.name, c.to, c.names, got, c.want)
		}
	}
	outside, listed := p.askers()
	for text, want := range map[string]bool{"10.1.0.0/24": true, "10.1.0.5/32": true, "10.2.0.0/24": false, "10.2.0.6/32": false, "10.2.0.7/32": true, "10.3.0.0/24": true} {
		if got, ok := outside[netip.MustParsePrefix(text)]; got != want || !ok {
			t.Errorf("%s gets answers: %t", text, got)
		}
	}
	if got := fmt.Sprint(listed); got != "[other.example registry.example]" {
		t.Errorf("listed is %s", got)
	}
}

// TestCrowdedStation has one station wait for what never answers: others go on,
// and it hears so at once.
func TestCrowdedStation(t *testing.T) {
	g := &guard{waiting: map[string]int{"open/a": maxEgress}, leaks: openLeaks(filepath.Join(t.TempDir(), "leaks.json"))}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := netip.MustParseAddrPort(l.Addr().String())
	listed := topology.Destinations("127.0.0.1")
	g.set(egressRules{sources: map[netip.Addr]source{
		netip.MustParseAddr("10.1.0.5"): {"open/a", "", "127.0.0.1", listed}, netip.MustParseAddr("10.1.0.6"): {"open/b", "", "127.0.0.1", listed}}})
	if _, err := g.open(context.Background(), "tcp", netip.MustParseAddrPort("10.1.0.5:1"), to, nil); err == nil {
		t.Error("a crowded station gets another connection")
	}
	f, err := g.open(context.Background(), "tcp", netip.MustParseAddrPort("10.1.0.6:1"), to, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if g.waiting["open/a"] != maxEgress || len(g.waiting) != 1 {
		t.Errorf("waiting are %v", g.waiting)
	}
}

func TestLeaksAreBoundedAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leaks.json")
	b := openLeaks(path)
	tried := func(i int) Leak {
		return Leak{Station: "lan/a", Protocol: "tcp", Address: netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), Port: 443, Outcome: LeakRefused}
	}
	for i := range 3 * maxLeaks {
		b.add(tried(i), 1)
	}
	b.add(tried(0), 2)
	b.add(Leak{Station: "lan/b", Protocol: "dns", Name: "real.example", Outcome: LeakRefused}, 1)
	var all []Leak
	for deadline := time.Now().Add(20 * time.Second); len(all) == 0; time.Sleep(time.Millisecond) {
		var err error
		if all, err = readLeaks(path); err != nil || time.Now().After(deadline) {
			t.Fatal(err, "; no file")
		}
	}
	sums := map[string]int{}
	for _, l := range all {
		sums[l.Station] += l.Count
	}
	if len(all) != maxLeaks+2 || sums["lan/a"] != 3*maxLeaks+2 || sums["lan/b"] != 1 {
		t.Errorf("%d records of %v", len(all), sums)
	}
	again := openLeaks(path)
	again.add(tried(0), 1)
	if l := again.all[tried(0)]; l == nil || l.Count != 4 || len(again.all) != len(all) {
		t.Errorf("the next keeper counts on with %v", l)
	}
}

// TestAskedNamesTheStation: what the backbone tells of is told by station.
func TestAskedNamesTheStation(t *testing.T) {
	g := &guard{leaks: openLeaks(filepath.Join(t.TempDir(), "leaks.json"))}
	g.set(egressRules{sources: map[netip.Addr]source{netip.MustParseAddr("10.1.0.5"): {"open/a", "", topology.EgressNone, nil}}})
	g.asked([]backbone.Asked{{From: netip.MustParseAddr("10.1.0.5"), Name: "real.example", Count: 3}})
	var got []string
	for _, l := range g.leaks.all {
		got = append(got, fmt.Sprint(l.Station, " ", l.Name, " ", l.Count, " ", l.Outcome))
	}
	if !slices.Equal(got, []string{"open/a real.example 3 refused"}) {
		t.Errorf("it tells %q", got)
	}
	if _, err := g.open(context.Background(), "icmp", netip.AddrPort{}, netip.AddrPort{}, nil); err == nil || errors.Is(err, context.Canceled) {
		t.Error("what is no destination is opened")
	}
}
