package backbone

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"platelayer/topology"
)

// addRecords adds the file's own records. Addresses under one name take turns
// as those of stations do.
func (z *zones) addRecords(records []topology.Record) error {
	for _, r := range records {
		name := canonical(r.Name)
		rr, err := parseRecord(name, r)
		if err != nil {
			return fmt.Errorf("cannot read the record %q: %w", r.String(), err)
		}
		n := z.at(name)
		z.wildcard = z.wildcard || strings.HasPrefix(name, "*.")
		switch rr := rr.(type) {
		case *dns.A:
			addr, _ := netip.AddrFromSlice(rr.A.To4())
			n.add(addr, rr.Hdr.Ttl)
		case *dns.AAAA:
			addr, _ := netip.AddrFromSlice(rr.AAAA)
			n.add(addr, rr.Hdr.Ttl)
		default:
			if n.records == nil {
				n.records = map[uint16][]dns.RR{}
			}
			n.records[rr.Header().Rrtype] = append(n.records[rr.Header().Rrtype], rr)
		}
	}
	return nil
}

func (n *node) add(addr netip.Addr, ttl uint32) {
	if n.own == nil {
		n.own = newBinding(noCluster)
	}
	family := n.own.family(addr)
	family.add(addr, "")
	family.ttl = ttl
}

// parseRecord reads a record's data.
func parseRecord(name string, r topology.Record) (dns.RR, error) {
	seconds := r.TTL
	if seconds == 0 {
		seconds = ttl
	}
	if number, generic := strings.CutPrefix(r.Type, "TYPE"); generic {
		// RFC 3597, and nothing that a type of that number would ask for.
		kind, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return nil, err
		}
		words := strings.Fields(r.Data)
		if len(words) < 2 {
			return nil, fmt.Errorf("the data %q is too short", r.Data)
		}
		text := strings.Join(words[2:], "")
		if _, err := hex.DecodeString(text); err != nil {
			return nil, err
		}
		return &dns.RFC3597{Hdr: dns.RR_Header{Name: name, Rrtype: uint16(kind), Class: dns.ClassINET, Ttl: seconds}, Rdata: text}, nil
	}
	rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", name, seconds, r.Type, r.Data))
	if err == nil && rr == nil {
		err = fmt.Errorf("there is nothing in it")
	}
	return rr, err
}

// appendRecord appends a record under the name that was asked about, which
// for a wildcard is another.
func appendRecord(list []dns.RR, rr dns.RR, owner string) []dns.RR {
	rr = dns.Copy(rr)
	rr.Header().Name = owner
	return append(list, rr)
}
