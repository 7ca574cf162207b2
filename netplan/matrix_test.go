package netplan

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"platelayer/topology"
)

// TestMatrix compares who reaches whom in the samples, by which way and why
// not, with golden files.
func TestMatrix(t *testing.T) {
	for name, top := range samples() {
		t.Run(name, func(t *testing.T) {
			p, err := Build(top)
			if err != nil {
				t.Fatal(err)
			}
			n := NewNetwork(p)
			var w strings.Builder
			w.WriteString(n.Matrix().Text())
			for _, probe := range n.Probes() {
				r := n.Reach(probe.NetNS, probe.Target.Address)
				w.WriteString("\n" + probe.Name + " to " + probe.Target.Name + "\n" + r.Text())
			}
			file := filepath.Join("testdata", "reach-"+name+".txt")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(file, []byte(w.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err, "; UPDATE_GOLDEN=1 writes it")
			}
			if diff := cmp.Diff(string(want), w.String()); diff != "" {
				t.Errorf("differs from %s (-want +got):\n%s", file, diff)
			}
		})
	}
}

// TestFirstGateway: of a cluster's gateways the first is taken, and of routes
// to one place the one with the lowest metric, for IPv6 too, where Linux takes
// 0 for 1024.
func TestFirstGateway(t *testing.T) {
	lab := cluster("lab", "10.1.0.0/24 10.1.0.254", "fd01::/64 fd01::fe")
	lab.Gateway, lab.Standby = "main", []topology.Gateway{{Station: "spare", Metric: 100}}
	desk := station("lab", "desk", "10.1.0.10 fd01::10")
	for _, r := range []topology.Route{{Metric: 50, Via: netip.MustParseAddr("fd01::2")}, {Via: netip.MustParseAddr("fd01::1")}} {
		r.To = netip.MustParsePrefix("fd03::/64")
		desk.Routes = append(desk.Routes, r)
	}
	lab.Stations = []topology.Station{station("lab", "main", "10.1.0.1 fd01::1"), station("lab", "spare", "10.1.0.2 fd01::2"), desk}
	far := cluster("far", "10.2.0.0/24 10.2.0.1", "fd02::/64 fd02::1", "fd03::/64 fd03::1")
	far.Stations = []topology.Station{station("far", "x", "10.2.0.10 fd02::10 fd03::10")}
	p, err := Build(&topology.Topology{Name: "t", Clusters: []topology.Cluster{lab, far}})
	if err != nil {
		t.Fatal(err)
	}
	n := NewNetwork(p)
	for _, to := range []string{"10.2.0.10", "fd02::10", "fd03::10"} {
		r := n.Reach("t.lab.desk", netip.MustParseAddr(to))
		if !r.OK() || r.There.Hops[1].Name != "lab/main" || r.Back.Hops[2].Name != "lab/main" {
			t.Errorf("%s", r.Text())
		}
	}
}
