package netplan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Network tells which way packets go, from the plan alone: it looks routes up
// as Linux does (ip-rule(8), ip-route(8)) at every node that a packet comes to.
// What programs do on stations, such as filters and routing daemons, is not in
// the plan.
type Network struct {
	nodes map[string]*router       // by namespace
	order []*router                // as in the plan
	wires map[string]map[key]*port // who answers for an address on a wire
}

type key struct {
	addr netip.Addr
	port bool // of this very interface
}

// port is a node's interface on a wire.
type port struct {
	at   *router
	name string
}

// router is a node with what is looked up for each packet.
type router struct {
	*Node
	name     string
	own      map[netip.Addr]bool
	tables   map[uint32][]entry // the best first
	wire     map[string]string  // by interface
	bridge   map[string]string  // likewise: the wire without regard to VLANs
	apart    map[Pair]bool
	forwards [2]bool // IPv4, IPv6
	filter   int     // rp_filter
}

// entry is a route of a table; source is that of the kernel's own.
type entry struct {
	Route
	source netip.Addr
}

// NewNetwork reads a plan.
func NewNetwork(p *Plan) *Network {
	w := &Network{nodes: map[string]*router{}, wires: map[string]map[key]*port{}}
	for i := range p.Nodes {
		r := newRouter(&p.Nodes[i])
		w.nodes[r.NetNS] = r
		w.order = append(w.order, r)
	}
	switches := map[string]*Bridge{}
	for i := range p.Fabric.Bridges {
		switches[p.Fabric.Bridges[i].Name] = &p.Fabric.Bridges[i]
	}
	for _, r := range w.order {
		for _, f := range r.Interfaces {
			r.bridge[f.Name] = wireOf(r.Node, f)
			r.wire[f.Name] = vlanOf(switches[f.Bridge], f, r.bridge[f.Name])
			w.plug(r.wire[f.Name], r, f)
			w.plug(r.bridge[f.Name], r, f)
		}
	}
	return w
}

// plug has an interface answer on a wire.
func (w *Network) plug(wire string, r *router, f Interface) {
	if w.wires[wire] == nil {
		w.wires[wire] = map[key]*port{}
	}
	for a := range r.own {
		here := slices.ContainsFunc(f.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
		for _, k := range []key{{a, false}, {a, true}} {
			if w.wires[wire][k] == nil && (here || !k.port) {
				w.wires[wire][k] = &port{r, f.Name}
			}
		}
	}
}

// vlanOf narrows a wire to the VLAN that an interface's frames are in, which have
// no tags: what is tagged comes from interfaces that programs make.
func vlanOf(b *Bridge, f Interface, wire string) string {
	if b == nil || len(b.VLANs) == 0 {
		return wire
	}
	id := DefaultVLAN
	for _, v := range b.VLANs {
		if v.Port == f.Peer {
			id = v.Untagged
		}
	}
	if id == 0 { // tagged frames alone pass
		return wire + " " + f.Peer
	}
	return fmt.Sprintf("%s vlan %d", wire, id)
}

func newRouter(n *Node) *router {
	r := &router{Node: n, name: "backbone", own: map[netip.Addr]bool{}, tables: map[uint32][]entry{}, wire: map[string]string{}, bridge: map[string]string{}, apart: map[Pair]bool{}}
	if n.Station != "" {
		r.name = n.Cluster + "/" + n.Station
	}
	for _, s := range n.Sysctls {
		switch on := s.Value != "0"; s.Key {
		case "net.ipv4.ip_forward":
			r.forwards[0] = on
		case "net.ipv6.conf.all.forwarding":
			r.forwards[1] = on
		case "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter":
			value, _ := strconv.Atoi(s.Value) // of a setting that the kernel refuses nothing is left
			r.filter = max(r.filter, value)
		}
	}
	for _, a := range n.Loopback {
		r.own[a.Addr()] = true
	}
	for _, f := range n.Interfaces {
		subnets := map[netip.Prefix]bool{}
		for _, a := range f.Addresses {
			r.own[a.Addr()] = true
			if subnet := a.Masked(); !f.NoPrefixRoute && !subnets[subnet] {
				subnets[subnet] = true
				r.tables[0] = append(r.tables[0], entry{Route{To: subnet, Dev: f.Name, Metric: connectedMetric(subnet)}, a.Addr()})
			}
		}
	}
	for _, route := range n.Routes {
		if route.diverts() {
			continue
		}
		if route.To.Addr().Is6() && route.Metric == 0 {
			route.Metric = 1024 // IP6_RT_PRIO_USER
		}
		r.tables[route.Table] = append(r.tables[route.Table], entry{Route: route})
	}
	for _, table := range r.tables {
		slices.SortStableFunc(table, func(a, b entry) int {
			return cmp.Or(b.To.Bits()-a.To.Bits(), cmp.Compare(a.Metric, b.Metric))
		})
	}
	for _, p := range n.Apart {
		r.apart[p] = true
	}
	return r
}

// connectedMetric is that of the kernel's own routes to subnets: for IPv6
// IP6_RT_PRIO_ADDRCONF.
func connectedMetric(subnet netip.Prefix) uint32 {
	if subnet.Addr().Is6() {
		return 256
	}
	return 0
}

// wireOf names the bridge or the link that an interface is on; both ends of a
// link have one name for it.
func wireOf(n *Node, f Interface) string {
	if !f.Linked() {
		return f.Bridge
	}
	one, other := n.NetNS+" "+f.Name, f.PeerNetNS+" "+f.Peer
	return min(one, other) + " " + max(one, other)
}

// diverts tells whether a packet that comes in goes to the node's transparent
// socket, and from there outside.
func (r *router) diverts(dst netip.Addr) bool {
	return r.Divert != nil && !slices.ContainsFunc(r.Divert.Own, func(p netip.Prefix) bool { return p.Contains(dst) })
}

// lookup finds the route that a packet takes; src is invalid where it has no
// source yet.
func (r *router) lookup(src, dst netip.Addr) (entry, bool) {
	in := func(table uint32) (entry, bool) {
		for _, e := range r.tables[table] {
			if e.To.Contains(dst) {
				return e, true
			}
		}
		return entry{}, false
	}
	for _, rule := range r.Rules { // in the order of their priorities
		if rule.Mark != 0 || // what stays inside carries none
			rule.From.IsValid() && !rule.From.Contains(src) || rule.To.IsValid() && !rule.To.Contains(dst) {
			continue
		}
		if e, ok := in(rule.Table); ok {
			return e, true
		}
	}
	return in(0)
}

// source is the address that the kernel gives a packet of the node's own.
func (r *router) source(e entry, dst netip.Addr) netip.Addr {
	if dst.Is6() {
		return r.source6(e.Dev, dst)
	}
	if e.source.IsValid() {
		return e.source
	}
	// inet_select_addr() of net/ipv4/devinet.c: one of the interface, in the
	// next hop's subnet if there is one; otherwise of lo, then of any other.
	var first, other netip.Addr
	for _, a := range r.Loopback {
		if !other.IsValid() && a.Addr().Is4() {
			other = a.Addr()
		}
	}
	for _, f := range r.Interfaces {
		for _, a := range f.Addresses {
			switch {
			case !a.Addr().Is4():
			case f.Name != e.Dev && !other.IsValid():
				other = a.Addr()
			case f.Name == e.Dev && e.Via.IsValid() && a.Contains(e.Via):
				return a.Addr()
			case f.Name == e.Dev && !first.IsValid():
				first = a.Addr()
			}
		}
	}
	if first.IsValid() {
		return first
	}
	return other
}

// source6 is RFC 6724, section 5, as far as global addresses go: one of the
// outgoing interface (rule 5), of the destination's label (6), with the
// longest common prefix, up to its own length (8); then the latest, as
// ipv6_dev_get_saddr() has it.
func (r *router) source6(dev string, dst netip.Addr) netip.Addr {
	unique := netip.MustParsePrefix("fc00::/7")
	var best netip.Addr
	score := -1
	try := func(name string, a netip.Prefix) {
		if !a.Addr().Is6() {
			return
		}
		s := min(commonBits(a.Addr(), dst), a.Bits())
		if unique.Contains(a.Addr()) == unique.Contains(dst) {
			s += 1 << 8
		}
		if name == dev {
			s += 1 << 9
		}
		if s > score {
			best, score = a.Addr(), s
		}
	}
	for _, a := range slices.Backward(r.Loopback) {
		try("lo", a)
	}
	for _, f := range r.Interfaces {
		for _, a := range slices.Backward(f.Addresses) {
			try(f.Name, a)
		}
	}
	return best
}

func commonBits(a, b netip.Addr) int {
	for bits := a.BitLen(); bits > 0; bits-- {
		if p, err := a.Prefix(bits); err == nil && p.Contains(b) {
			return bits
		}
	}
	return 0
}

// passes is rp_filter (Documentation/networking/ip-sysctl.rst) of a packet that
// came in by an interface: 1 wants the way back to be that one, 2 any way.
func (r *router) passes(in string, src, dst netip.Addr) bool {
	if r.filter == 0 || src.Is6() {
		return true
	}
	back, ok := r.lookup(dst, src)
	return ok && back.Type == "" && (r.filter > 1 || back.Dev == in)
}

// neighbour is who answers on a wire for an address: for IPv4 any node that has
// it (arp_ignore is 0), for IPv6 the interface that has it (RFC 4861).
func (w *Network) neighbour(wire string, a netip.Addr, asker *router) *port {
	p := w.wires[wire][key{a, true}]
	if p == nil && a.Is4() {
		p = w.wires[wire][key{a, false}]
	}
	if p != nil && p.at == asker {
		return nil
	}
	return p
}

// whyOf words what a route's type does.
func whyOf(kind string) Why {
	switch kind {
	case RouteBlackhole:
		return Blackhole
	case RouteProhibit:
		return Prohibited
	}
	return Unreachable
}
