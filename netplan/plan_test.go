package netplan

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"platelayer/topology"
)

func TestGolden(t *testing.T) {
	update := os.Getenv("UPDATE_GOLDEN") != "" // rewrites them
	for name, top := range samples() {
		t.Run(name, func(t *testing.T) {
			p, err := Build(top)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".txt")
			if update {
				if err := os.WriteFile(file, []byte(p.Text()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err, "; UPDATE_GOLDEN=1 writes it")
			}
			if diff := cmp.Diff(string(want), p.Text()); diff != "" {
				t.Errorf("differs from %s (-want +got):\n%s", file, diff)
			}
		})
	}
}

func TestDeterministic(t *testing.T) {
	for name, top := range samples() {
		if a, b := encode(t, top), encode(t, samples()[name]); a != b {
			t.Errorf("%s: two plans differ: %s", name, cmp.Diff(a, b))
		}
	}
}

// TestCopiesDifferInNamespacesAlone: a copy under another name has the same
// MACs, ports and addresses.
func TestCopiesDifferInNamespacesAlone(t *testing.T) {
	one := samples()["gateway"]
	two := samples()["gateway"]
	two.Name = "another"
	if a, b := encode(t, one), strings.ReplaceAll(encode(t, two), "another", one.Name); a != b {
		t.Error(cmp.Diff(a, b))
	}
}

// TestGrowthMovesNobody: what a plan has stays the same when a cluster comes
// before the others.
func TestGrowthMovesNobody(t *testing.T) {
	old, err := Build(samples()["gateway"])
	if err != nil {
		t.Fatal(err)
	}
	top := samples()["gateway"]
	more := cluster("early", "10.77.0.0/24 10.77.0.1")
	more.Stations = []topology.Station{station("early", "x", "10.77.0.5")}
	top.Clusters = append([]topology.Cluster{more}, top.Clusters...)
	grown, err := Build(top)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range old.Nodes {
		for _, f := range n.Interfaces {
			if !has(grown, n.NetNS, f) {
				t.Errorf("%s: %s changed", n.NetNS, f.Name)
			}
		}
	}
}

func has(p *Plan, netns string, want Interface) bool {
	for _, n := range p.Nodes {
		for _, f := range n.Interfaces {
			if n.NetNS == netns && f.Name == want.Name {
				return f.MAC == want.MAC && f.Peer == want.Peer && f.PeerMAC == want.PeerMAC
			}
		}
	}
	return false
}

func TestNamesFitTheKernel(t *testing.T) {
	long := strings.Repeat("x", 61)
	top := &topology.Topology{Name: "big"}
	for i := range 40 {
		c := cluster(fmt.Sprintf("%s%02d", long, i), fmt.Sprintf("10.%d.0.0/16 10.%d.0.1", i, i))
		for j := range 100 {
			s := station(c.Name, fmt.Sprintf("%s%02d", long, j), fmt.Sprintf("10.%d.1.%d", i, j+1))
			c.Stations = append(c.Stations, s)
		}
		top.Clusters = append(top.Clusters, c)
	}
	top.Clusters = append(top.Clusters, cluster("all", "172.16.0.0/24 172.16.0.1"), cluster("lo", "172.16.1.0/24 172.16.1.1"))
	p, err := Build(top)
	if err != nil {
		t.Fatal(err)
	}
	valid := regexp.MustCompile(`^[a-z0-9_][a-z0-9_-]{0,14}$`)
	inFabric, macs := map[string]bool{}, map[string]bool{}
	once := func(what string, seen map[string]bool, s string) {
		if seen[s] {
			t.Errorf("%s %s twice", what, s)
		}
		seen[s] = true
	}
	for _, b := range p.Fabric.Bridges {
		once("fabric name", inFabric, b.Name)
		once("MAC", macs, b.MAC)
	}
	for _, n := range p.Nodes {
		inside := map[string]bool{"lo": true, "all": true, "default": true}
		for _, f := range n.Interfaces {
			once("interface", inside, f.Name)
			once("fabric name", inFabric, f.Peer)
			once("MAC", macs, f.MAC)
			once("MAC", macs, f.PeerMAC)
			if !valid.MatchString(f.Name) {
				t.Errorf("bad interface name %q", f.Name)
			}
		}
	}
	for name := range inFabric {
		if !valid.MatchString(name) {
			t.Errorf("bad name %q", name)
		}
	}
	for m := range macs {
		hw, err := net.ParseMAC(m)
		if err != nil || hw[0]&3 != 2 {
			t.Errorf("%s is not a local unicast MAC (%v)", m, err)
		}
	}
}

func TestRouteErrors(t *testing.T) {
	top := samples()["plain"]
	top.Clusters[0].Stations[0].Routes = []topology.Route{{To: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.250.0.1")}}
	if _, err := Build(top); err == nil || !strings.Contains(err.Error(), "web/www1") {
		t.Errorf("Build said %v", err)
	}
	top = samples()["plain"]
	top.Clusters[0].Gateway = "nobody"
	if _, err := Build(top); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("Build said %v", err)
	}
}

func TestDNS(t *testing.T) {
	p, err := Build(samples()["gateway"])
	if err != nil {
		t.Fatal(err)
	}
	want := []DNSHost{
		{Cluster: "web", Station: "web/lb", Name: "lb", FQDN: "lb.shop.example", Aliases: []string{"www.shop.example"}, Addresses: ips("203.0.113.1 2001:db8:1::1")},
		{Cluster: "backend", Station: "web/lb", Name: "lb", FQDN: "lb.backend.test", Addresses: ips("10.20.0.2")},
		{Cluster: "web", Station: "web/www1", Name: "www1", FQDN: "www1.shop.example", Addresses: ips("203.0.113.11 2001:db8:1::11")},
		{Cluster: "backend", Station: "backend/db", Name: "db", FQDN: "db.backend.test", Addresses: ips("10.20.0.10 fd00:20::10")},
	}
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(want, p.DNS.Hosts, same); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(ips("203.0.113.254 2001:db8:1::fe 10.20.0.1 fd00:20::1"), p.DNS.Listen, same); diff != "" {
		t.Error(diff)
	}
}

func encode(t *testing.T, top *topology.Topology) string {
	t.Helper()
	p, err := Build(top)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw) + p.Text()
}
