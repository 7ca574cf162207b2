package backbone

import (
	"io"
	"log"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"platelayer/netplan"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// shop is two clusters that share a domain and one that has its own.
func shop() netplan.DNS {
	return netplan.DNS{
		Clusters: []netplan.DNSCluster{
			{Name: "web", Domain: "shop.example", Subnets: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("fd00:1::/64")}},
			{Name: "back", Domain: "shop.example", Subnets: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/20")}},
			{Name: "lan", Domain: "lan.deep.internal", Subnets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		},
		Hosts: []netplan.DNSHost{
			{Cluster: "web", Name: "lb", FQDN: "lb.shop.example", Aliases: []string{"www.shop.example", "api.other.example", "front"}, Addresses: addrs("203.0.113.1", "fd00:1::1")},
			{Cluster: "back", Name: "lb", FQDN: "lb.shop.example", Addresses: addrs("10.20.0.1")},
			{Cluster: "web", Name: "db", FQDN: "db.shop.example", Addresses: addrs("203.0.113.9")},
			{Cluster: "back", Name: "db", FQDN: "db.shop.example", Addresses: addrs("10.20.1.9")},
			{Cluster: "back", Name: "q", FQDN: "a.b.q.shop.example", Addresses: addrs("10.20.1.10")},
			{Cluster: "lan", Name: "only", FQDN: "only.lan.deep.internal", Addresses: addrs("127.1.2.3")},
		},
		Listen: addrs("203.0.113.254", "10.20.15.254", "127.0.0.1"),
	}
}

func testServer(t testing.TB, d netplan.DNS) *server {
	s := newServer(t.Context(), newUpstream(), log.New(io.Discard, "", 0).Printf)
	z, err := newZones(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.zones.Store(z)
	return s
}

// ask hands one question to the server and gives the answer's gist.
func ask(t testing.TB, s *server, from, name string, qtype uint16) (*dns.Msg, string) {
	t.Helper()
	q := &dns.Msg{}
	q.SetQuestion(name, qtype)
	packet, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	packed, later := s.handle(packet, nil, transport{from: netip.MustParseAddr(from)})
	if later != nil {
		return nil, "upstream"
	}
	r := &dns.Msg{}
	if err := r.Unpack(packed); err != nil {
		t.Fatal(err)
	}
	if r.Id != q.Id || !r.Response || len(r.Question) != 1 || r.Question[0] != q.Question[0] {
		t.Errorf("not a reply to the question: %v", r)
	}
	gist := []string{dns.RcodeToString[r.Rcode]}
	for _, rr := range r.Answer {
		if rr.Header().Name != name {
			t.Errorf("the answer is about %s, the question about %s", rr.Header().Name, name)
		}
		if rr.Header().Ttl != ttl {
			t.Errorf("the TTL is %d", rr.Header().Ttl)
		}
		gist = append(gist, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	for _, rr := range r.Ns {
		gist = append(gist, dns.TypeToString[rr.Header().Rrtype]+":"+rr.Header().Name)
	}
	if r.Authoritative {
		gist = append(gist, "aa")
	}
	return r, strings.Join(gist, " ")
}

func TestAnswers(t *testing.T) {
	const web, back, elsewhere = "203.0.113.7", "10.20.3.4", "198.51.100.1"
	for _, test := range []struct {
		from, name string
		qtype      uint16
		want       string
	}{
		{web, "lb.shop.example.", dns.TypeA, "NOERROR 203.0.113.1 aa"},
		{"::ffff:203.0.113.7", "lb.shop.example.", dns.TypeA, "NOERROR 203.0.113.1 aa"},
		{web, "lB.sHoP.eXaMpLe.", dns.TypeA, "NOERROR 203.0.113.1 aa"},
		{web, "lb.shop.example.", dns.TypeAAAA, "NOERROR fd00:1::1 aa"},
		{back, "lb.shop.example.", dns.TypeA, "NOERROR 10.20.0.1 aa"},
		{back, "lb.shop.example.", dns.TypeAAAA, "NOERROR SOA:shop.example. aa"},
		{elsewhere, "lb.shop.example.", dns.TypeA, "NOERROR 203.0.113.1 aa"},
		{web, "lb.shop.example.", dns.TypeMX, "NOERROR SOA:shop.example. aa"},
		{web, "lb.shop.example.", dns.TypeANY, `NOERROR "RFC8482" "" aa`},
		{web, "none.shop.example.", dns.TypeANY, "NXDOMAIN SOA:shop.example. aa"},
		{web, "none.shop.example.", dns.TypeA, "NXDOMAIN SOA:shop.example. aa"},
		{web, "x.lb.shop.example.", dns.TypeA, "NXDOMAIN SOA:shop.example. aa"},
		{web, "b.q.shop.example.", dns.TypeA, "NOERROR SOA:shop.example. aa"},
		{web, "db.", dns.TypeA, "NOERROR 203.0.113.9 aa"},
		{back, "DB.", dns.TypeA, "NOERROR 10.20.1.9 aa"},
		{web, "only.", dns.TypeA, "NOERROR 127.1.2.3 aa"},
		{web, "only.", dns.TypeAAAA, "NOERROR SOA:only. aa"},
		{web, "nobody.", dns.TypeA, "NXDOMAIN aa"},
		{web, "com.", dns.TypeDS, "SERVFAIL"},
		{web, ".", dns.TypeNS, "SERVFAIL"},
		{web, "www.shop.example.", dns.TypeA, "NOERROR 203.0.113.1 aa"},
		{web, "front.", dns.TypeA, "NOERROR 203.0.113.1 aa"},
		{web, "front.shop.example.", dns.TypeA, "NOERROR 203.0.113.1 aa"},
		{web, "api.other.example.", dns.TypeA, "NOERROR 203.0.113.1 aa"},
		{web, "api.other.example.", dns.TypeTXT, "NOERROR SOA:api.other.example. aa"},
		{web, "other.example.", dns.TypeA, "NOERROR"},
		{web, "www.debian.org.", dns.TypeA, "NXDOMAIN"},
		{web, "example.", dns.TypeA, "NXDOMAIN aa"},
		{web, "shop.example.", dns.TypeA, "NOERROR SOA:shop.example. aa"},
		{web, "shop.example.", dns.TypeSOA, "NOERROR backbone.shop.example. nobody.shop.example. 1 3600 600 86400 1 aa"},
		{web, "shop.example.", dns.TypeNS, "NOERROR backbone.shop.example. aa"},
		{web, "backbone.shop.example.", dns.TypeA, "NOERROR 203.0.113.254 aa"},
		{back, "backbone.", dns.TypeA, "NOERROR 10.20.15.254 aa"},
		{web, "localhost.", dns.TypeA, "NOERROR 127.0.0.1 aa"},
		{web, "shop.example.", dns.TypeAXFR, "REFUSED"},

		{web, "1.113.0.203.in-addr.arpa.", dns.TypePTR, "NOERROR lb.shop.example. aa"},
		{web, "254.113.0.203.IN-addr.arpa.", dns.TypePTR, "NOERROR backbone.shop.example. aa"},
		{web, "1.113.0.203.in-addr.arpa.", dns.TypeA, "NOERROR SOA:113.0.203.in-addr.arpa. aa"},
		{web, "2.113.0.203.in-addr.arpa.", dns.TypePTR, "NXDOMAIN SOA:113.0.203.in-addr.arpa. aa"},
		{web, "113.0.203.in-addr.arpa.", dns.TypeSOA, "NOERROR backbone.113.0.203.in-addr.arpa. nobody.113.0.203.in-addr.arpa. 1 3600 600 86400 1 aa"},
		{web, "x.1.113.0.203.in-addr.arpa.", dns.TypePTR, "NXDOMAIN SOA:113.0.203.in-addr.arpa. aa"},
		{web, "01.113.0.203.in-addr.arpa.", dns.TypePTR, "NXDOMAIN SOA:113.0.203.in-addr.arpa. aa"},
		{web, "9.1.20.10.in-addr.arpa.", dns.TypePTR, "NOERROR db.shop.example. aa"},
		{web, "9.7.20.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN SOA:7.20.10.in-addr.arpa. aa"},
		{web, "1.16.20.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{web, "0.203.in-addr.arpa.", dns.TypePTR, "NOERROR"},
		{web, "1." + strings.Repeat("0.", 15) + "0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "NOERROR lb.shop.example. aa"},
		{web, "2." + strings.Repeat("0.", 15) + "0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "NXDOMAIN SOA:0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa. aa"},
		{web, "0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "NOERROR SOA:0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa. aa"},
	} {
		_, got := ask(t, testServer(t, shop()), test.from, test.name, test.qtype)
		if got != test.want {
			t.Errorf("%s asks %s %s:\ngot  %s\nwant %s", test.from, test.name, dns.TypeToString[test.qtype], got, test.want)
		}
	}
}

// TestRotation asks as libraries do, for both families in turn.
func TestRotation(t *testing.T) {
	d := shop()
	for _, h := range []string{"1", "2", "3"} {
		d.Hosts = append(d.Hosts, netplan.DNSHost{Cluster: "web", Name: "api-" + h, Aliases: []string{"api"}, Addresses: addrs("203.0.113.10"+h, "fd00:1::"+h)})
	}
	s := testServer(t, d)
	for range 2 {
		for _, want := range []string{"1 2 3", "2 3 1", "3 1 2"} {
			for qtype, prefix := range map[uint16]string{dns.TypeA: "203.0.113.10", dns.TypeAAAA: "fd00:1::"} {
				_, got := ask(t, s, "203.0.113.7", "api.shop.example.", qtype)
				if want := "NOERROR " + prefix + strings.ReplaceAll(want, " ", " "+prefix) + " aa"; got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
		}
	}
}

func TestReverseNames(t *testing.T) {
	for _, text := range []string{"203.0.113.0/24", "10.0.0.0/8", "203.0.113.9/32", "fd00:1::/64", "2001:db8::1/128", "2000::/4"} {
		p := netip.MustParsePrefix(text)
		name := reverseName(p)
		got, below, ok := parseReverse(name)
		if !ok || below || got != p {
			t.Errorf("%s: %s was read as %s", text, name, got)
		}
	}
}

func TestHostResolvers(t *testing.T) {
	text := "# x\nnameserver 127.0.0.53\n nameserver\t2001:db8::1 \nnameserver nonsense\nsearch a b\nnameserver fe80::1%eth0\n;nameserver 1.1.1.1\n"
	var got []string
	for _, a := range HostResolvers([]byte(text)) {
		got = append(got, a.String())
	}
	if d := cmp.Diff([]string{"127.0.0.53:53", "[2001:db8::1]:53", "[fe80::1%eth0]:53"}, got); d != "" {
		t.Error(d)
	}
	if got := HostResolvers(nil); len(got) != 1 || got[0].String() != "127.0.0.1:53" {
		t.Errorf("no nameserver: %v", got)
	}
}

// TestStationCalledBackbone: the name is the station's, and the backbone's in
// the other clusters.
func TestStationCalledBackbone(t *testing.T) {
	d := shop()
	d.Hosts = append(d.Hosts, netplan.DNSHost{Cluster: "web", Name: "backbone", FQDN: "backbone.shop.example", Addresses: addrs("203.0.113.77")})
	s := testServer(t, d)
	for from, want := range map[string]string{"203.0.113.7": "203.0.113.77", "10.20.1.9": "10.20.15.254"} {
		for _, name := range []string{"backbone.shop.example.", "backbone."} {
			for range 2 {
				if _, got := ask(t, s, from, name, dns.TypeA); got != "NOERROR "+want+" aa" {
					t.Errorf("%s asks for %s: %s, want %s", from, name, got, want)
				}
			}
		}
	}
}
