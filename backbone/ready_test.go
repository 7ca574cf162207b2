package backbone

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"platelayer/netplan"
	"platelayer/topology"
)

// recordsOf loads a file's records as a topology has them.
func recordsOf(t testing.TB, lines ...string) []topology.Record {
	t.Helper()
	text := "clusters: {lan: {domain: shop.example, records: ["
	for _, line := range lines {
		text += "'" + strings.ReplaceAll(line, "'", "''") + "', "
	}
	top, err := topology.Load("f.yaml", []byte(text+"]}}"), topology.Options{Name: "t", Dir: "/"})
	if err != nil {
		t.Fatal(err)
	}
	return top.Clusters[0].Records
}

// recorded is the shop with records.
func recorded(t testing.TB) netplan.DNS {
	d := shop()
	d.Hosts[0].Aliases = append(d.Hosts[0].Aliases, "both")
	d.Hosts[2].Aliases = []string{"both"}
	d.Records = recordsOf(t, "@ MX 10 mail", "mail 60 A 198.51.100.1", "mail 60 A 198.51.100.2", "ftp CNAME lb", "far CNAME www.real.example.", "lost CNAME nobody",
		"two CNAME ftp", "*.apps A 198.51.100.9", "*.apps TXT any", "own.apps TXT here", "*.wild.example. A 198.51.100.10", "db TXT note", "_sip._tcp SRV 0 5 5060 lb", "_sip._tcp SRV 1 5 5060 www.real.example.", "_sip._tcp SRV 2 5 5061 lb", `web TYPE65 \# 3 000100`,
		"9.113.0.203.in-addr.arpa. PTR other.example.")
	d.Pointers = []netplan.DNSPointer{{Address: netip.MustParseAddr("10.255.0.1"), Cluster: "web", FQDN: "lb.shop.example"}, {Address: netip.MustParseAddr("10.99.0.1"), Cluster: "back", FQDN: "db.shop.example"}}
	d.Links = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/31")}
	return d
}

func TestRecords(t *testing.T) {
	const web = "203.0.113.7"
	for _, test := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"shop.example.", dns.TypeMX, "NOERROR MX 10 mail.shop.example. aa +198.51.100.1 +198.51.100.2"},
		{"_sip._tcp.shop.example.", dns.TypeSRV, "NOERROR SRV 0 5 5060 lb.shop.example. SRV 1 5 5060 www.real.example. SRV 2 5 5061 lb.shop.example. aa +203.0.113.1 +fd00:1::1"},
		{"shop.example.", dns.TypeNS, "NOERROR NS backbone.shop.example. aa +203.0.113.254"},
		{"mail.shop.example.", dns.TypeA, "NOERROR A 198.51.100.1 A 198.51.100.2 aa"},
		{"mail.shop.example.", dns.TypeAAAA, "NOERROR SOA:shop.example. aa"},
		{"two.shop.example.", dns.TypeA, "NOERROR CNAME ftp.shop.example. CNAME lb.shop.example. A 203.0.113.1 aa"},
		{"ftp.shop.example.", dns.TypeCNAME, "NOERROR CNAME lb.shop.example. aa"},
		{"ftp.shop.example.", dns.TypeTXT, "NOERROR CNAME lb.shop.example. SOA:shop.example. aa"},
		{"lost.shop.example.", dns.TypeA, "NXDOMAIN CNAME nobody.shop.example. SOA:shop.example. aa"},
		{"far.shop.example.", dns.TypeA, "NXDOMAIN CNAME www.real.example. aa"}, // nobody is asked
		{"x.apps.shop.example.", dns.TypeA, "NOERROR A 198.51.100.9 aa"},
		{"x.y.apps.shop.example.", dns.TypeA, "NOERROR A 198.51.100.9 aa"},
		{"x.apps.shop.example.", dns.TypeTXT, `NOERROR TXT "any" aa`},
		{"x.apps.shop.example.", dns.TypeMX, "NOERROR SOA:shop.example. aa"},
		{"own.apps.shop.example.", dns.TypeA, "NOERROR SOA:shop.example. aa"},
		{"x.own.apps.shop.example.", dns.TypeA, "NXDOMAIN SOA:shop.example. aa"},
		{"apps.shop.example.", dns.TypeA, "NOERROR SOA:shop.example. aa"},
		{"*.apps.shop.example.", dns.TypeA, "NOERROR A 198.51.100.9 aa"},
		{"a.wild.example.", dns.TypeA, "NOERROR A 198.51.100.10 aa"},
		{"wild.example.", dns.TypeA, "NOERROR"},
		{"db.shop.example.", dns.TypeTXT, `NOERROR TXT "note" aa`},
		{"db.shop.example.", dns.TypeA, "NOERROR A 203.0.113.9 aa"},
		{"web.shop.example.", dns.TypeHTTPS, `NOERROR HTTPS 1 . aa`},
		{"9.113.0.203.in-addr.arpa.", dns.TypePTR, "NOERROR PTR other.example. aa"},
		{"1.0.255.10.in-addr.arpa.", dns.TypePTR, "NOERROR PTR lb.shop.example. aa"},
		{"1.0.99.10.in-addr.arpa.", dns.TypePTR, "NOERROR PTR db.shop.example. aa"},
		{"0.0.99.10.in-addr.arpa.", dns.TypePTR, "NOERROR SOA:0.0.99.10.in-addr.arpa. aa"},
		{"2.0.99.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
	} {
		s := testServer(t, recorded(t))
		q := new(dns.Msg).SetQuestion(test.name, test.qtype)
		packet, _ := q.Pack()
		packed, later := s.handle(packet, nil, transport{from: netip.MustParseAddr(web)})
		if later != nil {
			t.Fatalf("%s goes upstream", test.name)
		}
		if got := gist(t, packed); got != test.want {
			t.Errorf("%s %s:\ngot  %s\nwant %s", test.name, dns.TypeToString[test.qtype], got, test.want)
		}
	}
}

func gist(t testing.TB, packed []byte) string {
	t.Helper()
	r := &dns.Msg{}
	if err := r.Unpack(packed); err != nil {
		t.Fatal(err)
	}
	words := []string{dns.RcodeToString[r.Rcode]}
	for _, rr := range r.Answer {
		words = append(words, dns.TypeToString[rr.Header().Rrtype], strings.TrimSpace(strings.TrimPrefix(rr.String(), rr.Header().String())))
	}
	for _, rr := range r.Ns {
		words = append(words, dns.TypeToString[rr.Header().Rrtype]+":"+rr.Header().Name)
	}
	if r.Authoritative {
		words = append(words, "aa")
	}
	for _, rr := range r.Extra {
		words = append(words, "+"+strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return strings.Join(words, " ")
}

// TestReadyAnswers: what lies ready says the same as what is put together, and
// for the usual questions something does.
func TestReadyAnswers(t *testing.T) {
	d := recorded(t)
	names := []string{"nobody.shop.example.", "x.apps.shop.example.", "localhost.", "1.113.0.203.in-addr.arpa.", "."}
	for name := range testServer(t, d).zones.Load().names {
		names = append(names, name, strings.ToUpper(name))
	}
	ready := 0
	for _, name := range names {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeTXT, dns.TypeHTTPS, dns.TypeANY, dns.TypePTR} {
			for _, from := range addrs("203.0.113.7", "10.20.1.9", "198.51.100.1") {
				for size := range 5 {
					q := new(dns.Msg).SetQuestion(name, qtype)
					q.CheckingDisabled, q.RecursionDesired = size == 1, size != 2
					if size > 0 {
						q.SetEdns0(uint16(size*300), size == 3)
					}
					packet, err := q.Pack()
					if err != nil {
						t.Fatal(err)
					}
					// Of servers of their own: the same turn.
					one, other := testServer(t, d), testServer(t, d)
					z := one.zones.Load()
					asked := &question{}
					if !asked.read(packet) {
						t.Fatalf("%v is not read", q)
					}
					fast := z.answerReady(asked, packet, make([]byte, udpSize), z.clusterOf(from))
					if fast == nil {
						continue
					}
					ready++
					slow, _ := other.handle(packet, nil, transport{from: from})
					var a, b dns.Msg
					if err := a.Unpack(fast); err != nil {
						t.Fatalf("%v: %v", q, err)
					}
					if err := b.Unpack(slow); err != nil {
						t.Fatal(err)
					}
					lower := func(m *dns.Msg) string { return strings.ToLower(m.String()) }
					if lower(&a) != lower(&b) || a.Question[0] != q.Question[0] {
						t.Fatalf("from %s: ready\n%v\nput together\n%v", from, &a, &b)
					}
				}
			}
		}
	}
	if ready < 500 {
		t.Errorf("only %d answers lay ready", ready)
	}
}

func TestOutOfTurn(t *testing.T) {
	d := shop()
	for _, n := range []string{"1", "2", "3"} {
		d.Hosts = append(d.Hosts, netplan.DNSHost{Cluster: "web", Station: "web/api-" + n, Name: "api-" + n, FQDN: "api-" + n + ".shop.example", Aliases: []string{"api"}, Addresses: addrs("203.0.113.10" + n)})
	}
	for _, test := range []struct{ out, want string }{
		{"", "1 2 3"}, {"web/api-2", "1 3"}, {"web/api-2 web/api-3", "1"}, {"web/api-1 web/api-2 web/api-3", "1 2 3"}, {"web/other", "1 2 3"},
	} {
		s := testServer(t, d)
		z, err := newZones(d, strings.Fields(test.out))
		if err != nil {
			t.Fatal(err)
		}
		s.zones.Store(z)
		r, _ := ask(t, s, "203.0.113.7", "api.shop.example.", dns.TypeA)
		var got []string
		for _, rr := range r.Answer {
			got = append(got, strings.TrimPrefix(rr.(*dns.A).A.String(), "203.0.113.10"))
		}
		slices.Sort(got)
		if strings.Join(got, " ") != test.want {
			t.Errorf("without %q: got %v, want %s", test.out, got, test.want)
		}
		if _, got := ask(t, s, "203.0.113.7", "api-2.shop.example.", dns.TypeA); got != "NOERROR 203.0.113.102 aa" {
			t.Errorf("without %q, the station's own name: %s", test.out, got)
		}
	}
}

// FuzzRecord: a record that a topology takes is one that the server can give.
func FuzzRecord(f *testing.F) {
	for _, seed := range []string{"@ MX 10 mail", `x 5 IN TXT "a\"\\ \000\255" b`, "_a._b SRV 0 1 2 .", "* CAA 128 issue \"\"", `y TYPE9999 \# 0`, `\# A 1`, `0 00 ""`, "a.example. AAAA ::ffff:1.2.3.4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		text := "clusters: {lan: {domain: shop.example, records: ['" + strings.ReplaceAll(line, "'", "''") + "']}}"
		top, err := topology.Load("f.yaml", []byte(text), topology.Options{Name: "t", Dir: "/"})
		if err != nil || len(top.Clusters[0].Records) == 0 {
			return
		}
		r := top.Clusters[0].Records[0]
		z, err := newZones(netplan.DNS{Records: []topology.Record{r}}, nil)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for name, n := range z.names {
			for qtype := range n.records {
				q := new(dns.Msg).SetQuestion(name, qtype)
				m := newReply(q)
				z.answer(m, noCluster)
				if _, err := m.Pack(); err != nil || len(m.Answer) == 0 {
					t.Errorf("%q: %v, %v", line, m, err)
				}
			}
		}
	})
}

// FuzzQuestion: the quick reading takes no packet that the careful one would
// understand in another way.
func FuzzQuestion(f *testing.F) {
	f.Add(pack(f, func(*dns.Msg) {}))
	f.Add(pack(f, func(q *dns.Msg) { q.SetEdns0(4096, true); q.Question[0].Name = "1.113.0.203.in-addr.arpa." }))
	f.Add(pack(f, func(q *dns.Msg) { q.Question[0].Name = "." }))
	f.Fuzz(func(t *testing.T, packet []byte) {
		q, m := &question{}, &dns.Msg{}
		if !q.read(packet) {
			return
		}
		if err := m.Unpack(packet); err != nil || len(m.Question) != 1 {
			t.Fatalf("%x was read, but: %v", packet, err)
		}
		var wire [256]byte
		end, err := dns.PackDomainName(canonical(m.Question[0].Name), wire[:], 0, nil, false)
		if err != nil || string(wire[:end]) != string(q.name[:q.size]) || m.Question[0].Qtype != q.qtype || replyLimit(m, false) != q.limit {
			t.Errorf("%x: read %q %d, limit %d, want %v", packet, q.name[:q.size], q.qtype, q.limit, m)
		}
	})
}
