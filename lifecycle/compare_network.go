package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"platelayer/topology"
)

// clusterFields are all of a cluster's but its name and its stations.
func clusterFields() []field[topology.Cluster] {
	type cluster = topology.Cluster
	return []field[cluster]{
		{"domain", whole, false, func(c *cluster) []part { return single(word(c.Domain)) }},
		{"subnet", whole, false, func(c *cluster) []part { return listed(c.Subnets) }},
		{"gateway", whole, false, func(c *cluster) []part {
			if c.Gateway == "" && c.Metric == 0 && len(c.Standby) == 0 {
				return single("the backbone")
			}
			all := []string{gatewayText(c.Gateway, c.Metric)}
			if len(c.Transit) > 0 {
				all[0] += " inline"
			}
			for _, g := range c.Standby {
				all = append(all, gatewayText(g.Station, g.Metric))
			}
			return single(strings.Join(all, ", "))
		}},
		{"transit", whole, false, func(c *cluster) []part { return listed(c.Transit) }},
		{"backbone_address", whole, false, func(c *cluster) []part { return listed(c.BackboneAddresses) }},
		{"isolated", whole, false, func(c *cluster) []part { return single(strconv.FormatBool(c.Isolated)) }},
		{"allow", whole, false, func(c *cluster) []part {
			if c.Allow == nil {
				return single("all")
			}
			return wordsPart(c.Allow)
		}},
		{"records", elements, false, func(c *cluster) []part {
			return partsOf(c.Records, func(r topology.Record) part { return part{word(r.String()), ""} })
		}},
		{"egress", whole, false, func(c *cluster) []part { return single(cmp.Or(c.Egress, "the backbone's")) }},
		{"mtu", whole, false, func(c *cluster) []part { return single(strconv.Itoa(c.MTU)) }},
		{"switch", whole, false, func(c *cluster) []part { return single(word(c.Switch)) }},
		{"attach", whole, false, func(c *cluster) []part { return wordsPart(c.Attach) }},
	}
}

func gatewayText(station string, metric uint32) string {
	if metric == 0 {
		return word(station)
	}
	return fmt.Sprintf("%s metric %d", word(station), metric)
}

func backboneFields() []field[topology.Backbone] {
	type backbone = topology.Backbone
	return []field[backbone]{
		{"egress", whole, false, func(b *backbone) []part {
			return single(cmp.Or(b.Egress, topology.EgressAllow))
		}},
		{"upstream", whole, false, func(b *backbone) []part { return wordsPart(b.Upstream) }},
		{"upstream domain", elements, false, func(b *backbone) []part {
			return partsOf(b.Domains, func(d topology.UpstreamDomain) part { return part{word(d.Domain), strings.Join(d.Servers, " ")} })
		}},
		{"routes", elements, false, func(b *backbone) []part { return partsOf(b.Routes, routePart) }},
		{"host_routes", whole, false, func(b *backbone) []part { return single(cmp.Or(b.HostRoutes, "auto")) }},
		{"host_access", whole, false, func(b *backbone) []part { return single(strconv.FormatBool(b.HostAccess)) }},
	}
}

func interfacePart(i topology.Interface) part {
	said := []string{joined(i.Addresses)}
	if i.Name != "" {
		said = append(said, "name "+word(i.Name))
	}
	if i.MAC != "" {
		said = append(said, "mac_address "+i.MAC)
	}
	if i.MTU != 0 {
		said = append(said, fmt.Sprintf("mtu %d", i.MTU))
	}
	if v := vlansText(i.VLANs); v != "" {
		said = append(said, "vlan "+v)
	}
	return part{word(i.Cluster), strings.Join(said, " ")}
}

func vlansText(v topology.VLANs) string {
	var all []string
	if v.Untagged != 0 {
		all = append(all, strconv.Itoa(v.Untagged))
	}
	for _, id := range v.Tagged {
		all = append(all, strconv.Itoa(id)+" tagged")
	}
	return strings.Join(all, ", ")
}

// tlsParts are what a station's certificates are for: new names need a new one,
// which a start makes.
func tlsParts(s *topology.Station) []part {
	var all []part
	if s.Trust {
		all = append(all, part{key: "authority"})
	}
	if s.TLS != nil {
		all = append(all, part{key: "days", value: strconv.Itoa(s.TLS.Days)})
		all = append(all, partsOf(s.TLS.Names, alone)...)
	}
	return all
}

func routePart(r topology.Route) part {
	var said []string
	if r.Type != "" {
		said = append(said, word(r.Type))
	}
	if r.Via.IsValid() {
		said = append(said, "via "+r.Via.String())
	}
	if r.Dev != "" {
		said = append(said, "dev "+word(r.Dev))
	}
	if r.Metric != 0 {
		said = append(said, fmt.Sprintf("metric %d", r.Metric))
	}
	return part{r.To.String(), strings.Join(said, " ")}
}

// compareLinks tells which links come, change and go. A link is known by its
// stations and their interfaces.
func compareLinks(old, new []topology.Link) []Change {
	text := func(e topology.LinkEnd) string {
		return strings.TrimSpace(strings.Join([]string{joined(e.Addresses), e.MAC}, " "))
	}
	said := func(k topology.Link) []string {
		return []string{"subnet " + cmp.Or(joined(k.Subnets), "none"), fmt.Sprintf("mtu %d", k.MTU), text(k.Ends[0]), text(k.Ends[1])}
	}
	name := func(k topology.Link) string {
		return k.Ends[0].Station + ":" + k.Ends[0].Name + " " + k.Ends[1].Station + ":" + k.Ends[1].Name
	}
	find := func(all []topology.Link, k topology.Link) int {
		return slices.IndexFunc(all, func(o topology.Link) bool { return name(o) == name(k) })
	}
	change := func(k topology.Link, a Action, reasons ...string) Change {
		return Change{Object: "link", Name: name(k), Action: a, Reasons: reasons, Neighbours: []string{k.Ends[0].Station, k.Ends[1].Station}}
	}
	var changes []Change
	for _, k := range new {
		i := find(old, k)
		if i < 0 {
			changes = append(changes, change(k, ActionCreate))
			continue
		}
		var reasons []string
		for j, was := range said(old[i]) {
			if is := said(k)[j]; was != is {
				reasons = append(reasons, cmp.Or(was, "none")+" -> "+cmp.Or(is, "none"))
			}
		}
		if len(reasons) > 0 {
			changes = append(changes, change(k, ActionChange, reasons...))
		}
	}
	for _, k := range old {
		if find(new, k) < 0 {
			changes = append(changes, change(k, ActionRemove))
		}
	}
	return changes
}

func portPart(p topology.Port) part {
	var said []string
	if p.Name != "" {
		said = append(said, "name "+word(p.Name))
	}
	if p.AppProtocol != "" {
		said = append(said, "app_protocol "+word(p.AppProtocol))
	}
	return part{p.Text(), strings.Join(said, " ")}
}
