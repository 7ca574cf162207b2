package lifecycle

import (
	"net/netip"
	"slices"
	"testing"

	"platelayer/topology"
)

func TestResolvable(t *testing.T) {
	top, err := topology.Load("f.yaml", []byte(`
clusters:
  a: {domain: shop.example, subnets: [10.1.0.0/24, "fd20::/64"], stations: {x: }}
  b: {domain: shop.example, subnet: 10.2.0.0/24}
  c: {domain: real.example, subnet: 9.9.9.0/24}
  d: {domain: d.example, subnet: 10.4.0.0/24, backbone: none, stations: {x: , y: }}
`), topology.Options{Name: "t", Dir: "/"})
	if err != nil {
		t.Fatal(err)
	}
	routes := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd20::/64"), netip.MustParsePrefix("10.2.0.0/24")}
	servers, domains := resolvable(top, routes)
	want := []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd20::1"), netip.MustParseAddr("10.2.0.1")}
	if !slices.Equal(servers, want) || !slices.Equal(domains, []string{"shop.example"}) {
		t.Errorf("got %s and %q", servers, domains)
	}
	if servers, domains = resolvable(top, nil); len(servers)+len(domains) > 0 {
		t.Errorf("without routes: %s and %q", servers, domains)
	}
}
