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

// maxChain is how many aliases (CNAME) one answer follows.
const maxChain = 8

// answer fills in the answer to the one question of r, which is already set
// up as a reply. false says that the name is not ours and the question is for
// an upstream resolver. Where an alias leads to a name that is not ours,
// outside is that name, whose records are to be added: those who ask us mostly
// follow no alias themselves.
func (z *zones) answer(r *dns.Msg, asker int) (ours bool, outside string) {
	ours, outside = z.follow(r, r.Question[0].Name, asker)
	z.addTargets(r, asker)
	return ours, outside
}

// follow is answer from an owner name on that the question may have been led
// to.
func (z *zones) follow(r *dns.Msg, owner string, asker int) (ours bool, outside string) {
	for i := range maxChain {
		next, known := z.answerName(r, owner, asker)
		switch {
		case !known && i == 0:
			return false, ""
		case !known:
			return true, owner
		case next == "":
			return true, ""
		}
		owner = next
	}
	r.Rcode = dns.RcodeServerFailure
	return true, ""
}

// answerName answers about one name. next is where an alias leads to; false
// says that the name is not ours.
func (z *zones) answerName(r *dns.Msg, owner string, asker int) (next string, ours bool) {
	qtype := r.Question[0].Qtype
	name := strings.ToLower(owner)
	found := z.find(name)
	if isReverse(name) && found == nil {
		return "", z.answerReverse(r, owner, name, asker)
	}
	if name == "localhost." {
		// RFC 6761, section 6.3.
		r.Authoritative = true
		switch qtype {
		case dns.TypeA:
			r.Answer = appendAddrs(r.Answer, owner, ttl, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
		case dns.TypeAAAA:
			r.Answer = appendAddrs(r.Answer, owner, ttl, netip.IPv6Loopback())
		}
		return "", true
	}
	zone := z.zoneOf(name)
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
	case singleLabel(name) && !delegationType(qtype):
		// A bare word is a station's name or a mistake, and nothing that the
		// outside world should hear of.
		r.Authoritative = true
		r.Rcode = dns.RcodeNameError
		return "", true
	default:
		return "", false
	}
	r.Authoritative = true
	apex := z.apexes[name]
	before := len(r.Answer)
	switch {
	case r.Rcode != dns.RcodeSuccess:
	case qtype == dns.TypeANY:
		addANY(r, owner)
	case found != nil:
		next = found.answer(r, owner, asker)
	}
	switch {
	case r.Rcode != dns.RcodeSuccess || !apex:
	case qtype == dns.TypeSOA:
		r.Answer = append(r.Answer, soa(owner, zone))
	case qtype == dns.TypeNS:
		r.Answer = append(r.Answer, ns(owner, zone))
	}
	if len(r.Answer) == before {
		r.Ns = append(r.Ns, soa(zone, zone))
	}
	return next, true
}

// answer adds what a node has of the type that is asked for.
func (n *node) answer(r *dns.Msg, owner string, asker int) (next string) {
	qtype := r.Question[0].Qtype
	for _, rr := range n.records[qtype] {
		r.Answer = appendRecord(r.Answer, rr, owner)
	}
	if len(n.records[qtype]) > 0 {
		return ""
	}
	for _, rr := range n.records[dns.TypeCNAME] {
		r.Answer = appendRecord(r.Answer, rr, owner)
		return rr.(*dns.CNAME).Target
	}
	b := n.lookup(asker)
	switch {
	case b == nil:
	case qtype == dns.TypeA:
		r.Answer = b.v4.append(r.Answer, owner, b.v4.start())
	case qtype == dns.TypeAAAA:
		r.Answer = b.v6.append(r.Answer, owner, b.v6.start())
	}
	return ""
}

func (r *rotation) append(list []dns.RR, owner string, first int) []dns.RR {
	list = appendAddrs(list, owner, r.ttl, r.addrs[first:]...)
	return appendAddrs(list, owner, r.ttl, r.addrs[:first]...)
}

// addTargets adds the addresses of the names of ours that MX, SRV and NS
// records lead to, which saves who asks a question (RFC 1035, section 3.3; RFC
// 2782). It is nobody's turn.
func (z *zones) addTargets(r *dns.Msg, asker int) {
	added := map[string]bool{}
	for _, rr := range r.Answer {
		var target string
		switch rr := rr.(type) {
		case *dns.MX:
			target = rr.Mx
		case *dns.SRV:
			target = rr.Target
		case *dns.NS:
			target = rr.Ns
		default:
			continue
		}
		name := strings.ToLower(target)
		if n := z.find(name); n != nil && !added[name] {
			added[name] = true
			if b := n.lookup(asker); b != nil {
				r.Extra = b.v6.append(b.v4.append(r.Extra, target, 0), target, 0)
			}
		}
	}
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

func appendAddrs(list []dns.RR, owner string, ttl uint32, addrs ...netip.Addr) []dns.RR {
	for _, a := range addrs {
		var rr dns.RR
		if a.Is4() {
			rr = &dns.A{Hdr: header(owner, dns.TypeA), A: net.IP(a.AsSlice())}
		} else {
			rr = &dns.AAAA{Hdr: header(owner, dns.TypeAAAA), AAAA: net.IP(a.AsSlice())}
		}
		rr.Header().Ttl = ttl
		list = append(list, rr)
	}
	return list
}

// addANY answers with one small synthesised record (RFC 8482, section 4.2).
func addANY(r *dns.Msg, owner string) {
	r.Answer = append(r.Answer, &dns.HINFO{Hdr: header(owner, dns.TypeHINFO), Cpu: "RFC8482"})
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
