package topology

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// subnet is a cluster's range and where the file gives it.
type subnet struct {
	netip.Prefix
	at      position
	cluster *clusterDraft
	link    *linkDraft // instead of cluster
	auto    bool
}

func (s *subnet) of() string {
	if s.link != nil {
		return fmt.Sprintf("the link in line %d", s.link.at.line)
	}
	return "cluster " + s.cluster.out.Name
}

// address reads one address as a station or a resolver may have it.
func (l *loader) address(n *node) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(n.text)
	message, hint := "", ""
	switch {
	case strings.Contains(n.text, "/"):
		message, hint = "an address has no prefix length", "write "+strings.SplitN(n.text, "/", 2)[0]
	case err != nil:
		message, hint = "not an IP address", "write it like 10.20.0.5 or fd20::5"
	case addr.Zone() != "":
		message, hint = "an address here has no zone", "write "+addr.WithZone("").String()
	case addr.Is4In6():
		message, hint = "an IPv4 address written as IPv6", "write "+addr.Unmap().String()
	case addr.IsUnspecified(), addr.IsMulticast(), addr.IsLoopback(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		message, hint = "not the address of a machine", "write it like 10.20.0.5 or fd20::5"
	default:
		return addr, true
	}
	l.spoil(n, fmt.Sprintf("%s: %s", quoted(n.text), message), hint)
	return netip.Addr{}, false
}

// subnet reads a cluster's range.
func (l *loader) subnet(n *node) (netip.Prefix, bool) {
	prefix, ok := l.prefix(n)
	if !ok {
		return prefix, false
	}
	if prefix.IsSingleIP() {
		l.spoil(n, fmt.Sprintf("subnet %s has room for one address only", prefix), "use at least a /31 (IPv4) or /127 (IPv6)")
		return prefix, false
	}
	for _, no := range unusableRanges() {
		if prefix.Overlaps(no.Prefix) {
			l.spoil(n, fmt.Sprintf("subnet %s has %s addresses (%s)", prefix, no.what, no.Prefix), "use a range outside of it")
			return prefix, false
		}
	}
	return prefix, true
}

type unusable struct {
	netip.Prefix
	what string
}

// unusableRanges lists what the kernel never routes to a station.
func unusableRanges() []unusable {
	return []unusable{
		{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
		{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
		{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
		{netip.MustParsePrefix("::/127"), "unspecified and loopback"},
		{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4-mapped"},
		{netip.MustParsePrefix("fe80::/10"), "link-local"},
		{netip.MustParsePrefix("ff00::/8"), "multicast"},
	}
}

// prefix reads a range without host bits.
func (l *loader) prefix(n *node) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(n.text)
	message, hint := "", ""
	switch {
	case !strings.Contains(n.text, "/"):
		message, hint = "a subnet needs its prefix length", "write it like 10.20.0.0/24 or fd20::/64"
	case err != nil:
		message, hint = "not a subnet", "write it like 10.20.0.0/24 or fd20::/64"
	case prefix.Addr().Is4In6():
		message, hint = "an IPv4 subnet written as IPv6", "write it like 10.20.0.0/24"
	case prefix != prefix.Masked():
		message, hint = "the address has bits beyond the prefix length", fmt.Sprintf("did you mean %s?", prefix.Masked())
	default:
		return prefix, true
	}
	l.spoil(n, fmt.Sprintf("%s: %s", quoted(n.text), message), hint)
	return netip.Prefix{}, false
}

// placeSubnets reports overlapping subnets and gives those clusters one that
// have none. Explicit ones are placed first and automatic ones in the order
// of the file, so a new cluster moves another only if both hash to the same
// place and it stands before it.
func (l *loader) placeSubnets() {
	var placed ranges
	var given []subnet
	for _, c := range l.clusters {
		given = append(append(given, c.subnets...), c.transit...)
	}
	for _, d := range l.links {
		given = append(given, d.subnets...)
	}
	for _, s := range given {
		if other, ok := placed.add(s); !ok {
			where := other.of()
			if other.cluster != nil && other.cluster == s.cluster {
				where = "this cluster"
			}
			l.report(s.at, fmt.Sprintf("subnet %s overlaps %s of %s", s.Prefix, other.Prefix, where),
				fmt.Sprintf("that one is given in line %d: use ranges that do not meet", other.at.line))
		}
	}
	full := false
	for _, c := range l.clusters {
		if len(c.subnets) > 0 || c.unsure || c.bare {
			continue
		}
		prefix, ok := netip.Prefix{}, false
		if !full {
			prefix, ok = freeSubnet(c.out.Name, &placed)
		}
		if !ok {
			full, c.unsure = true, true
			l.report(c.at, "no automatic subnet is left in 10.0.0.0/8", "give the cluster a subnet")
			continue
		}
		s := subnet{Prefix: prefix, at: c.at, cluster: c, auto: true}
		c.subnets = append(c.subnets, s)
		placed.add(s)
	}
	l.placeTransits(&placed)
}

// ranges is a set of subnets that do not overlap, in the order of addresses.
type ranges []subnet

// add puts a subnet in, or returns one that it overlaps.
func (r *ranges) add(s subnet) (other subnet, ok bool) {
	if other, bad := r.overlapping(s.Prefix); bad {
		return other, false
	}
	*r = slices.Insert(*r, r.place(s.Prefix), s)
	return subnet{}, true
}

// overlapping looks at the two neighbours that p would have: as none of the
// set overlap, no other can.
func (r *ranges) overlapping(p netip.Prefix) (subnet, bool) {
	i := r.place(p)
	for k := max(i-1, 0); k <= i && k < len(*r); k++ {
		if p.Overlaps((*r)[k].Prefix) {
			return (*r)[k], true
		}
	}
	return subnet{}, false
}

func (r *ranges) place(p netip.Prefix) int {
	i, _ := slices.BinarySearchFunc(*r, p.Addr(), func(e subnet, a netip.Addr) int { return e.Addr().Compare(a) })
	return i
}

// freeSubnet picks a /20 of 10.0.0.0/8 by the cluster's name alone: copies of
// a topology under other names have the same addresses. 10.255.0.0/16 stays
// free for the machine's own links.
func freeSubnet(cluster string, placed *ranges) (netip.Prefix, bool) {
	const slots = 1<<12 - 1<<4
	start := hash(cluster) % slots
	for i := range uint64(slots) {
		slot := (start + i) % slots
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(slot >> 4), byte(slot << 4), 0}), 20)
		if _, taken := placed.overlapping(prefix); !taken {
			return prefix, true
		}
	}
	return netip.Prefix{}, false
}

// hash spreads names evenly and is the same for ever: addresses depend on it.
func hash(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:8])
}
