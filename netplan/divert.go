package netplan

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"platelayer/topology"
)

// Divert hands TCP and UDP that is for none of the Own destinations to a
// transparent socket on Port, and every packet for a transparent socket to that
// socket, instead of routing it (Documentation/networking/tproxy.rst). Such
// packets get Mark. A local route for everything that no other route is for
// delivers them; a policy rule for the mark would cost each packet that is
// routed the kernel's fast lookup. What else would come by that route is refused.
type Divert struct {
	Mark uint32 `json:"mark"`
	Port uint16 `json:"port"`
	// Own are the destinations that are routed, or nowhere, sorted and without
	// overlap.
	Own []netip.Prefix `json:"own"`
	// Hold drops echo requests, and the first packet of a connection, where they
	// come in: who listens sees them all the same (packet(7)), and sends the first
	// packet again by lo once the other side is there. So a station that is refused
	// is refused, and not accepted and cut off.
	Hold bool `json:"hold,omitempty"`
	// Origins are whose packets come to sockets, by interface.
	Origins []Origin `json:"origins,omitempty"`
	// Strangers bounds what the node looks for in vain; nil for none.
	Strangers *Strangers `json:"strangers,omitempty"`
	// Optional says that a kernel which cannot do it goes without: what would
	// be diverted is refused by the node for want of a route.
	Optional bool `json:"optional,omitempty"`
}

const (
	// DivertMark is what diverted packets carry (SO_MARK of nothing else here).
	DivertMark = 1
	// DivertPort is where the backbone listens, on every address.
	DivertPort = 64999
	// RouteLocal is the type of a route to the node itself.
	RouteLocal = "local"
	// RouteThrow is the type of a route that has the lookup find none.
	RouteThrow = "throw"
	// lastMetric has every other route to the same destination come first.
	lastMetric = math.MaxUint32
)

// divert plans what becomes of packets that a router of these routes has no way
// for.
func (b *builder) divert(n *Node) {
	n.Divert = &Divert{Mark: DivertMark, Port: DivertPort, Hold: true, Own: b.ownDestinations(n), Optional: !b.t.LetsOut() && !publishes(b.t)}
	n.Sysctls = append(n.Sysctls, divertSysctls()...)
	four, six := n.Divert.ByFamily()
	if !b.ipv6 {
		six = nil
	}
	for _, own := range [][]netip.Prefix{four, six} {
		if len(own) == 0 || own[0].Bits() == 0 {
			continue // nothing is diverted
		}
		for _, to := range own {
			if slices.ContainsFunc(n.Routes, func(r Route) bool { return r.Table == 0 && r.To.Masked() == to && r.Metric == lastMetric }) {
				continue
			}
			n.Routes = append(n.Routes, Route{Type: RouteThrow, To: to, Metric: lastMetric})
		}
		n.Routes = append(n.Routes, Route{Type: RouteLocal, To: everywhere(own[0].Addr()), Dev: "lo", Metric: lastMetric})
	}
}

// divertSysctls keep ARP (RFC 826) to the addresses that a node's interfaces
// have: the kernel would take those that a local route is for as well.
func divertSysctls() []Sysctl {
	return []Sysctl{
		{Key: "net.ipv4.conf.all.arp_ignore", Value: "3"},
		{Key: "net.ipv4.conf.all.arp_announce", Value: "2"},
	}
}

// Undiverted is the node as it is on a kernel that cannot divert.
func (n *Node) Undiverted() *Node {
	less := *n
	less.Divert = nil
	less.Routes = slices.DeleteFunc(slices.Clone(n.Routes), func(r Route) bool { return r.diverts() })
	return &less
}

// diverts tells whether a route is for what is diverted, and not for what is
// forwarded.
func (r *Route) diverts() bool { return r.Type == RouteLocal || r.Type == RouteThrow }

// MustDivert is the namespace of the node with a divert that is not optional, or
// "".
func (p *Plan) MustDivert() string {
	for i := range p.Nodes {
		if d := p.Nodes[i].Divert; d != nil && !d.Optional {
			return p.Nodes[i].NetNS
		}
	}
	return ""
}

// publishes tells whether the backbone talks to stations with the addresses of
// clients outside, whose answers are diverted.
func publishes(t *topology.Topology) bool {
	return slices.ContainsFunc(t.Clusters, func(c topology.Cluster) bool {
		return slices.ContainsFunc(c.Stations, func(s topology.Station) bool { return len(s.Ports) > 0 })
	})
}

// ownDestinations are the subnets and routes of a node, what else the topology
// has, be it out of the node's reach, and what never leaves a link (RFC 6890): broadcast, multicast, IPv6's link-local addresses. IPv4's
// are diverted, for clouds serve their instances' secrets there and a station
// has no other of these as its neighbour.
func (b *builder) ownDestinations(n *Node) []netip.Prefix {
	all := []netip.Prefix{uplinks4(), uplinks6()}
	for _, text := range []string{"0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::/127", "fe80::/10", "ff00::/8"} {
		all = append(all, netip.MustParsePrefix(text))
	}
	for _, f := range n.Interfaces {
		for _, a := range f.Addresses {
			all = append(all, a.Masked())
		}
	}
	for _, r := range n.Routes {
		all = append(all, r.To.Masked())
	}
	for _, c := range b.t.Clusters {
		for _, s := range c.Subnets {
			all = append(all, s.Masked())
		}
	}
	for _, l := range b.t.Links {
		for _, s := range l.Subnets {
			all = append(all, s.Masked())
		}
	}
	for _, s := range b.t.Stations() {
		for _, a := range s.Loopback {
			all = append(all, host(a))
		}
	}
	return apartPrefixes(all)
}

// apartPrefixes sorts and drops what others contain.
func apartPrefixes(all []netip.Prefix) []netip.Prefix {
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var kept []netip.Prefix
	for _, p := range all {
		if len(kept) == 0 || !kept[len(kept)-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// Text is the divert as nft(8) takes it.
func (d *Divert) Text() string {
	var w strings.Builder
	if d.Strangers != nil {
		fmt.Fprint(&w, d.Strangers.early())
	}
	four, six := d.ByFamily()
	for _, f := range []struct {
		word string
		own  []netip.Prefix
	}{{"ip", four}, {"ip6", six}} {
		var own []string
		for _, p := range f.own {
			own = append(own, p.String())
		}
		if len(own) > 0 {
			fmt.Fprintf(&w, "nft add rule inet platelayer divert %s daddr { %s } return\n", f.word, strings.Join(own, ", "))
		}
	}
	for _, o := range d.Origins {
		fmt.Fprint(&w, o.Text())
	}
	fmt.Fprintf(&w, "nft add rule inet platelayer divert iif lo meta mark != %d reject with icmpx no-route\n", d.Mark)
	if d.Hold {
		fmt.Fprintln(&w, "nft add rule inet platelayer divert iif != lo tcp flags & (syn | ack) == syn drop")
		fmt.Fprintln(&w, "nft add rule inet platelayer divert iif != lo icmp type echo-request drop")
		fmt.Fprintln(&w, "nft add rule inet platelayer divert iif != lo icmpv6 type echo-request drop")
	}
	fmt.Fprintf(&w, "nft add rule inet platelayer divert tcp flags & (syn | ack) == syn tproxy to :%d meta mark set %d accept\n", d.Port, d.Mark)
	fmt.Fprintf(&w, "nft add rule inet platelayer divert meta l4proto { tcp, udp } socket transparent 1 meta mark set %d accept\n", d.Mark)
	fmt.Fprintf(&w, "nft add rule inet platelayer divert meta l4proto { tcp, udp } tproxy to :%d meta mark set %d accept\n", d.Port, d.Mark)
	fmt.Fprintln(&w, "nft add rule inet platelayer divert reject with icmpx no-route")
	if d.Strangers != nil {
		fmt.Fprint(&w, d.Strangers.Text())
	}
	return w.String()
}

// ByFamily parts the own destinations by IP version.
func (d *Divert) ByFamily() (four, six []netip.Prefix) {
	for _, p := range d.Own {
		if p.Addr().Is4() {
			four = append(four, p)
		} else {
			six = append(six, p)
		}
	}
	return four, six
}
