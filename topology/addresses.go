package topology

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// leg is one interface of a station in a cluster.
type leg struct {
	station   *stationDraft
	cluster   *clusterDraft
	at        position
	body      *node
	key       string       // what the automatic address follows from
	addresses []netip.Addr // one for each subnet of the cluster, invalid while open, and then further ones
	name, mac string
	mtu       int // 0 is the cluster's
	vlans     VLANs
}

func (g *leg) String() string { return "station " + g.station.out.ID() }

// resolveInterfaces finds the clusters of further interfaces, and collects
// for each cluster who is in it.
func (l *loader) resolveInterfaces() {
	byName := map[string]*clusterDraft{}
	var names []string
	for _, c := range l.clusters {
		byName[c.out.Name] = c
		names = append(names, c.out.Name)
	}
	for _, c := range l.clusters {
		for _, s := range c.places() {
			s.legs = []*leg{{station: s, cluster: c, at: s.at, body: s.body, key: s.out.Name}}
			c.legs = append(c.legs, s.legs[0])
			s.unsure = s.body.spoiled("interfaces")
			in := map[*clusterDraft]bool{c: true}
			for _, n := range s.body.get("interfaces").good() {
				to := n.get("cluster")
				if to == nil {
					s.unsure = true
					continue
				}
				target := byName[to.text]
				switch {
				case target == nil:
					hint := nearestHint(to.text, names, "its clusters are "+orList(firstFew(names)))
					s.unsure = true
					l.spoil(to, fmt.Sprintf("there is no cluster %s", quoted(to.text)), hint)
					continue
				case in[target]:
					l.spoil(to, fmt.Sprintf("the station already has an interface in cluster %s", to.text),
						"remove this one; a cluster with several subnets needs one interface only")
					continue
				}
				in[target] = true
				g := &leg{station: s, cluster: target, at: n.position, body: n, key: s.out.ID()}
				s.legs = append(s.legs, g)
				target.legs = append(target.legs, g)
			}
		}
	}
}

// placeAddresses gives every interface in a cluster one address in each of
// its subnets: first what the file says, then the backbone, then the
// automatic ones in the order of the file.
func (l *loader) placeAddresses(c *clusterDraft) {
	if c.unsure {
		l.parseOnly(c)
		return
	}
	p := placer{loader: l, cluster: c, taken: map[netip.Addr]holder{}}
	for _, g := range c.legs {
		if g.station.ghost && g.station.replicas > 0 {
			g.addresses = make([]netip.Addr, len(c.subnets))
			continue
		}
		g.addresses = p.explicit(l.oneOrMore(g.body, "address", "addresses"), g.String())
	}
	c.out.BackboneAddresses = []netip.Addr{}
	if !c.noLeg && !c.inline {
		c.out.BackboneAddresses = p.explicit(l.oneOrMore(c.body, "backbone_address", "backbone_addresses"), theBackbone)
	}
	for i := range c.subnets {
		if len(c.out.BackboneAddresses) > 0 {
			p.backbone(i)
		}
		p.automatic(i)
	}
}

// parseOnly looks at addresses by themselves where the subnets are not known.
func (l *loader) parseOnly(c *clusterDraft) {
	for _, g := range c.legs {
		for _, n := range l.oneOrMore(g.body, "address", "addresses") {
			l.address(n)
		}
	}
	for _, n := range l.oneOrMore(c.body, "backbone_address", "backbone_addresses") {
		l.address(n)
	}
}

// placer hands out the addresses of one cluster.
type placer struct {
	*loader
	cluster *clusterDraft
	taken   map[netip.Addr]holder
}

// theBackbone is who the backbone's addresses belong to.
const theBackbone = "the backbone"

type holder struct {
	who string
	at  position
}

// explicit sorts the addresses that the file gives into the cluster's
// subnets.
func (p *placer) explicit(given []*node, who string) []netip.Addr {
	out := make([]netip.Addr, len(p.cluster.subnets))
	for _, n := range given {
		addr, ok := p.address(n)
		if !ok {
			continue
		}
		i := p.subnetOf(addr)
		if i < 0 {
			p.spoil(n, fmt.Sprintf("address %s is in no subnet of cluster %s", addr, p.cluster.out.Name), p.subnetHint())
			continue
		}
		const most = 64
		if len(out) >= len(p.cluster.subnets)+most {
			p.spoil(n, "too many addresses", fmt.Sprintf("an interface has at most %d further ones", most))
			return out
		}
		in := p.cluster.subnets[i]
		h := hostsOf(in.Prefix)
		first, used := p.taken[addr]
		switch {
		case addr.Less(h.first):
			p.spoil(n, fmt.Sprintf("%s is the network address of subnet %s", addr, in.Prefix), "the first usable one is "+h.first.String())
		case h.last.Less(addr):
			p.spoil(n, fmt.Sprintf("%s is the broadcast address of subnet %s", addr, in.Prefix), "the last usable one is "+h.last.String())
		case used && first.who == who:
			p.spoil(n, fmt.Sprintf("address %s is listed twice", addr), fmt.Sprintf("it is first given in line %d: remove one", first.at.line))
		case used:
			p.spoil(n, fmt.Sprintf("address %s is already that of %s", addr, first.who), fmt.Sprintf("it is given in line %d: change one of them", first.at.line))
		case out[i].IsValid() && who == theBackbone:
			p.spoil(n, fmt.Sprintf("a second address in subnet %s", in.Prefix), fmt.Sprintf("%s is the first; the backbone has one address in each subnet", out[i]))
		case out[i].IsValid():
			out = append(out, addr)
			p.taken[addr] = holder{who, n.position}
		default:
			out[i] = addr
			p.taken[addr] = holder{who, n.position}
		}
	}
	return out
}

func (p *placer) subnetOf(addr netip.Addr) int {
	for i, s := range p.cluster.subnets {
		if s.Contains(addr) {
			return i
		}
	}
	return -1
}

func (p *placer) subnetHint() string {
	if len(p.cluster.subnets) == 0 {
		return "the cluster has no addresses (subnet: none): give it a subnet"
	}
	s := p.cluster.subnets[0]
	if s.auto {
		return fmt.Sprintf("its automatic subnet is %s; give the cluster a subnet with room for the address", s.Prefix)
	}
	hint := "it has " + s.String()
	for _, more := range p.cluster.subnets[1:] {
		hint += " and " + more.String()
	}
	return hint
}

// backbone takes the first free address of a subnet when the backbone is the
// gateway, otherwise the last. Only explicit addresses are taken by now, so
// automatic stations never change it.
func (p *placer) backbone(i int) {
	out := p.cluster.out.BackboneAddresses
	if out[i].IsValid() {
		return
	}
	s := p.cluster.subnets[i]
	h := hostsOf(s.Prefix)
	addr, step := h.first, netip.Addr.Next
	if p.cluster.body.get("gateway") != nil {
		addr, step = h.last, netip.Addr.Prev
	}
	for ; addr.IsValid() && !addr.Less(h.first) && !h.last.Less(addr); addr = step(addr) {
		if _, used := p.taken[addr]; !used {
			out[i] = addr
			p.taken[addr] = holder{theBackbone, s.at}
			return
		}
	}
	p.report(s.at, fmt.Sprintf("subnet %s has no address left for the backbone", s.Prefix), p.larger(i))
}

// larger tells how large a subnet would have to be.
func (p *placer) larger(i int) string {
	need := min(len(p.cluster.out.BackboneAddresses), 1)
	for _, g := range p.cluster.legs {
		if !g.station.ghost {
			need++
		}
		for k, a := range g.addresses {
			if k >= len(p.cluster.subnets) && p.subnetOf(a) == i {
				need++
			}
		}
	}
	base := p.cluster.subnets[i].Masked().Addr()
	for bits := p.cluster.subnets[i].Bits() - 1; bits > 0; bits-- {
		h := hostsOf(netip.PrefixFrom(base, bits).Masked())
		if plus(h.first, uint64(need-1)).Compare(h.last) <= 0 {
			return fmt.Sprintf("%d addresses are needed: use a /%d", need, bits)
		}
	}
	return "use a larger subnet"
}

// automatic gives the rest of the interfaces their addresses. Those that the
// file names come first, the ghosts among them, then every station's first
// replica, then the second ones: so whoever gets more replicas moves nobody
// that was there, unless another has more of them still.
func (p *placer) automatic(i int) {
	s := p.cluster.subnets[i]
	pool := pool{hosts: hostsOf(s.Prefix), taken: p.taken}
	var replicas, named []*leg
	for _, g := range p.cluster.legs {
		switch {
		case g.addresses[i].IsValid() || g.body.spoiled("address", "addresses"):
		case g.station.ghost && g.station.replicas > 0 && (g.body.get("address") != nil || g.body.get("addresses") != nil):
		case g.station.replica > 0:
			replicas = append(replicas, g)
		default:
			named = append(named, g)
		}
	}
	slices.SortStableFunc(replicas, func(a, b *leg) int { return cmp.Compare(a.station.replica, b.station.replica) })
	var ghosts []netip.Addr
	for k, g := range append(named, replicas...) {
		if k == len(named) {
			pool.release(ghosts)
			ghosts = nil
		}
		addr := pool.free(g.key)
		if !addr.IsValid() && len(ghosts) > 0 {
			addr, ghosts = ghosts[0], ghosts[1:]
		}
		switch {
		case !addr.IsValid() && g.station.ghost:
			continue
		case !addr.IsValid():
			p.report(s.at, fmt.Sprintf("subnet %s has no address left for %s", s.Prefix, g), p.larger(i))
			return
		case g.station.ghost:
			ghosts = append(ghosts, addr)
		default:
			g.addresses[i] = addr
		}
		p.taken[addr] = holder{g.String(), g.at}
	}
}

// pool gives out the addresses of one subnet.
type pool struct {
	hosts
	taken map[netip.Addr]holder
	full  bool // nothing is left between the first and the last
}

// free finds the address that a key's hash leads to, or the next free one
// from there. The first and last address are left to gateways and the
// backbone while there is other room.
func (p *pool) free(key string) netip.Addr {
	unused := func(addr netip.Addr) bool { _, used := p.taken[addr]; return !used }
	if !p.full && p.between > 0 {
		start := hash(key) % p.between
		for k := range p.between {
			if addr := p.at((start + k) % p.between); unused(addr) {
				return addr
			}
		}
	}
	p.full = true // look no more
	for _, addr := range []netip.Addr{p.last, p.first} {
		if unused(addr) {
			return addr
		}
	}
	return netip.Addr{}
}

func (p *pool) release(addrs []netip.Addr) {
	for _, addr := range addrs {
		delete(p.taken, addr)
	}
	p.full = p.full && len(addrs) == 0
}
