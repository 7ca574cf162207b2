package kernel

import (
	"context"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"

	"platelayer/netplan"
	"platelayer/topology"
)

// linkedSample has a cluster behind an inline gateway, one with a link into it,
// and an isolated one.
func linkedSample(name string) *topology.Topology {
	top := &topology.Topology{Name: name, Clusters: []topology.Cluster{
		{Name: "office", Gateway: "fw", MTU: 1500, Subnets: prefixes("10.40.0.0/24", "fd40::/64"), Transit: prefixes("10.99.0.0/31", "fd99::/127"),
			Stations: []topology.Station{{Name: "fw", Cluster: "office", Addresses: addrs("10.40.0.1", "fd40::1")}, {Name: "desk", Cluster: "office", Addresses: addrs("10.40.0.10", "fd40::10")}}},
		{Name: "dc", MTU: 1500, Subnets: prefixes("10.41.0.0/24", "fd41::/64"), BackboneAddresses: addrs("10.41.0.1", "fd41::1"),
			Stations: []topology.Station{{Name: "srv", Cluster: "dc", Addresses: addrs("10.41.0.10", "fd41::10"),
				Routes: []topology.Route{{To: netip.MustParsePrefix("10.66.0.0/16"), Type: topology.RouteUnreachable}}}}},
		{Name: "apart", MTU: 1500, Isolated: true, Subnets: prefixes("10.42.0.0/24"), BackboneAddresses: addrs("10.42.0.1"),
			Stations: []topology.Station{{Name: "x", Cluster: "apart", Addresses: addrs("10.42.0.10")}}},
	}}
	top.Links = []topology.Link{linkOf(&top.Clusters[0].Stations[1], &top.Clusters[1].Stations[0], "10.98.0.0/31")}
	return top
}

// upWith applies a topology under a name of the test's own.
func upWith(t *testing.T, what string, top func(name string) *topology.Topology) *lab {
	t.Helper()
	needRoot(t)
	name := labName(what)
	p, err := netplan.Build(top(name))
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{T: t, plan: p, options: optionsFor(name)}
	t.Cleanup(func() {
		if err := Remove(l.options); err != nil {
			t.Error(err)
		}
	})
	if err := Apply(context.Background(), p, l.options); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestInlineGatewayAndLink: what leaves the cluster behind an inline gateway
// passes it and the backbone, both ways, and a link is a way of its own.
func TestInlineGatewayAndLink(t *testing.T) {
	l := upWith(t, "inline", linkedSample)
	l.serve("dc.srv", "[::]:7000")
	l.serve("office.desk", "[::]:7000")
	l.serve("apart.x", "[::]:7000")
	l.wantAnswer("office.desk", "10.41.0.10:7000", "10.40.0.10")
	l.wantAnswer("office.desk", "[fd41::10]:7000", "fd40::10")
	l.wantAnswer("dc.srv", "10.40.0.10:7000", "10.41.0.10")
	l.wantAnswer("dc.srv", "[fd40::10]:7000", "fd41::10")
	l.wantAnswer("backbone", "10.40.0.10:7000", "10.99.0.0")
	for ttl, reached := range map[int]bool{2: false, 3: true} {
		if _, err := l.ask("office.desk", "10.41.0.10:7000", ttl); (err == nil) != reached {
			t.Errorf("a packet of %d hops: %v", ttl, err)
		}
	}
	if got, err := l.ask("office.desk", "10.98.0.1:7000", 1); err != nil || got != "10.98.0.0 hello" {
		t.Errorf("over the link: %q, %v", got, err)
	}
	if _, err := l.ask("dc.srv", "10.66.0.1:7000", 0); err == nil {
		t.Error("reached an unreachable place")
	}
	for _, pair := range [][2]string{{"dc.srv", "10.42.0.10:7000"}, {"apart.x", "10.41.0.10:7000"}, {"apart.x", "10.40.0.10:7000"}} {
		if got, err := l.ask(pair[0], pair[1], 0); err == nil {
			t.Errorf("%s reached %s: %q", pair[0], pair[1], got)
		}
	}
	top := linkedSample(l.plan.Topology)
	top.Clusters[2].Isolated = false
	l.change(top)
	l.wantAnswer("apart.x", "10.40.0.10:7000", "10.42.0.10")
	if sent := l.converge(l.plan.NetNSNames()...); sent != 0 {
		t.Errorf("%d requests after the change", sent)
	}
}

// TestLinkWithAnotherEnd changes one end of a link: it is made anew, and both
// ends get back what they had.
func TestLinkWithAnotherEnd(t *testing.T) {
	l := upWith(t, "relinked", linkedSample)
	for what, edit := range map[string]func(k *topology.Link){
		"first renamed":  func(k *topology.Link) { k.Ends[0].Name = "wan" },
		"second renamed": func(k *topology.Link) { k.Ends[1].Name = "wan" },
		"first's MAC":    func(k *topology.Link) { k.Ends[0].MAC = "02:42:00:00:00:98" },
		"second's MAC":   func(k *topology.Link) { k.Ends[1].MAC = "02:42:00:00:00:99" },
		"address": func(k *topology.Link) {
			k.Ends[0].Addresses, k.Ends[1].Addresses = k.Ends[1].Addresses, k.Ends[0].Addresses
		},
		"MTU": func(k *topology.Link) { k.MTU = 9000 },
	} {
		t.Run(what, func(t *testing.T) {
			l.T = t
			top := func(name string) *topology.Topology {
				top := linkedSample(name)
				edit(&top.Links[0])
				return top
			}
			l.change(top(l.plan.Topology))
			l.wantFresh(top)
			l.change(linkedSample(l.plan.Topology))
			l.wantFresh(linkedSample)
		})
		l.T = t
	}
}

// TestLinkIsMendedFromOneEnd: a program of a station has deleted a link, which
// takes the other station's end along.
func TestLinkIsMendedFromOneEnd(t *testing.T) {
	l := upWith(t, "farend", linkedSample)
	for _, node := range []string{"office.desk", "dc.srv"} {
		netns := l.plan.Topology + "." + node
		if out, err := exec.Command("ip", "-n", netns, "link", "delete", "eth1").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		l.converge(netns)
		l.wantFresh(linkedSample)
	}
}

// TestRepairLinks breaks links and the filter in the ways in which killed runs
// and the stations' own programs do.
func TestRepairLinks(t *testing.T) {
	l := upWith(t, "relink", linkedSample)
	netns := func(node string) string { return l.plan.Topology + "." + node }
	ip := func(args ...string) []string { return append([]string{"ip"}, args...) }
	for what, commands := range map[string][][]string{
		"deleted":          {ip("-n", netns("office.desk"), "link", "delete", "eth1")},
		"down":             {ip("-n", netns("dc.srv"), "link", "set", "eth1", "down")},
		"renamed":          {ip("-n", netns("dc.srv"), "link", "set", "eth1", "down"), ip("-n", netns("dc.srv"), "link", "set", "eth1", "name", "other")},
		"another MAC":      {ip("-n", netns("dc.srv"), "link", "set", "eth1", "address", "02:00:00:00:00:99")},
		"another MTU":      {ip("-n", netns("office.desk"), "link", "set", "eth1", "mtu", "1400")},
		"to somebody else": {ip("-n", netns("office.desk"), "link", "delete", "eth1"), ip("-n", netns("office.desk"), "link", "add", "eth1", "type", "veth", "peer", "name", "eth9", "netns", netns("apart.x"))},
		"a stray one":      {ip("-n", netns("office.fw"), "link", "add", "stray", "type", "veth", "peer", "name", "stray", "netns", netns("apart.x"))},
		"a stand-in":       {ip("-n", netns("dc.srv"), "link", "delete", "eth1"), ip("-n", netns("dc.srv"), "link", "add", "eth1", "type", "veth", "peer", "name", "v1")},
		"transit gone":     {ip("-n", netns("office.fw"), "link", "delete", "transit")},
		"no address":       {ip("-n", netns("dc.srv"), "address", "flush", "dev", "eth1")},
		"route gone":       {ip("-n", netns("dc.srv"), "route", "delete", "unreachable", "10.66.0.0/16")},
		"filter gone":      {{"nsenter", "--net=" + filepath.Join(l.options.NetNSDir, netns("backbone")), "nft", "flush", "ruleset"}},
		"filter emptied":   {{"nsenter", "--net=" + filepath.Join(l.options.NetNSDir, netns("backbone")), "nft", "flush", "set", "inet", "platelayer", "apart"}},
	} {
		ok := t.Run(what, func(t *testing.T) {
			l.T = t
			for _, c := range commands {
				if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%q: %v: %s", c, err, out)
				}
			}
			l.repair()
			l.wantFresh(linkedSample)
			if sent := l.converge(l.plan.NetNSNames()...); sent != 0 {
				t.Errorf("%d requests after the repair", sent)
			}
		})
		if l.T = t; !ok {
			l.repair()
		}
	}
}
