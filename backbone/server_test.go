package backbone

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"platelayer/netplan"
)

// raw hands a packet over and unpacks what comes back, nil for nothing.
func raw(t testing.TB, s *server, packet []byte, tcp bool) *dns.Msg {
	t.Helper()
	packed, later := s.handle(packet, nil, transport{netip.MustParseAddr("203.0.113.7"), tcp})
	if later != nil {
		later(func(p []byte) { packed = p })
	}
	if packed == nil {
		return nil
	}
	r := &dns.Msg{}
	if err := r.Unpack(packed); err != nil {
		t.Fatalf("cannot read the reply %x to %x: %v", packed, packet, err)
	}
	return r
}

func pack(t testing.TB, change func(*dns.Msg)) []byte {
	t.Helper()
	q := &dns.Msg{}
	q.SetQuestion("lb.shop.example.", dns.TypeA)
	change(q)
	packet, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

func TestRefusals(t *testing.T) {
	s := testServer(t, shop())
	for name, test := range map[string]struct {
		change func(*dns.Msg)
		rcode  int
	}{
		"chaos":         {func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
		"any class":     {func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassANY }, dns.RcodeRefused},
		"update":        {func(q *dns.Msg) { q.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"notify":        {func(q *dns.Msg) { q.Opcode = dns.OpcodeNotify }, dns.RcodeNotImplemented},
		"two questions": {func(q *dns.Msg) { q.Question = append(q.Question, q.Question[0]) }, dns.RcodeFormatError},
		"no question":   {func(q *dns.Msg) { q.Question = nil }, dns.RcodeFormatError},
		"transfer":      {func(q *dns.Msg) { q.Question[0].Qtype = dns.TypeIXFR }, dns.RcodeRefused},
		"two OPT":       {func(q *dns.Msg) { q.Extra = []dns.RR{newOPT(false), newOPT(false)} }, dns.RcodeFormatError},
		"EDNS 1": {func(q *dns.Msg) {
			opt := newOPT(false)
			opt.SetVersion(1)
			q.Extra = []dns.RR{opt}
		}, dns.RcodeBadVers},
	} {
		r := raw(t, s, pack(t, test.change), false)
		if r == nil || r.Rcode != test.rcode || len(r.Answer) > 0 {
			t.Errorf("%s: got %v", name, r)
		}
	}
	if r := raw(t, s, pack(t, func(q *dns.Msg) { q.Response = true }), false); r != nil {
		t.Errorf("an answer was answered: %v", r)
	}
	if r := raw(t, s, []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xff"), false); r == nil || r.Rcode != dns.RcodeFormatError || r.Id != 0x1234 {
		t.Errorf("a broken question: got %v", r)
	}
	if r := raw(t, s, []byte{1, 2, 3}, false); r != nil {
		t.Errorf("half a header was answered: %v", r)
	}
}

func TestEDNSAndTruncation(t *testing.T) {
	d := netplan.DNS{Clusters: []netplan.DNSCluster{{Name: "c", Domain: "c.example"}}}
	h := netplan.DNSHost{Cluster: "c", Name: "many", FQDN: "many.c.example"}
	for i := range 200 {
		h.Addresses = append(h.Addresses, netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", i)))
	}
	d.Hosts = []netplan.DNSHost{h}
	s := testServer(t, d)
	for _, test := range []struct {
		size  uint16 // 0: no EDNS
		tcp   bool
		limit int
	}{{0, false, 512}, {100, false, 512}, {900, false, 900}, {65535, false, udpSize}, {0, true, 65535}} {
		packet := pack(t, func(q *dns.Msg) {
			q.Question[0].Name = "many.c.example."
			if test.size > 0 {
				q.SetEdns0(test.size, true)
			}
		})
		packed, _ := s.handle(packet, nil, transport{tcp: test.tcp})
		r := &dns.Msg{}
		if err := r.Unpack(packed); err != nil {
			t.Fatal(err)
		}
		if len(packed) > test.limit || r.Truncated == test.tcp || (test.tcp && len(r.Answer) != 200) {
			t.Errorf("%+v: %d bytes, %d records, truncated %t", test, len(packed), len(r.Answer), r.Truncated)
		}
		opt := r.IsEdns0()
		if (opt != nil) != (test.size > 0) {
			t.Errorf("%+v: OPT is %v", test, opt)
		}
		if opt != nil && (opt.UDPSize() != udpSize || !opt.Do()) {
			t.Errorf("%+v: OPT is %v", test, opt)
		}
	}
}

// TestTargetsAreLeftOut: addresses that nobody asked for are no reason to ask
// again over TCP.
func TestTargetsAreLeftOut(t *testing.T) {
	d := shop()
	for i := range 60 {
		d.Hosts[0].Addresses = append(d.Hosts[0].Addresses, netip.MustParseAddr(fmt.Sprintf("203.0.113.%d", 100+i)))
	}
	d.Records = recordsOf(t, "@ MX 10 lb")
	s := testServer(t, d)
	for _, tcp := range []bool{false, true} {
		r := raw(t, s, pack(t, func(q *dns.Msg) {
			q.SetQuestion("shop.example.", dns.TypeMX)
			q.SetEdns0(900, false)
		}), tcp)
		if r.Truncated || len(r.Answer) != 1 || r.IsEdns0() == nil || (len(r.Extra) > 60) != tcp {
			t.Errorf("over TCP %t: %v", tcp, r)
		}
	}
}

func FuzzHandle(f *testing.F) {
	f.Add(pack(f, func(*dns.Msg) {}))
	f.Add(pack(f, func(q *dns.Msg) { q.SetEdns0(4096, true); q.Question[0].Name = "1.113.0.203.in-addr.arpa." }))
	f.Add(pack(f, func(q *dns.Msg) { q.Question[0].Name = `\000\255.ip6.arpa.` }))
	b, _ := hex.DecodeString("123401000001000000000001c00c00010001")
	f.Add(b)
	s := testServer(f, shop())
	f.Fuzz(func(t *testing.T, packet []byte) {
		for _, tcp := range []bool{false, true} {
			r := raw(t, s, packet, tcp)
			if r != nil && (!r.Response || r.Id != uint16(packet[0])<<8|uint16(packet[1])) {
				t.Errorf("not a reply to %x: %v", packet, r)
			}
		}
	})
}

func BenchmarkHandleA(b *testing.B) {
	s := testServer(b, shop())
	packet := pack(b, func(*dns.Msg) {})
	via := transport{from: netip.MustParseAddr("203.0.113.7")}
	buf := make([]byte, dns.MaxMsgSize)
	b.ReportAllocs()
	for b.Loop() {
		if packed, _ := s.handle(packet, buf, via); packed == nil {
			b.Fatal("no answer")
		}
	}
}

// BenchmarkHandleRotating has all processors take turns at one name.
func BenchmarkHandleRotating(b *testing.B) {
	d := shop()
	d.Hosts[0].Addresses = append(d.Hosts[0].Addresses, addrs("203.0.113.2", "203.0.113.3")...)
	s := testServer(b, d)
	packet := pack(b, func(*dns.Msg) {})
	via := transport{from: netip.MustParseAddr("203.0.113.7")}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, dns.MaxMsgSize)
		for pb.Next() {
			if packed, _ := s.handle(packet, buf, via); packed == nil {
				b.Error("no answer")
				return
			}
		}
	})
}
