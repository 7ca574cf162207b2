package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// resolveGateways finds the stations that clusters name as gateways.
func (l *loader) resolveGateways() {
	for _, c := range l.clusters {
		n := c.body.get("gateway")
		if n == nil {
			continue
		}
		if c.bare {
			l.spoil(n, "gateway is set although the cluster has no addresses", "remove it, or subnet: none")
			continue
		}
		items := []*node{n}
		if n.kind == sequence {
			if items = n.items; len(items) == 0 {
				l.spoil(n, "the list of gateways is empty", "name a station, or remove it for the backbone")
			}
		}
		seen := map[string]bool{}
		for i, item := range items {
			g, ok := l.gateway(c, item, uint32(100*i))
			switch {
			case !ok:
			case seen[g.Station]:
				l.spoil(item, fmt.Sprintf("gateway %s is listed twice", g.Station), "remove one")
			case i == 0:
				c.out.Gateway, c.out.Metric = g.Station, g.Metric
			default:
				c.out.Standby = append(c.out.Standby, g)
			}
			seen[g.Station] = true
		}
		l.inline(c, items)
		slices.SortStableFunc(c.out.Standby, func(a, b Gateway) int { return int(a.Metric) - int(b.Metric) })
		for i, g := range c.out.Standby {
			if i > 0 && g.Metric == c.out.Standby[i-1].Metric {
				l.spoil(n, fmt.Sprintf("gateways %s and %s have the same metric %d", c.out.Standby[i-1].Station, g.Station, g.Metric), "of two routes Linux takes the one with the lower metric")
			}
			if g.Metric <= c.out.Metric {
				l.spoil(n, fmt.Sprintf("gateway %s has metric %d, and the first of the list %d", g.Station, g.Metric, c.out.Metric), "the first has the lowest metric")
			}
		}
	}
}

// gateway reads one gateway of a cluster.
func (l *loader) gateway(c *clusterDraft, item *node, metric uint32) (Gateway, bool) {
	n := item
	if item.kind == mapping {
		if n = item.get("station"); n == nil {
			return Gateway{}, false
		}
		metric = l.metric(item, metric)
	}
	if n.bad {
		return Gateway{}, false
	}
	names := make([]string, len(c.stations))
	for i, s := range c.stations {
		names[i] = s.out.Name
	}
	if slices.Contains(names, n.text) {
		return Gateway{n.text, metric}, true
	}
	if c.body.spoiled("stations") {
		return Gateway{}, false
	}
	hint := "a gateway is a station of this cluster"
	if guess := nearest(n.text, names); guess != "" {
		hint = fmt.Sprintf("did you mean %s?", guess)
	} else if len(names) > 0 {
		hint += ": " + orList(firstFew(names))
	}
	if members := c.members(n.text); len(members) > 0 {
		l.spoil(n, fmt.Sprintf("gateway %s is several stations", n.text), "a gateway is one: write "+orList(firstFew(members)))
	} else {
		l.spoil(n, fmt.Sprintf("cluster %s has no station %s", c.out.Name, quoted(n.text)), hint)
	}
	return Gateway{}, false
}

func (l *loader) metric(body *node, otherwise uint32) uint32 {
	n := body.get("metric")
	if n == nil {
		return otherwise
	}
	metric, err := strconv.ParseUint(n.text, 10, 32)
	if err != nil {
		l.spoil(n, fmt.Sprintf("metric %s is out of range", n.text), "from 0 to 4294967295")
	}
	return uint32(metric)
}

// inline reads whether a cluster's gateway stands between it and the backbone.
func (l *loader) inline(c *clusterDraft, items []*node) {
	for i, item := range items {
		n, transit := item.get("inline"), item.get("transit")
		switch {
		case !n.isTrue() && transit != nil:
			l.spoil(transit, "transit is set although the gateway is not inline", "add inline: true, or remove transit")
		case !n.isTrue():
		case i > 0 || len(items) > 1:
			l.spoil(n, "an inline gateway is the only way out: there is no second one", "remove the other gateways")
		case c.body.get("backbone") != nil:
			l.spoil(n, "the gateway is inline although the cluster has no backbone", "remove backbone: none, or inline")
		default:
			c.inline = true
			if transit == nil {
				continue
			}
			for _, n := range append([]*node{transit}, transit.items...) {
				if n.kind == sequence {
					continue
				}
				prefix, ok := l.subnet(n)
				if c.unsure = c.unsure || !ok; ok {
					c.transit = append(c.transit, subnet{Prefix: prefix, at: n.position, cluster: c})
				}
			}
		}
	}
	if !c.inline {
		return
	}
	for _, key := range []string{"backbone_address", "backbone_addresses"} {
		if n := c.body.get(key); n != nil {
			l.spoil(n, key+" is set although the gateway is inline", "the backbone has no address in the cluster: see transit")
		}
	}
}

// placeTransits gives the links to inline gateways the subnets that the file
// leaves out, one for each IP version of their cluster.
func (l *loader) placeTransits(placed *ranges) {
	for _, c := range l.clusters {
		if !c.inline || c.unsure {
			continue
		}
		for _, six := range []bool{false, true} {
			is := func(s subnet) bool { return s.Addr().Is6() == six }
			if !slices.ContainsFunc(c.subnets, is) || slices.ContainsFunc(c.transit, is) {
				continue
			}
			s := subnet{Prefix: freeTransit(c.out.Name, six, placed), at: c.at, cluster: c, auto: true}
			if !s.IsValid() {
				l.report(c.at, "no automatic subnet is left for the link to the gateway", "give the gateway a transit")
				continue
			}
			c.transit = append(c.transit, s)
			placed.add(s)
		}
		slices.SortStableFunc(c.transit, func(a, b subnet) int { return a.Addr().BitLen() - b.Addr().BitLen() })
		for _, s := range c.transit {
			c.out.Transit = append(c.out.Transit, s.Prefix)
		}
	}
}

// freeTransit picks a /31 of 10.255.128.0/17, or a /127 of a unique local
// prefix (RFC 4193), by the cluster's name.
func freeTransit(cluster string, six bool, placed *ranges) netip.Prefix {
	const slots = 1 << 14
	start := hash("transit/"+cluster) % slots
	for i := range uint64(slots) {
		slot := 2 * ((start + i) % slots)
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 255, 128 | byte(slot>>8), byte(slot)}), 31)
		if six {
			a := netip.MustParseAddr("fdca:11ed:7a55::").As16()
			a[14], a[15] = byte(slot>>8), byte(slot)
			prefix = netip.PrefixFrom(netip.AddrFrom16(a), 127)
		}
		if _, taken := placed.overlapping(prefix); !taken {
			return prefix
		}
	}
	return netip.Prefix{}
}

// resolveMeetings reads which clusters meet in the backbone.
func (l *loader) resolveMeetings() {
	var names []string
	for _, c := range l.clusters {
		names = append(names, c.out.Name)
	}
	for _, c := range l.clusters {
		c.out.Isolated = c.body.get("isolated").isTrue()
		allow := c.body.get("allow")
		if allow == nil {
			continue
		}
		if c.out.Isolated {
			l.spoil(allow, "isolated and allow are both set", "isolated: true is allow: []: keep one of them")
		}
		c.out.Allow = []string{}
		for _, n := range allow.good() {
			switch {
			case n.text == c.out.Name || slices.Contains(c.out.Allow, n.text):
			case slices.Contains(names, n.text):
				c.out.Allow = append(c.out.Allow, n.text)
			default:
				hint := nearestHint(n.text, names, "its clusters are "+orList(firstFew(names)))
				l.spoil(n, fmt.Sprintf("there is no cluster %s", quoted(n.text)), hint)
			}
		}
		if len(c.out.Allow) == 0 && !allow.bad {
			c.out.Isolated, c.out.Allow = true, nil
		}
	}
}

// TransitEnds are the addresses on the link to an inline gateway: the backbone
// has the first one, the gateway the next.
func TransitEnds(transit netip.Prefix) (backbone, gateway netip.Addr) {
	first := hostsOf(transit).first
	return first, first.Next()
}

// Resolvers are the addresses at which the backbone answers the cluster's
// stations; none where it has no leg in the cluster.
func (c *Cluster) Resolvers() []netip.Addr {
	all := slices.Clone(c.BackboneAddresses)
	for _, t := range c.Transit {
		backbone, _ := TransitEnds(t)
		all = append(all, backbone)
	}
	return all
}

// Meets tells whether what comes from one cluster may pass the backbone to the
// other.
func (c *Cluster) Meets(other *Cluster) bool {
	allows := func(c, other *Cluster) bool {
		return !c.Isolated && (c.Allow == nil || slices.Contains(c.Allow, other.Name))
	}
	return c.Name == other.Name || allows(c, other) && allows(other, c)
}
