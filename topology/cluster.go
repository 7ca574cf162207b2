package topology

import (
	"fmt"
	"slices"
)

const defaultMTU = 1500

// decodeClusters reads every cluster and station by itself.
func (l *loader) decodeClusters(topology string) {
	clusters := l.root.get("clusters")
	if clusters == nil {
		return
	}
	if len(clusters.pairs) == 0 {
		l.spoil(clusters, "there is no cluster", "add one: clusters: {lan: {stations: {a: , b: }}}")
		return
	}
	for _, p := range clusters.pairs {
		c := &clusterDraft{at: p.at, body: p.val}
		c.out.Name = l.name(p, "cluster")
		l.clusters = append(l.clusters, c)
		l.cluster(c, topology)
	}
}

// name checks a name that the user chose for a cluster or a station.
func (l *loader) name(p pair, what string) string {
	if !validName(p.key) {
		l.report(p.at, fmt.Sprintf("%s is not a %s name", quoted(p.key), what),
			"a name starts and ends with a letter or digit, has lower-case letters, digits, - and _, and at most 63")
	}
	return p.key
}

func (l *loader) cluster(c *clusterDraft, topology string) {
	n := c.body
	switch domain := n.get("domain"); {
	case domain != nil:
		c.out.Domain, _ = l.dnsName(domain, "domain")
	case !n.spoiled("domain") && topology != "" && validName(c.out.Name):
		c.out.Domain = c.out.Name + "." + topology + ".internal"
	}
	c.out.MTU = l.mtu(n, defaultMTU)
	c.out.Egress = l.egress(n)
	c.unsure = n.spoiled("subnet", "subnets")
	c.bare = textOf(n.get("subnet")) == "none" && n.get("subnets") == nil
	c.noLeg = c.bare || n.get("backbone") != nil
	for _, item := range l.oneOrMore(n, "subnet", "subnets") {
		if c.bare {
			break
		}
		if prefix, ok := l.subnet(item); ok {
			c.subnets = append(c.subnets, subnet{Prefix: prefix, at: item.position, cluster: c})
		} else {
			c.unsure = true
		}
	}
	if mtu := n.get("mtu"); mtu != nil && c.out.MTU < 1280 &&
		slices.ContainsFunc(c.subnets, func(s subnet) bool { return s.Addr().Is6() }) {
		l.spoil(mtu, fmt.Sprintf("mtu %d is too small for IPv6", c.out.MTU), "at least 1280, or no IPv6 subnet")
	}
	if c.noLeg {
		hint := "remove it, or backbone: none"
		if n.get("backbone") == nil {
			hint = "remove it, or give the cluster a subnet"
		}
		for _, key := range []string{"backbone_address", "backbone_addresses", "isolated", "allow"} {
			if given := n.get(key); given != nil {
				l.spoil(given, key+" is set although the backbone has no leg in the cluster", hint)
			}
		}
	}
	l.attach(c)
	l.stations(c)
}

// all returns the pairs of a mapping, also of none.
func (n *node) all() []pair {
	if n == nil {
		return nil
	}
	return n.pairs
}

// oneOrMore reads a key that also comes in the plural. Only one of the two
// may be there.
func (l *loader) oneOrMore(n *node, one, more string) []*node {
	a, b := n.get(one), n.get(more)
	if a != nil && b != nil {
		l.spoil(b, fmt.Sprintf("%s and %s are both set", one, more), "put everything into "+more)
		return a.good()
	}
	if a != nil {
		return a.good()
	}
	if b != nil && len(b.items) == 0 {
		l.spoil(b, more+" lists nothing", "remove it for automatic ones")
	}
	return b.good()
}

// firstFew keeps a list short enough for a message.
func firstFew(names []string) []string {
	const few = 8
	if len(names) <= few {
		return names
	}
	return append(slices.Clone(names[:few]), "...")
}

// finish puts the parts together once nothing is wrong.
func (c *clusterDraft) finish() Cluster {
	for _, s := range c.subnets {
		c.out.Subnets = append(c.out.Subnets, s.Prefix)
	}
	for _, s := range c.stations {
		home := s.legs[0]
		s.out.Addresses, s.out.MAC, s.out.VLANs = home.addresses, home.mac, home.vlans
		if home.name != "eth0" {
			s.out.InterfaceName = home.name
		}
		for i, leg := range s.legs[1:] {
			f := Interface{Cluster: leg.cluster.out.Name, Addresses: leg.addresses, MAC: leg.mac, MTU: leg.mtu, VLANs: leg.vlans}
			if leg.name != fmt.Sprintf("eth%d", i+1) {
				f.Name = leg.name
			}
			s.out.Interfaces = append(s.out.Interfaces, f)
		}
		c.out.Stations = append(c.out.Stations, s.out)
	}
	return c.out
}
