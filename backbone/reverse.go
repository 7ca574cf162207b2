package backbone

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

const (
	suffix4 = "in-addr.arpa."
	suffix6 = "ip6.arpa."
)

func isReverse(name string) bool {
	return strings.HasSuffix(name, "."+suffix4) || strings.HasSuffix(name, "."+suffix6)
}

// answerReverse answers for names below in-addr.arpa (RFC 1035, section 3.5)
// and ip6.arpa (RFC 3596, section 2.5). All of our subnets is ours: an unused
// address in them never becomes a question to the outside.
func (z *zones) answerReverse(r *dns.Msg, owner, name string, asker int) bool {
	q := &r.Question[0]
	block, below, ok := parseReverse(name)
	if !ok {
		return false
	}
	subnet, _, ours := z.subnetOf(block.Addr())
	if !ours && block.IsSingleIP() && len(z.pointers[block.Addr()]) > 0 {
		// An address of a loopback: of the block around it, it alone is ours.
		subnet, ours = block, true
	}
	if !ours || block.Bits() < subnet.Bits() || block.Addr().Is4In6() {
		return false
	}
	zone := reverseName(zoneBlock(block.Addr(), subnet.Bits()))
	before := len(r.Answer)
	r.Authoritative = true
	switch {
	case below:
		r.Rcode = dns.RcodeNameError
	case block.IsSingleIP():
		list := z.pointers[block.Addr()]
		if len(list) == 0 && zone != name {
			r.Rcode = dns.RcodeNameError
		}
		if q.Qtype == dns.TypePTR && len(list) > 0 {
			addPointers(r, owner, list, asker)
		}
		if q.Qtype == dns.TypeANY && len(list) > 0 {
			addANY(r, owner)
		}
	case zone != name && !z.anyIn(block):
		r.Rcode = dns.RcodeNameError
	}
	if zone == name && q.Qtype == dns.TypeSOA {
		r.Answer = append(r.Answer, soa(owner, zone))
	}
	if zone == name && q.Qtype == dns.TypeNS {
		r.Answer = append(r.Answer, ns(owner, zone))
	}
	if len(r.Answer) == before {
		r.Ns = append(r.Ns, soa(zone, zone))
	}
	return true
}

// addPointers gives the names in the asker's own cluster, or else all.
func addPointers(r *dns.Msg, owner string, list []pointer, asker int) {
	own := slices.ContainsFunc(list, func(p pointer) bool { return p.cluster == asker })
	for _, p := range list {
		if !own || p.cluster == asker {
			r.Answer = append(r.Answer, &dns.PTR{Hdr: header(owner, dns.TypePTR), Ptr: p.name})
		}
	}
}

// anyIn says whether some known address lies in the block.
func (z *zones) anyIn(block netip.Prefix) bool {
	for a := range z.pointers {
		if block.Contains(a) {
			return true
		}
	}
	return false
}

// zoneBlock is the largest block around addr that has a reverse name and lies
// wholly in a subnet of the given length.
func zoneBlock(addr netip.Addr, bits int) netip.Prefix {
	step := 4
	if addr.Is4() {
		step = 8
	}
	p, _ := addr.Prefix((bits + step - 1) / step * step)
	return p
}

// parseReverse reads a canonical reverse name. Fewer labels than an address
// has name a block; below is set when there are more.
func parseReverse(name string) (block netip.Prefix, below, ok bool) {
	var addr [16]byte
	if rest, is4 := strings.CutSuffix(name, "."+suffix4); is4 {
		labels := strings.Split(rest, ".")
		n := 0
		for n < len(labels) && n < 4 {
			label := labels[len(labels)-1-n]
			v, err := strconv.ParseUint(label, 10, 8)
			if err != nil || strconv.FormatUint(v, 10) != label {
				break
			}
			addr[n] = byte(v)
			n++
		}
		if n == 0 {
			return netip.Prefix{}, false, false
		}
		block = netip.PrefixFrom(netip.AddrFrom4([4]byte(addr[:4])), n*8)
		return block, n < len(labels), true
	}
	rest, is6 := strings.CutSuffix(name, "."+suffix6)
	if !is6 {
		return netip.Prefix{}, false, false
	}
	labels := strings.Split(rest, ".")
	n := 0
	for n < len(labels) && n < 32 {
		label := labels[len(labels)-1-n]
		v, err := strconv.ParseUint(label, 16, 4)
		if err != nil || len(label) != 1 {
			break
		}
		addr[n/2] |= byte(v) << (4 * (1 - n%2))
		n++
	}
	if n == 0 {
		return netip.Prefix{}, false, false
	}
	block = netip.PrefixFrom(netip.AddrFrom16(addr), n*4)
	return block, n < len(labels), true
}

// reverseName is the name of a block that ends on a label.
func reverseName(block netip.Prefix) string {
	var b strings.Builder
	bytes := block.Addr().AsSlice()
	if block.Addr().Is4() {
		for i := block.Bits()/8 - 1; i >= 0; i-- {
			b.WriteString(strconv.Itoa(int(bytes[i])))
			b.WriteByte('.')
		}
		b.WriteString(suffix4)
		return b.String()
	}
	const hex = "0123456789abcdef"
	for i := block.Bits()/4 - 1; i >= 0; i-- {
		b.WriteByte(hex[bytes[i/2]>>(4*(1-i%2))&0xf])
		b.WriteByte('.')
	}
	b.WriteString(suffix6)
	return b.String()
}
