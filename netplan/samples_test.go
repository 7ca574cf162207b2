package netplan

import (
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"platelayer/topology"
)

// samples are the topologies of the golden files, made anew by each call.
func samples() map[string]*topology.Topology {
	plain := cluster("web", "10.1.0.0/24 10.1.0.1")
	plain.Stations = []topology.Station{station("web", "www1", "10.1.0.11"), station("web", "www2", "10.1.0.12")}

	six := cluster("web", "2001:db8::/64 2001:db8::1")
	six.MTU = 9000
	six.Stations = []topology.Station{station("web", "www1", "2001:db8::11")}

	lb := station("web", "lb", "203.0.113.1 2001:db8:1::1")
	lb.Aliases = []string{"www.shop.example"}
	lb.Interfaces = []topology.Interface{{Cluster: "backend", Addresses: ips("10.20.0.2")}}
	www := station("web", "www1", "203.0.113.11 2001:db8:1::11")
	www.Routes = []topology.Route{{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("203.0.113.77")}}
	web := cluster("web", "203.0.113.0/24 203.0.113.254", "2001:db8:1::/64 2001:db8:1::fe")
	web.Domain, web.Gateway = "shop.example", "lb"
	web.Stations = []topology.Station{lb, www}
	backend := cluster("backend", "10.20.0.0/24 10.20.0.1", "fd00:20::/64 fd00:20::1")
	backend.Stations = []topology.Station{station("backend", "db", "10.20.0.10 fd00:20::10")}

	multi := station("one", "multi", "10.1.0.5")
	multi.Interfaces = []topology.Interface{{Cluster: "two", Addresses: ips("10.2.0.5")}}
	multi.Routes = []topology.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.2.0.1")}}
	one := cluster("one", "10.1.0.0/24 10.1.0.1")
	one.Stations = []topology.Station{multi}

	longName := strings.Repeat("a-very-long-name-", 4)[:63]
	long := cluster(longName, "10.1.0.0/24 10.1.0.1")
	long.Stations = []topology.Station{station(longName, longName, "10.1.0.11")}

	fw := station("office", "fw", "10.40.0.1 fd40::1")
	spare := station("lab", "spare", "10.41.0.2")
	main := station("lab", "main", "10.41.0.1")
	desk := station("office", "desk", "10.40.0.10 10.40.0.77 fd40::10")
	desk.InterfaceName, desk.MAC, desk.Loopback = "lan0", "02:42:00:00:00:07", ips("10.255.0.1 fdff::1")
	desk.Routes = []topology.Route{{To: netip.MustParsePrefix("198.51.100.0/24"), Type: topology.RouteBlackhole},
		{To: netip.MustParsePrefix("10.41.0.0/24"), Via: netip.MustParseAddr("10.98.0.1"), Metric: 50}}
	desk.Sysctls = []topology.Sysctl{{Name: "net.ipv4.ip_forward", Value: "1"}}
	office := topology.Cluster{Name: "office", MTU: 1500, Gateway: "fw", Stations: []topology.Station{fw, desk}, Isolated: true,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.40.0.0/24"), netip.MustParsePrefix("fd40::/64")},
		Transit: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/29"), netip.MustParsePrefix("fd99::/127")}}
	lab := cluster("lab", "10.41.0.0/24 10.41.0.254")
	lab.Gateway, lab.Standby = "main", []topology.Gateway{{Station: "spare", Metric: 100}}
	lab.Stations = []topology.Station{main, spare, station("lab", "x", "10.41.0.10")}
	edge := cluster("edge", "10.42.0.0/24 10.42.0.1")
	edge.Switch, edge.Attach = topology.SwitchHost, []string{"eth7", "tap0"}
	guest, trunk := station("edge", "guest", "10.42.0.10"), station("edge", "trunk", "10.42.0.11")
	guest.VLANs, trunk.VLANs = topology.VLANs{Untagged: 20}, topology.VLANs{Tagged: []int{20, 30}}
	trunk.Interfaces = []topology.Interface{{Cluster: "away", Addresses: ips("10.43.0.11"), VLANs: topology.VLANs{Tagged: []int{1}}}}
	edge.Stations = []topology.Station{guest, trunk, station("edge", "plain", "10.42.0.12")}
	bare := topology.Cluster{Name: "bare", MTU: 9000, Stations: []topology.Station{{Name: "l2", Cluster: "bare"}}}
	links := &topology.Topology{Name: "wires", Clusters: []topology.Cluster{office, lab, bare},
		Backbone: topology.Backbone{Routes: []topology.Route{{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("10.41.0.10")},
			{To: netip.MustParsePrefix("198.51.101.0/24"), Via: netip.MustParseAddr("10.40.0.10")}}},
		Links: []topology.Link{{MTU: 1400, Subnets: []netip.Prefix{netip.MustParsePrefix("10.98.0.0/31")}, Ends: [2]topology.LinkEnd{
			{Station: "office/desk", Name: "eth1", Addresses: ips("10.98.0.0")}, {Station: "lab/x", Name: "wan0", MAC: "02:42:00:00:00:08", Addresses: ips("10.98.0.1")}}}}}

	return map[string]*topology.Topology{
		"links":   links,
		"switch":  {Name: "vm", Clusters: []topology.Cluster{edge, cluster("away", "10.43.0.0/24 10.43.0.1")}},
		"plain":   {Name: "hello", Clusters: []topology.Cluster{plain}},
		"ipv6":    {Name: "six", Clusters: []topology.Cluster{six}},
		"gateway": {Name: "shop", Clusters: []topology.Cluster{web, backend}},
		"multi":   {Name: "multihomed", Clusters: []topology.Cluster{one, cluster("two", "10.2.0.0/24 10.2.0.1")}},
		"long":    {Name: "l", Clusters: []topology.Cluster{long}},
	}
}

// cluster takes each subnet with the backbone's address in it.
func cluster(name string, subnets ...string) topology.Cluster {
	c := topology.Cluster{Name: name, Domain: name + ".test", MTU: 1500}
	for _, s := range subnets {
		subnet, backbone, _ := strings.Cut(s, " ")
		c.Subnets = append(c.Subnets, netip.MustParsePrefix(subnet))
		c.BackboneAddresses = append(c.BackboneAddresses, netip.MustParseAddr(backbone))
	}
	return c
}

func station(cluster, name, addresses string) topology.Station {
	return topology.Station{Name: name, Cluster: cluster, Addresses: ips(addresses)}
}

func ips(list string) []netip.Addr {
	var as []netip.Addr
	for _, s := range strings.Fields(list) {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

// TestImports keeps the package pure: the standard library and topology.
func TestImports(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(path, "/")
			switch {
			case path == "platelayer/topology":
			case path == "os" || path == "syscall" || first == "platelayer" || strings.Contains(first, "."):
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
}
