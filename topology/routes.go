package topology

import (
	"fmt"
	"net/netip"
)

// routeDraft is a route with the place of its next hop.
type routeDraft struct {
	Route
	via *node
}

// routes reads a station's routes by themselves.
func (l *loader) routes(s *stationDraft) {
	seen := map[netip.Prefix]bool{}
	for _, n := range s.body.get("routes").good() {
		to, via := n.get("to"), n.get("via")
		if to == nil || via == nil {
			continue
		}
		hop, ok := l.address(via)
		prefix, fine := l.destination(to, hop)
		if !ok || !fine {
			continue
		}
		if prefix.Addr().Is4() != hop.Is4() {
			l.spoil(via, fmt.Sprintf("%s and %s are not of one IP version", to.text, hop), "a route's next hop is of its own version")
			continue
		}
		if seen[prefix] {
			l.spoil(to, fmt.Sprintf("a second route to %s", to.text), "remove one")
			continue
		}
		seen[prefix] = true
		s.routes = append(s.routes, routeDraft{Route{To: prefix, Via: hop}, via})
	}
}

// destination reads what a route leads to; default is of the next hop's
// version.
func (l *loader) destination(n *node, hop netip.Addr) (netip.Prefix, bool) {
	if n.text == "default" {
		if hop.Is4() {
			return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
		}
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0), hop.IsValid()
	}
	if addr, err := netip.ParseAddr(n.text); err == nil {
		if _, ok := l.address(n); !ok {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(addr, addr.BitLen()), true
	}
	return l.prefix(n)
}

// checkRoutes reports next hops that are not on a wire of the station's.
func (l *loader) checkRoutes() {
	for _, c := range l.clusters {
		for _, s := range c.stations {
			sure := !s.unsure
			for _, g := range s.legs {
				sure = sure && !g.cluster.unsure
			}
			for _, r := range s.routes {
				s.out.Routes = append(s.out.Routes, r.Route)
				if sure {
					l.checkHop(s, r)
				}
			}
		}
	}
}

func (l *loader) checkHop(s *stationDraft, r routeDraft) {
	for _, g := range s.legs {
		for i, in := range g.cluster.subnets {
			if !in.Contains(r.Via) {
				continue
			}
			h := hostsOf(in.Prefix)
			switch {
			case i < len(g.addresses) && g.addresses[i] == r.Via:
				l.spoil(r.via, fmt.Sprintf("next hop %s is the station itself", r.Via), "name a neighbour's address")
			case r.Via.Less(h.first) || h.last.Less(r.Via):
				l.spoil(r.via, fmt.Sprintf("next hop %s is the network or broadcast address of %s", r.Via, in.Prefix), "name a neighbour's address")
			}
			return
		}
	}
	l.spoil(r.via, fmt.Sprintf("next hop %s is in no subnet of the station's interfaces", r.Via),
		"a next hop is a neighbour; to reach it, add an interface in its cluster")
}
