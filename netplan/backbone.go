package netplan

import (
	"fmt"
	"net/netip"

	"platelayer/topology"
)

// FirstTable is the first routing table of the plan's own, and a rule's
// priority is the number of its table. The kernel's tables are 253 to 255, its
// priorities 0, 32766 and 32767.
const FirstTable = 1000

// backbone plans the router that has a leg in every cluster but those that go
// without.
//
// A cluster whose gateway is a station is reached through that station, as
// its stations reach everything through it: a stateful firewall there sees
// both directions. The backbone's own answers to a station of that LAN, which
// asked it on the link, go back on the link: a rule by their source says so.
// To an inline gateway the backbone has a link instead of a leg.
func (b *builder) backbone() (Node, error) {
	n := Node{
		NetNS:      b.t.Name + ".backbone",
		Sysctls:    nodeSysctls(true, b.ipv6),
		Interfaces: []Interface{},
	}
	for i := range b.t.Clusters {
		c := &b.t.Clusters[i]
		var err error
		switch {
		case len(c.Transit) > 0:
			err = b.linkTo(&n, c)
		case len(c.BackboneAddresses) > 0:
			err = b.legIn(&n, c)
		}
		if err != nil {
			return n, err
		}
	}
	for _, r := range b.t.Backbone.Routes {
		hop := b.firstHop(r.Via)
		dev, ok := deviceFor(&n, hop)
		if r.Type == "" && !ok {
			return n, fmt.Errorf("cannot plan the backbone: the route to %s goes via %s, which is in no subnet of it", r.To, r.Via)
		}
		if r.Type != "" {
			dev = ""
		}
		n.Routes = append(n.Routes, Route{Type: r.Type, To: r.To.Masked(), Via: hop, Dev: dev, Metric: metric(r.To.Addr(), r.Metric)})
	}
	n.Apart = b.apart()
	if len(n.Interfaces) > 0 {
		b.divert(&n)
	}
	return n, nil
}

// firstHop is where the backbone sends what is to go to a next hop: to the
// cluster's gateway first, where that is a station.
func (b *builder) firstHop(hop netip.Addr) netip.Addr {
	for i := range b.t.Clusters {
		c := &b.t.Clusters[i]
		subnet, in := subnetOf(c, hop)
		if _, via, ok := transitFor(c, subnet); in && ok {
			return via
		}
		if g := b.gateways[c.Name]; in && g != nil {
			if via, ok := addressIn(subnet, addressesIn(g, c.Name)); ok {
				return via
			}
		}
	}
	return hop
}

// legIn adds the backbone's leg in a cluster.
func (b *builder) legIn(n *Node, c *topology.Cluster) error {
	name, peer := b.names.leg(c.Name)
	b.legs[c.Name] = name
	f, err := b.iface(name, peer, "backbone/"+c.Name, c, c.BackboneAddresses)
	if err != nil {
		return err
	}
	g := b.gateways[c.Name]
	f.NoPrefixRoute = g != nil
	n.Interfaces = append(n.Interfaces, f)
	if g == nil {
		return nil
	}
	for _, own := range f.Addresses {
		table := FirstTable + uint32(len(n.Rules))
		via, ok := addressIn(own.Masked(), addressesIn(g, c.Name))
		if !ok {
			return fmt.Errorf("cannot plan cluster %s: its gateway %s has no address in %s", c.Name, g.ID(), own.Masked())
		}
		n.Routes = append(n.Routes,
			Route{To: host(via), Dev: name},
			Route{To: own.Masked(), Via: via, Dev: name, Metric: metric(via, c.Metric)},
		)
		for _, other := range b.standby[c.Name] {
			if via, ok := addressIn(own.Masked(), addressesIn(other.station, c.Name)); ok {
				n.Routes = append(n.Routes, Route{To: host(via), Dev: name}, Route{To: own.Masked(), Via: via, Dev: name, Metric: metric(via, other.metric)})
			}
		}
		n.Routes = append(n.Routes, Route{To: own.Masked(), Dev: name, Table: table})
		n.Rules = append(n.Rules, Rule{Priority: table, From: host(own.Addr()), To: own.Masked(), Table: table})
	}
	return nil
}

// linkTo adds the backbone's link to a cluster's inline gateway.
func (b *builder) linkTo(n *Node, c *topology.Cluster) error {
	name, _ := b.names.leg(c.Name)
	b.legs[c.Name] = name
	f := b.transitLeg(c, name)
	n.Interfaces = append(n.Interfaces, f)
	for _, to := range c.Subnets {
		_, via, ok := transitFor(c, to)
		if !ok {
			return fmt.Errorf("cannot plan cluster %s: the link to its gateway has no address for %s", c.Name, to)
		}
		n.Routes = append(n.Routes, Route{To: to.Masked(), Via: via, Dev: name})
	}
	return nil
}

// transitFor gives the addresses on the link to an inline gateway that are of a
// subnet's IP version.
func transitFor(c *topology.Cluster, subnet netip.Prefix) (backbone, gateway netip.Addr, ok bool) {
	for _, t := range c.Transit {
		if t.Addr().Is4() == subnet.Addr().Is4() {
			backbone, gateway = topology.TransitEnds(t)
			return backbone, gateway, true
		}
	}
	return netip.Addr{}, netip.Addr{}, false
}

// apart lists the legs between which nothing passes: those of clusters that do
// not meet.
func (b *builder) apart() []Pair {
	var pairs []Pair
	for i := range b.t.Clusters {
		for j := range b.t.Clusters {
			from, to := &b.t.Clusters[i], &b.t.Clusters[j]
			if in, out := b.legs[from.Name], b.legs[to.Name]; in != "" && out != "" && !from.Meets(to) {
				pairs = append(pairs, Pair{In: in, Out: out})
			}
		}
	}
	return pairs
}

// leg names the backbone's interface into a cluster and its port in the
// fabric. They carry the cluster's name and not a number, so that a further
// cluster renames none.
func (a *allocator) leg(cluster string) (name, peer string) {
	return a.fit("to-", cluster), a.fit("bb-", cluster)
}
