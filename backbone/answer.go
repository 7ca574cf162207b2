package backbone

import (
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// ttl is short: `platelayer up` on an edited file changes addresses in place,
// and asking again costs next to nothing.
const ttl = 1 // seconds

// answer fills in the answer to the one question of r, which is already set
// up as a reply. false says that the name is not ours and the question is for
// an upstream resolver.
func (z *zones) answer(r *dns.Msg, asker int) bool {
	q := &r.Question[0]
	name := strings.ToLower(q.Name)
	if isReverse(name) {
		return z.answerReverse(r, name, asker)
	}
	if name == "localhost." {
		// RFC 6761, section 6.3.
		r.Authoritative = true
		switch q.Qtype {
		case dns.TypeA:
			addAddrs(r, q, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
		case dns.TypeAAAA:
			addAddrs(r, q, netip.IPv6Loopback())
		}
		return true
	}
	zone := z.zoneOf(name)
	found := z.lookup(name, asker)
	switch {
	case found != nil || zone == name && zone != "":
		if zone == "" {
			// A short name, or an alias in somebody else's domain: of that
			// domain the name alone is ours.
			zone = name
		}
	case zone != "":
		if !z.existing[name] {
			r.Rcode = dns.RcodeNameError
		}
	case singleLabel(name) && !delegationType(q.Qtype):
		// A bare word is a station's name or a mistake, and nothing that the
		// outside world should hear of.
		r.Authoritative = true
		r.Rcode = dns.RcodeNameError
		return true
	default:
		return false
	}
	r.Authoritative = true
	apex := z.apexes[name]
	switch {
	case r.Rcode != dns.RcodeSuccess:
	case q.Qtype == dns.TypeA && found != nil:
		head, tail := found.v4.next()
		addAddrs(r, q, head...)
		addAddrs(r, q, tail...)
	case q.Qtype == dns.TypeAAAA && found != nil:
		head, tail := found.v6.next()
		addAddrs(r, q, head...)
		addAddrs(r, q, tail...)
	case q.Qtype == dns.TypeANY:
		addANY(r, q)
	case q.Qtype == dns.TypeSOA && apex:
		r.Answer = append(r.Answer, soa(q.Name, zone))
	case q.Qtype == dns.TypeNS && apex:
		r.Answer = append(r.Answer, ns(q.Name, zone))
	}
	if len(r.Answer) == 0 {
		r.Ns = append(r.Ns, soa(zone, zone))
	}
	return true
}

// singleLabel says whether a name has no dot but the final one.
func singleLabel(name string) bool {
	return name != "." && parent(name) == "."
}

// delegationType marks the questions about a top-level domain itself. An
// NXDOMAIN to them would tell a validating or minimising resolver in a station
// that nothing exists below it (RFC 8020), so they go upstream.
func delegationType(qtype uint16) bool {
	switch qtype {
	case dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeDNSKEY:
		return true
	}
	return false
}

// addAddrs adds addresses of the family that q asks for.
func addAddrs(r *dns.Msg, q *dns.Question, addrs ...netip.Addr) {
	for _, a := range addrs {
		if q.Qtype == dns.TypeA {
			r.Answer = append(r.Answer, &dns.A{Hdr: header(q.Name, dns.TypeA), A: net.IP(a.AsSlice())})
		} else {
			r.Answer = append(r.Answer, &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA), AAAA: net.IP(a.AsSlice())})
		}
	}
}

// addANY answers with one small synthesised record (RFC 8482, section 4.2).
func addANY(r *dns.Msg, q *dns.Question) {
	r.Answer = append(r.Answer, &dns.HINFO{Hdr: header(q.Name, dns.TypeHINFO), Cpu: "RFC8482"})
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

func soa(owner, zone string) dns.RR {
	return &dns.SOA{
		Hdr:  header(owner, dns.TypeSOA),
		Ns:   childOf(backboneName, zone),
		Mbox: childOf("nobody", zone),
		// Nobody transfers the zone, so that only Minttl is ever looked at: it
		// bounds negative caching (RFC 2308).
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}

func ns(owner, zone string) dns.RR {
	return &dns.NS{Hdr: header(owner, dns.TypeNS), Ns: childOf(backboneName, zone)}
}

// childOf puts a label before a zone, unless the name would be too long
// (RFC 1035, section 2.3.4).
func childOf(label, zone string) string {
	if name := label + "." + zone; len(name) < 254 {
		return name
	}
	return zone
}
