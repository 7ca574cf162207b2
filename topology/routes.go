package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// routeDraft is a route with its place.
type routeDraft struct {
	Route
	at  *node
	via *node // nil without a next hop
	dev *node // nil without an interface
}

// routesOf reads the routes below a key of a station, a cluster or the
// backbone by themselves.
func (l *loader) routesOf(body *node) []routeDraft {
	type place struct {
		to     netip.Prefix
		metric uint32
	}
	seen := map[place]bool{}
	var out []routeDraft
	for _, n := range body.get("routes").good() {
		r, ok := l.route(n)
		if !ok {
			continue
		}
		if at := (place{r.To, r.Metric}); seen[at] {
			l.spoil(n.get("to"), fmt.Sprintf("a second route to %s", n.get("to").text), "remove one, or give them different metrics")
			continue
		} else {
			seen[at] = true
		}
		out = append(out, r)
	}
	return out
}

func (l *loader) route(n *node) (routeDraft, bool) {
	to, via, dev, kind := n.get("to"), n.get("via"), n.get("dev"), n.get("type")
	r := routeDraft{at: n, via: via, dev: dev}
	if to == nil || n.spoiled("via", "dev", "type", "metric") {
		return r, false
	}
	if kind != nil && kind.text != "unicast" {
		r.Type = kind.text
	}
	switch {
	case r.Type != "" && (via != nil || dev != nil):
		l.spoil(kind, fmt.Sprintf("a route of type %s has neither via nor dev", r.Type), "remove them, or type")
		return r, false
	case r.Type == "" && via == nil && dev == nil:
		l.spoil(n, "the route leads nowhere", "add via: ADDRESS, dev: INTERFACE or type: blackhole")
		return r, false
	}
	if via != nil {
		var ok bool
		if r.Via, ok = l.address(via); !ok {
			return r, false
		}
	}
	var ok bool
	if r.To, ok = l.destination(to, r.Via); !ok {
		return r, false
	}
	if r.Via.IsValid() && r.To.Addr().Is4() != r.Via.Is4() {
		l.spoil(via, fmt.Sprintf("%s and %s are not of one IP version", to.text, r.Via), "a route's next hop is of its own version")
		return r, false
	}
	if dev != nil {
		r.Dev = dev.text
	}
	r.Metric = l.metric(n, 0)
	return r, true
}

// destination reads what a route leads to; default is of the next hop's
// version.
func (l *loader) destination(n *node, hop netip.Addr) (netip.Prefix, bool) {
	if n.text == "default" {
		if !hop.IsValid() {
			l.spoil(n, "default without via is of no IP version", "write 0.0.0.0/0 or ::/0")
			return netip.Prefix{}, false
		}
		if hop.Is4() {
			return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
		}
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
	}
	if addr, err := netip.ParseAddr(n.text); err == nil {
		if _, ok := l.address(n); !ok {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(addr, addr.BitLen()), true
	}
	return l.prefix(n)
}

// loopback reads a station's further addresses.
func (l *loader) loopback(s *stationDraft) {
	for _, n := range s.body.get("loopback").good() {
		if addr, ok := l.address(n); ok {
			if slices.Contains(s.out.Loopback, addr) {
				l.spoil(n, fmt.Sprintf("address %s is listed twice", addr), "remove one")
				continue
			}
			s.out.Loopback = append(s.out.Loopback, addr)
		}
	}
}

// wire is what a router is attached to: one subnet of one interface.
type wire struct {
	dev    string
	subnet netip.Prefix // invalid on an interface without addresses
	own    []netip.Addr
}

// wires lists what a station is attached to; false where that isn't known.
func (s *stationDraft) wires() ([]wire, bool) {
	var all []wire
	for _, g := range s.legs {
		if g.cluster.unsure {
			return nil, false
		}
		all = append(all, wire{dev: g.name})
		for _, in := range g.cluster.subnets {
			all = append(all, wire{g.name, in.Prefix, g.addresses})
		}
		if g.cluster.inline && g.cluster.out.Gateway == s.out.Name && g.cluster.out.Name == s.out.Cluster {
			for _, in := range g.cluster.out.Transit {
				_, own := TransitEnds(in)
				all = append(all, wire{TransitInterface, in, []netip.Addr{own}})
			}
		}
	}
	for _, r := range s.links {
		if r.link.unsure {
			return nil, false
		}
		end := r.link.out.Ends[r.end]
		all = append(all, wire{dev: end.Name})
		for _, in := range r.link.out.Subnets {
			all = append(all, wire{end.Name, in, end.Addresses})
		}
	}
	return all, !s.unsure
}

// checkRoutes gives stations the routes of their clusters, and reports next
// hops that are not on a wire of who has the route.
func (l *loader) checkRoutes() {
	var backbone []wire
	sure := true
	for _, c := range l.clusters {
		shared := l.routesOf(c.body)
		sure = sure && !c.unsure
		for i, in := range c.subnets {
			if c.inline || i < len(c.out.BackboneAddresses) {
				backbone = append(backbone, wire{subnet: in.Prefix, own: c.out.BackboneAddresses})
			}
		}
		for _, in := range c.out.Transit {
			own, _ := TransitEnds(in)
			backbone = append(backbone, wire{subnet: in, own: []netip.Addr{own}})
		}
		hops := map[*node]bool{} // of shared, known to lie on a station's wire
		for _, s := range c.stations {
			wires, known := s.wires()
			for _, r := range s.routes {
				s.out.Routes = append(s.out.Routes, r.Route)
				if known {
					l.checkHop(wires, r, "the station's")
				}
			}
			for _, r := range shared {
				own := slices.ContainsFunc(s.routes, func(o routeDraft) bool { return o.To == r.To && o.Metric == r.Metric })
				leads := slices.ContainsFunc(wires, func(w wire) bool { return r.Via.IsValid() && slices.Contains(w.own, r.Via) })
				if own || leads || r.inside(wires) && !r.inside(c.wires()) {
					continue
				}
				s.out.Routes = append(s.out.Routes, r.Route)
				if known && !hops[r.at] {
					hops[r.at] = true
					l.checkHop(wires, r, "a station's")
				}
			}
		}
	}
	for _, r := range l.routes {
		for _, c := range l.clusters {
			leads := c.inline || len(c.out.BackboneAddresses) > 0
			switch gateway := c.gatewayAt(r.To); {
			case leads && r.inside(c.wires()):
				l.spoil(r.at.get("to"), fmt.Sprintf("the backbone leads to cluster %s itself", c.out.Name), "a route to a part of it, or one with a metric, can stand beside that")
			case leads && !c.inline && r.Metric == 0 && gateway != "":
				l.spoil(r.at.get("to"), fmt.Sprintf("the backbone leads to gateway %s itself", gateway), "one with a metric can stand beside that")
			}
		}
		if r.dev != nil {
			l.spoil(r.dev, "a route of the backbone has no dev", "name the next hop with via")
		} else if sure {
			l.checkHop(backbone, r, "the backbone's")
		}
	}
}

// inside tells whether a route is to the very subnet of a wire, which leads
// there already.
func (r *routeDraft) inside(wires []wire) bool {
	return r.Metric == 0 && slices.ContainsFunc(wires, func(w wire) bool { return w.subnet == r.To })
}

// gatewayAt is the cluster's gateway, or one that stands by, whose address a
// route is to; "" is none.
func (c *clusterDraft) gatewayAt(to netip.Prefix) string {
	for _, s := range c.stations {
		leads := c.out.Gateway == s.out.Name || slices.ContainsFunc(c.out.Standby, func(g Gateway) bool { return g.Station == s.out.Name })
		if leads && to.IsSingleIP() && slices.Contains(s.legs[0].addresses, to.Addr()) {
			return s.out.Name
		}
	}
	return ""
}

// wires are what each of the cluster's stations is attached to.
func (c *clusterDraft) wires() []wire {
	var all []wire
	for _, in := range c.subnets {
		all = append(all, wire{subnet: in.Prefix})
	}
	return all
}

func (l *loader) checkHop(wires []wire, r routeDraft, whose string) {
	who := strings.TrimSuffix(whose, "'s")
	if who != "the backbone" && r.inside(wires) {
		l.spoil(r.at.get("to"), fmt.Sprintf("%s is in %s itself", who, r.To), "a route to a part of it, or one with a metric, can stand beside that")
		return
	}
	if r.Dev != "" && !slices.ContainsFunc(wires, func(w wire) bool { return w.dev == r.Dev }) {
		var names []string
		for _, w := range wires {
			if !slices.Contains(names, w.dev) {
				names = append(names, w.dev)
			}
		}
		l.spoil(r.dev, fmt.Sprintf("%s has no interface %s", who, quoted(r.Dev)), "it has "+orList(firstFew(names)))
		return
	}
	if r.via == nil {
		return
	}
	for _, w := range wires {
		if !w.subnet.IsValid() || !w.subnet.Contains(r.Via) || r.Dev != "" && w.dev != r.Dev {
			continue
		}
		h := hostsOf(w.subnet)
		switch {
		case slices.Contains(w.own, r.Via):
			l.spoil(r.via, fmt.Sprintf("next hop %s is %s itself", r.Via, who), "name a neighbour's address")
		case r.Via.Less(h.first) || h.last.Less(r.Via):
			l.spoil(r.via, fmt.Sprintf("next hop %s is the network or broadcast address of %s", r.Via, w.subnet), "name a neighbour's address")
		}
		return
	}
	l.spoil(r.via, fmt.Sprintf("next hop %s is in no subnet of %s interfaces", r.Via, whose),
		"a next hop is a neighbour; to reach it, add an interface in its cluster")
}

// TransitInterface is what an inline gateway's interface towards the backbone
// is called.
const TransitInterface = "transit"
