package topology

import (
	"fmt"
	"slices"
	"strconv"
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
	c.out.MTU = defaultMTU
	if mtu := n.get("mtu"); mtu != nil {
		c.out.MTU, _ = strconv.Atoi(mtu.text)
		if c.out.MTU < 68 || c.out.MTU > 65535 {
			l.spoil(mtu, fmt.Sprintf("mtu %s is out of range", mtu.text), "from 68 to 65535; 1500 is usual")
		}
	}
	c.unsure = n.spoiled("subnet", "subnets")
	for _, item := range l.oneOrMore(n, "subnet", "subnets") {
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

// resolveGateways finds the stations that clusters name as gateways.
func (l *loader) resolveGateways() {
	for _, c := range l.clusters {
		n := c.body.get("gateway")
		if n == nil {
			continue
		}
		names := make([]string, len(c.stations))
		for i, s := range c.stations {
			names[i] = s.out.Name
		}
		if slices.Contains(names, n.text) {
			c.out.Gateway = n.text
			continue
		}
		if c.body.spoiled("stations") {
			continue
		}
		hint := "a gateway is a station of this cluster"
		if guess := nearest(n.text, names); guess != "" {
			hint = fmt.Sprintf("did you mean %s?", guess)
		} else if len(names) > 0 {
			hint += ": " + orList(firstFew(names))
		}
		if members := c.members(n.text); len(members) > 0 {
			l.spoil(n, fmt.Sprintf("gateway %s is several stations", n.text), "a gateway is one: write "+orList(firstFew(members)))
			continue
		}
		l.spoil(n, fmt.Sprintf("cluster %s has no station %s", c.out.Name, quoted(n.text)), hint)
	}
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
		s.out.Addresses = s.legs[0].addresses
		for _, leg := range s.legs[1:] {
			s.out.Interfaces = append(s.out.Interfaces, Interface{leg.cluster.out.Name, leg.addresses})
		}
		c.out.Stations = append(c.out.Stations, s.out)
	}
	return c.out
}
