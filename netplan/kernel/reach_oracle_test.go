package kernel

import (
	"net/netip"
	"slices"

	"platelayer/topology"
)

// oracle says who reaches whom by the words of docs/topology.md, from the
// topology and not from its plan: boxes on wires, each with what it knows.
type oracle struct {
	t     *topology.Topology
	boxes map[string]*box // by a station's ID, and "backbone"
	wires map[string][]plug
}

// box is a station or the backbone.
type box struct {
	id       string
	plugs    []plug
	loopback []netip.Addr
	knows    []knowledge
	through  []knowledge // of a gateway: its cluster's own traffic, before knows
	forwards bool
}

// plug is a box's address on a wire; invalid on one without addresses.
type plug struct {
	box    *box
	wire   string
	addr   netip.Addr
	subnet netip.Prefix
}

// knowledge is where a box sends what is for a place.
type knowledge struct {
	to      netip.Prefix
	of      netip.Prefix // only what comes from there, where it is valid
	metric  uint32
	hop     netip.Addr // invalid: whom the packet is for
	wire    string
	nowhere bool
}

func newOracle(t *topology.Topology) *oracle {
	o := &oracle{t: t, boxes: map[string]*box{"backbone": {id: "backbone", forwards: true}}, wires: map[string][]plug{}}
	for _, s := range t.Stations() {
		b := &box{id: s.ID(), loopback: s.Loopback}
		for _, setting := range s.Sysctls {
			b.forwards = b.forwards || setting.Name == "net.ipv4.ip_forward" && setting.Value == "1"
		}
		o.boxes[s.ID()] = b
		o.plugIn(b, s.Cluster, s.Addresses)
		for _, f := range s.Interfaces {
			o.plugIn(b, f.Cluster, f.Addresses)
		}
	}
	for i, l := range t.Links {
		for _, e := range l.Ends {
			o.plug(o.boxes[e.Station], "link "+string(rune('a'+i)), l.Subnets, e.Addresses)
		}
	}
	for i := range t.Clusters {
		o.leadOut(&t.Clusters[i])
	}
	for _, s := range t.Stations() {
		o.ownRoutes(s)
	}
	for _, r := range t.Backbone.Routes {
		o.backboneRoute(r)
	}
	return o
}

// plugIn puts a box on a cluster's switch.
func (o *oracle) plugIn(b *box, cluster string, addresses []netip.Addr) {
	o.plug(b, "cluster "+cluster, o.cluster(cluster).Subnets, addresses)
}

func (o *oracle) cluster(name string) *topology.Cluster {
	for i := range o.t.Clusters {
		if o.t.Clusters[i].Name == name {
			return &o.t.Clusters[i]
		}
	}
	panic("no cluster " + name)
}

func (o *oracle) plug(b *box, wire string, subnets []netip.Prefix, addresses []netip.Addr) {
	if len(addresses) == 0 {
		o.add(plug{box: b, wire: wire})
	}
	for _, a := range addresses {
		for _, s := range subnets {
			if s.Contains(a) {
				o.add(plug{b, wire, a, s})
				b.knows = append(b.knows, knowledge{to: s, wire: wire})
			}
		}
	}
}

func (o *oracle) add(p plug) {
	p.box.plugs = append(p.box.plugs, p)
	o.wires[p.wire] = append(o.wires[p.wire], p)
}

// leadOut connects a cluster to the backbone: itself, through its gateway, or
// through those that stand by.
func (o *oracle) leadOut(c *topology.Cluster) {
	backbone := o.boxes["backbone"]
	wire := "cluster " + c.Name
	inline := len(c.Transit) > 0
	if inline {
		wire = "transit " + c.Name
		for _, s := range c.Transit {
			o.add(plug{backbone, wire, s.Addr(), s})
			backbone.knows = append(backbone.knows, knowledge{to: s, wire: wire})
			gateway := o.boxes[c.Name+"/"+c.Gateway]
			o.add(plug{gateway, wire, s.Addr().Next(), s})
			gateway.knows = append(gateway.knows, knowledge{to: s, wire: wire})
		}
	}
	for i, a := range c.BackboneAddresses {
		o.add(plug{backbone, wire, a, c.Subnets[i]})
		if c.Gateway == "" {
			backbone.knows = append(backbone.knows, knowledge{to: c.Subnets[i], wire: wire})
		}
	}
	for _, g := range o.gatewaysOf(c) {
		g.box.forwards = true
		for _, p := range slices.Clone(g.box.plugs) {
			switch {
			case p.wire == "cluster "+c.Name && !inline && len(c.BackboneAddresses) > 0:
				backbone.knows = append(backbone.knows, knowledge{to: p.subnet, metric: g.metric, hop: p.addr, wire: wire},
					knowledge{to: netip.PrefixFrom(p.addr, p.addr.BitLen()), wire: wire})
			case p.wire == wire && inline:
				for _, s := range c.Subnets {
					if s.Addr().Is4() == p.addr.Is4() {
						backbone.knows = append(backbone.knows, knowledge{to: s, hop: p.addr, wire: wire})
					}
				}
			}
		}
	}
}

// leader is a gateway of a cluster.
type leader struct {
	box    *box
	metric uint32
}

func (o *oracle) gatewaysOf(c *topology.Cluster) []leader {
	if c.Gateway == "" {
		return nil
	}
	all := []leader{{o.boxes[c.Name+"/"+c.Gateway], c.Metric}}
	for _, s := range c.Standby {
		all = append(all, leader{o.boxes[c.Name+"/"+s.Station], s.Metric})
	}
	return all
}

// towards is how a station that leads a cluster, or is in one without a
// gateway, sends to the backbone.
func (o *oracle) towards(c *topology.Cluster, six bool) (knowledge, bool) {
	for _, p := range o.boxes["backbone"].plugs {
		if (p.wire == "cluster "+c.Name || p.wire == "transit "+c.Name) && p.addr.Is6() == six {
			return knowledge{hop: p.addr, wire: p.wire}, true
		}
	}
	return knowledge{}, false
}

// ownRoutes adds a station's default routes and its further ones, and to the
// gateway of a cluster that everything between that and others passes.
func (o *oracle) ownRoutes(s *topology.Station) {
	b := o.boxes[s.ID()]
	own := func(to netip.Prefix) bool {
		return slices.ContainsFunc(s.Routes, func(r topology.Route) bool { return r.To == to })
	}
	clusters := []*topology.Cluster{o.cluster(s.Cluster)}
	for _, f := range s.Interfaces {
		clusters = append(clusters, o.cluster(f.Cluster))
	}
	for _, six := range []bool{false, true} {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if six {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		for _, c := range clusters {
			ways := o.waysOut(c, b, six)
			for _, way := range ways {
				if way.to = all; !own(all) {
					b.knows = append(b.knows, way)
				}
			}
			if len(ways) > 0 {
				break
			}
		}
	}
	for _, r := range s.Routes {
		way := knowledge{to: r.To, metric: r.Metric, hop: r.Via, nowhere: r.Type != ""}
		for _, p := range b.plugs {
			if r.Via.IsValid() && p.subnet.Contains(r.Via) {
				way.wire = p.wire
			}
		}
		if r.Dev != "" { // the sketches have no names of their own
			way.wire = o.wireOf(s, r.Dev)
		}
		b.knows = append(b.knows, way)
	}
	home := clusters[0]
	if home.Gateway != s.Name {
		return
	}
	for _, c := range clusters[1:] {
		for _, from := range home.Subnets {
			for _, to := range c.Subnets {
				way, out := o.towards(home, from.Addr().Is6())
				if way.to, way.of = to, from; out && from.Addr().Is6() == to.Addr().Is6() {
					b.through = append(b.through, way)
				}
			}
		}
	}
}

// waysOut are a box's ways out of a cluster.
func (o *oracle) waysOut(c *topology.Cluster, b *box, six bool) []knowledge {
	gateways := o.gatewaysOf(c)
	if len(gateways) == 0 || slices.ContainsFunc(gateways, func(g leader) bool { return g.box == b }) {
		if way, ok := o.towards(c, six); ok {
			return []knowledge{way}
		}
		return nil
	}
	var ways []knowledge
	for _, g := range gateways {
		for _, p := range g.box.plugs {
			if p.wire == "cluster "+c.Name && p.addr.IsValid() && p.addr.Is6() == six {
				ways = append(ways, knowledge{metric: g.metric, hop: p.addr, wire: p.wire})
			}
		}
	}
	return ways
}

// wireOf finds an interface by its place: clusters first, then links.
func (o *oracle) wireOf(s *topology.Station, dev string) string {
	wires := []string{"cluster " + s.Cluster}
	for _, f := range s.Interfaces {
		wires = append(wires, "cluster "+f.Cluster)
	}
	for i, l := range o.t.Links {
		for _, e := range l.Ends {
			if e.Station == s.ID() {
				wires = append(wires, "link "+string(rune('a'+i)))
			}
		}
	}
	return wires[dev[len("eth")]-'0']
}

// backboneRoute leads through the gateway first, where the next hop's cluster
// has one.
func (o *oracle) backboneRoute(r topology.Route) {
	b := o.boxes["backbone"]
	way := knowledge{to: r.To, metric: r.Metric, hop: r.Via, nowhere: r.Type != ""}
	for i := range o.t.Clusters {
		c := &o.t.Clusters[i]
		for _, s := range c.Subnets {
			if !r.Via.IsValid() || !s.Contains(r.Via) {
				continue
			}
			way.wire = "cluster " + c.Name
			for _, g := range o.gatewaysOf(c)[:min(1, len(o.gatewaysOf(c)))] {
				for _, p := range g.box.plugs {
					if p.wire == way.wire && s.Contains(p.addr) {
						way.hop = p.addr
					}
				}
			}
		}
	}
	b.knows = append(b.knows, way)
}

// reaches tells whether a station gets an answer from an address.
func (o *oracle) reaches(station string, to netip.Addr) bool {
	from := o.boxes[station]
	end, source, arrived := o.follow(from, netip.Addr{}, to)
	if !arrived {
		return false
	}
	back, _, arrived := o.follow(end, to, source)
	return arrived && back == from
}

// leaves tells whether what a station sends to an address that nobody has comes
// to the backbone, and an answer back.
func (o *oracle) leaves(station string, to netip.Addr) bool {
	from, backbone := o.boxes[station], o.boxes["backbone"]
	end, source, arrived := o.follow(from, netip.Addr{}, to)
	if _, known := backbone.way(source, to); arrived || end != backbone || known {
		return false
	}
	back, _, arrived := o.follow(end, to, source)
	return arrived && back == from
}

// follow gives the box where a packet ends, and whether that is the one that it
// is for.
func (o *oracle) follow(at *box, src, dst netip.Addr) (*box, netip.Addr, bool) {
	came := ""
	for range 64 {
		if at.has(dst) {
			return at, src, true
		}
		if came != "" && !at.forwards {
			return at, src, false
		}
		way, ok := at.way(src, dst)
		if !ok || way.nowhere {
			return at, src, false
		}
		hop := way.hop
		if !hop.IsValid() {
			hop = dst
		}
		if !src.IsValid() {
			src = at.speaksAs(way.wire, hop)
		}
		if at.id == "backbone" && o.apart(came, way.wire) {
			return at, src, false
		}
		var next *box
		for _, p := range o.wires[way.wire] {
			if p.box != at && (p.addr == hop || hop.Is4() && next == nil && p.box.has(hop)) {
				next = p.box
			}
		}
		if next == nil || !src.IsValid() {
			return at, src, false
		}
		at, came = next, way.wire
	}
	return at, src, false
}

func (b *box) has(a netip.Addr) bool {
	return slices.Contains(b.loopback, a) || slices.ContainsFunc(b.plugs, func(p plug) bool { return p.addr == a })
}

// way is the most specific that is known, of several the one with the lowest
// metric.
func (b *box) way(src, dst netip.Addr) (best knowledge, ok bool) {
	for _, k := range b.through {
		if src.IsValid() && k.of.Contains(src) && k.to.Contains(dst) {
			return k, true
		}
	}
	for _, k := range b.knows {
		if k.to.Contains(dst) && (!ok || k.to.Bits() > best.to.Bits() || k.to.Bits() == best.to.Bits() && k.metric < best.metric) {
			best, ok = k, true
		}
	}
	return best, ok
}

// speaksAs is the address that a box sends from: that of the wire, where it
// has one there.
func (b *box) speaksAs(wire string, hop netip.Addr) netip.Addr {
	for _, p := range b.plugs {
		if p.wire == wire && p.subnet.Contains(hop) {
			return p.addr
		}
	}
	var all []netip.Addr
	for _, p := range b.plugs {
		if p.wire == wire {
			all = append(all, p.addr)
		}
	}
	all = append(all, b.loopback...)
	for _, p := range b.plugs {
		all = append(all, p.addr)
	}
	for _, a := range all {
		if a.IsValid() && a.Is4() == hop.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// apart tells whether the backbone keeps apart what came by one wire and would
// leave by the other.
func (o *oracle) apart(in, out string) bool {
	of := func(wire string) *topology.Cluster {
		for i := range o.t.Clusters {
			if c := &o.t.Clusters[i]; wire == "cluster "+c.Name || wire == "transit "+c.Name {
				return c
			}
		}
		return nil
	}
	a, b := of(in), of(out)
	if a == nil || b == nil || a == b {
		return false
	}
	lets := func(c, other *topology.Cluster) bool {
		return !c.Isolated && (c.Allow == nil || slices.Contains(c.Allow, other.Name))
	}
	return !lets(a, b) || !lets(b, a)
}

// probesOf lists every station with every address of the others, as far as it
// has one of that IP version.
func (o *oracle) probes() (ids []string, asks []Ask) {
	for _, s := range o.t.Stations() {
		b := o.boxes[s.ID()]
		for _, other := range o.t.Stations() {
			for _, to := range o.boxes[other.ID()].addresses() {
				same := slices.ContainsFunc(b.addresses(), func(a netip.Addr) bool { return a.Is4() == to.Is4() })
				if same && other != s {
					ids, asks = append(ids, s.ID()), append(asks, Ask{o.t.ContainerName(s), to})
				}
			}
		}
	}
	return ids, asks
}

func (b *box) addresses() []netip.Addr {
	all := slices.Clone(b.loopback)
	for _, p := range b.plugs {
		if p.addr.IsValid() {
			all = append(all, p.addr)
		}
	}
	return all
}
