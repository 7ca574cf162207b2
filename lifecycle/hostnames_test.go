package lifecycle

import (
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"platelayer/topology"
)

// TestHostsFile has two topologies come and go in a hosts file that has no
// newline at its end, at the same time too; what was there stays as it was.
func TestHostsFile(t *testing.T) {
	root := t.TempDir()
	l := NewLayout(root)
	path := filepath.Join(root, "hosts")
	const before = "127.0.0.1 localhost\n# mine # platelayer\n::1 localhost"
	if err := os.WriteFile(path, []byte(before), 0o640); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	topologyOf := func(name, domain, address string) *topology.Topology {
		return &topology.Topology{Name: name, Clusters: []topology.Cluster{{Domain: domain, Stations: []topology.Station{
			{Name: "www", Aliases: []string{"site", "www.shop.example"}, Addresses: []netip.Addr{netip.MustParseAddr(address)}},
		}}}}
	}
	a, b := topologyOf("a", "a.internal", "10.1.0.5"), topologyOf("b", "b.internal", "10.2.0.5")
	routes := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	o := outside{l}
	if _, err := o.name(a, routes, false); err != nil || read() != before {
		t.Fatalf("nobody asked: %v\n%s", err, read())
	}
	if _, err := o.name(a, routes, true); err != nil {
		t.Fatal(err)
	}
	notices, err := o.name(b, routes, true)
	if err != nil || len(notices) != 1 {
		t.Fatalf("notices %q, error %v", notices, err)
	}
	want := "10.2.0.5 www.b.internal site.b.internal # platelayer b\n" +
		"10.1.0.5 www.a.internal site.a.internal www.shop.example # platelayer a\n" + before
	if got := read(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if notices, err := o.name(b, nil, true); err != nil || len(notices) != 1 {
		t.Errorf("without a route: %q, %v", notices, err)
	}
	var all sync.WaitGroup
	for range 20 {
		for _, top := range []*topology.Topology{a, b} {
			all.Go(func() {
				if _, err := o.name(top, routes, true); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if err := o.unname("a"); err != nil {
		t.Fatal(err)
	}
	if err := o.unname("b"); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != before {
		t.Errorf("afterwards it is\n%s", got)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o640 {
		t.Errorf("its mode is %v", info.Mode())
	}
	if left, _ := filepath.Glob(filepath.Join(root, ".platelayer-*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
