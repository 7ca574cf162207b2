package lifecycle

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"platelayer/backbone"
	"platelayer/netplan"
)

const namesFile = `
backbone: {upstream: [198.51.100.1, {domain: corp.example, servers: [198.51.100.2]}]}
clusters:
  web:
    domain: shop.example
    subnet: 203.0.113.0/24
    backbone_address: 203.0.113.254
    stations:
      own: {address: 203.0.113.2, dns: [127.0.0.1, 203.0.113.9, 198.51.100.53]}
      outside: {address: 203.0.113.3, loopback: [10.255.0.1], dns: 198.51.100.53, dns_search: .}
      www-1: {group: www, address: 203.0.113.11}
      www-2: {group: www, address: 203.0.113.12, healthcheck: {test: "true"}}
      alone: {aliases: [single], address: 203.0.113.13}
  lab:
    subnet: 10.30.0.0/24
    backbone: none
    stations:
      a: {address: 10.30.0.2, interfaces: [{cluster: web, address: 203.0.113.30}]}
      b: {address: 10.30.0.3}
`

func TestResolvConf(t *testing.T) {
	top := mustLoad(t, namesFile)
	for id, want := range map[string]string{
		"web/own":     "search shop.example\nnameserver 127.0.0.1\nnameserver 203.0.113.9\n",
		"web/outside": "search .\nnameserver 203.0.113.254\n",
		"lab/a":       "search lab.shop.internal\nnameserver 203.0.113.254\n",
		"lab/b":       "search lab.shop.internal\n",
	} {
		if got := resolvConf(top, survey(top).stations[id]); got != want {
			t.Errorf("%s: got\n%swant\n%s", id, got, want)
		}
	}
	if got := hosts(top, survey(top).stations["lab/b"]); !strings.Contains(got, "10.30.0.2\ta.lab.shop.internal a\n") || strings.Contains(got, "203.0.113") {
		t.Errorf("a LAN without a backbone: %s", got)
	}
}

// TestDNSConfig: who is asked for whom, and who is out of turn.
func TestDNSConfig(t *testing.T) {
	top := mustLoad(t, namesFile)
	plan, err := netplan.Build(top)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{intent: &Intent{Topology: top}, plan: plan}
	for _, s := range top.Stations() {
		m := newMember(k, &ContainerState{State: Running})
		m.station = s
		k.members = append(k.members, m)
	}
	at := func(addr string) []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(addr + ":53")} }
	config := k.dnsConfig()
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	ports := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	want := []backbone.Asker{
		{Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.2")}, Upstream: at("198.51.100.53")},
		{Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.3"), netip.MustParseAddr("10.255.0.1")}, Upstream: at("198.51.100.53")},
	}
	if d := cmp.Diff(want, config.Askers, same, ports); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]backbone.Domain{{Name: "corp.example", Upstream: at("198.51.100.2")}}, config.Domains, ports); d != "" {
		t.Error(d)
	}
	for _, test := range []struct {
		station, state, health string
		want                   string
	}{
		{"web/www-2", Running, healthHealthy, ""},
		{"web/www-2", Running, healthStarting, "web/www-2"},
		{"web/www-2", Running, healthUnhealthy, "web/www-2"},
		{"web/www-1", Paused, "", "web/www-1"},
		{"web/www-1", Restarting, "", "web/www-1"},
		{"web/alone", Exited, "", ""},
		{"web/own", Exited, "", ""},
	} {
		c := k.member(test.station).state
		before := *c
		c.State, c.Health = test.state, test.health
		if got := strings.Join(k.dnsConfig().Out, " "); got != test.want {
			t.Errorf("%s is %s %s: out of turn is %q, want %q", test.station, test.state, test.health, got, test.want)
		}
		*c = before
	}
}
