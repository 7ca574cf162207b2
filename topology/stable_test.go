package topology

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// places lists every address of a topology under its holder's name.
func places(top *Topology) map[string]string {
	out := map[string]string{}
	for _, c := range top.Clusters {
		out[c.Name] = fmt.Sprint(c.Subnets)
		out[c.Name+" backbone"] = fmt.Sprint(c.BackboneAddresses)
		for _, s := range c.Stations {
			out[s.ID()] = fmt.Sprint(s.Addresses)
			for _, i := range s.Interfaces {
				out[s.ID()+" in "+i.Cluster] = fmt.Sprint(i.Addresses)
			}
		}
	}
	return out
}

func moved(before, after map[string]string) (names []string) {
	for name, at := range before {
		if after[name] != at {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// clustersOf makes a file of clusters c<n> with stations s<n>.
func clustersOf(clusters, stations []string) string {
	var b strings.Builder
	b.WriteString("clusters:\n")
	for _, c := range clusters {
		fmt.Fprintf(&b, "  %s:\n    stations:\n", c)
		for _, s := range stations {
			fmt.Fprintf(&b, "      %s:\n", s)
		}
	}
	return b.String()
}

func numbered(prefix string, n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("%s%d", prefix, i))
	}
	return out
}

func TestAppendingMovesNobody(t *testing.T) {
	clusters, stations := numbered("c", 60), numbered("s", 150)
	before := places(mustLoad(t, clustersOf(clusters[:50], stations[:100])))
	after := places(mustLoad(t, clustersOf(clusters, stations)))
	if m := moved(before, after); len(m) > 0 {
		t.Errorf("moved: %v", m)
	}
}

// TestInsertingMovesOnlyOnCollision puts each of 50 stations first in turn.
// With 20 others in 4,092 places a collision is possible, but rare.
func TestInsertingMovesOnlyOnCollision(t *testing.T) {
	stations := numbered("s", 20)
	before := places(mustLoad(t, clustersOf([]string{"lan"}, stations)))
	total := 0
	for _, name := range numbered("new", 50) {
		after := places(mustLoad(t, clustersOf([]string{"other-" + name, "lan"}, append([]string{name}, stations...))))
		total += len(moved(before, after))
	}
	if total > 2 {
		t.Errorf("%d stations moved in 50 insertions", total)
	}
}

func TestAutomaticAddressesAreForEver(t *testing.T) {
	top := mustLoad(t, "clusters: {web: {stations: {www1: , www2: }}, db: {subnet: 'fd20::/64', stations: {pg: }}}")
	got := places(top)
	for name, want := range map[string]string{
		"web": "[10.96.144.0/20]", "web backbone": "[10.96.144.1]", "web/www1": "[10.96.152.234]",
		"web/www2": "[10.96.155.13]", "db backbone": "[fd20::1]", "db/pg": "[fd20::2c8:4e91]",
	} {
		if got[name] != want {
			t.Errorf("%s has %s, not %s: every user's topology would move", name, got[name], want)
		}
	}
}

func TestCopyHasTheSameAddresses(t *testing.T) {
	file := clustersOf([]string{"a", "b"}, []string{"x", "y"})
	opt := testOptions()
	opt.Name = "copy"
	copied, err := Load("f.yaml", []byte(file), opt)
	if err != nil {
		t.Fatal(err)
	}
	if m := moved(places(mustLoad(t, file)), places(copied)); len(m) > 0 {
		t.Errorf("moved: %v", m)
	}
	if copied.Clusters[0].Domain != "a.copy.internal" {
		t.Errorf("domain %s", copied.Clusters[0].Domain)
	}
}

// TestBackboneAddress: the first free address as the gateway, otherwise the
// last, whatever automatic stations there are.
func TestBackboneAddress(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"subnet: 10.20.0.0/24, stations: {a: }", "[10.20.0.1]"},
		{"subnet: 10.20.0.0/24, stations: {a: {address: 10.20.0.1}, b: {address: 10.20.0.2}}", "[10.20.0.3]"},
		{"subnet: 10.20.0.0/24, gateway: a, stations: {a: }", "[10.20.0.254]"},
		{"subnet: 10.20.0.0/24, gateway: a, stations: {a: {address: 10.20.0.254}}", "[10.20.0.253]"},
		{"subnet: 10.20.0.0/24, backbone_address: 10.20.0.9, stations: {a: }", "[10.20.0.9]"},
		{"subnets: [10.20.0.0/24, 'fd20::/64'], backbone_address: 10.20.0.9, stations: {a: }", "[10.20.0.9 fd20::1]"},
		{"subnet: 10.20.0.0/31, stations: {a: }", "[10.20.0.0]"},
		{"subnet: 10.20.0.0/31, gateway: a, stations: {a: }", "[10.20.0.1]"},
		{"subnet: 'fd20::/127', stations: {a: }", "[fd20::]"},
		{"subnet: 'fd20::/64', gateway: a, stations: {a: }", "[fd20::ffff:ffff:ffff:ffff]"},
	} {
		top := mustLoad(t, "clusters: {lan: {"+c.file+"}}")
		if got := fmt.Sprint(top.Clusters[0].BackboneAddresses); got != c.want {
			t.Errorf("%s: %s, not %s", c.file, got, c.want)
		}
	}
}

// TestSmallSubnetsFillUp: every usable address is given before one is
// missing.
func TestSmallSubnetsFillUp(t *testing.T) {
	for bits, room := range map[int]int{24: 253, 28: 13, 29: 5, 30: 1, 31: 1} {
		file := func(n int) string {
			return fmt.Sprintf("clusters: {lan: {subnet: 10.20.0.0/%d, stations: {%s: }}}", bits, strings.Join(numbered("s", n), ": , "))
		}
		sameAfterYAML(t, mustLoad(t, file(room)))
		if _, err := Load("f.yaml", []byte(file(room+1)), testOptions()); err == nil {
			t.Errorf("/%d takes %d stations", bits, room+1)
		}
	}
}

func TestAutomaticSubnetAvoidsOthers(t *testing.T) {
	own := mustLoad(t, "clusters: {web: {stations: {a: }}}").Clusters[0].Subnets[0]
	top := mustLoad(t, fmt.Sprintf("clusters: {web: {stations: {a: }}, x: {subnet: %s}}", own))
	if got := top.Clusters[0].Subnets[0]; got.Overlaps(own) {
		t.Errorf("automatic %s overlaps explicit %s", got, own)
	}
}

// TestManyStations guards against work that grows with the square.
func TestManyStations(t *testing.T) {
	top := mustLoad(t, clustersOf(numbered("c", 500), numbered("s", 20)))
	sameAfterYAML(t, top)
}
