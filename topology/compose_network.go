package topology

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// network finds a network by its name; one that only services name is added.
func (c *composeFile) network(name string, at *yaml.Node) *composeNetwork {
	n := c.byNetwork[name]
	if n == nil {
		n = &composeNetwork{name: name, key: textNode(name, at)}
		c.networks, c.byNetwork[name] = append(c.networks, n), n
	}
	return n
}

// wire puts services into their networks and gives them their further names.
func (c *composeFile) wire() {
	for _, s := range c.services {
		c.join(s, 0)
	}
	for _, s := range c.services {
		for _, m := range s.networks {
			m.network.used = append(m.network.used, s)
		}
		c.links(s)
	}
}

// join finds a service's networks, that of its default route first.
func (c *composeFile) join(s *composeService, depth int) {
	if s.networks != nil || depth > maxDepth {
		return
	}
	networks, seen := child(s.body, "networks"), map[string]bool{}
	add := func(at, body *yaml.Node) {
		if name := textIn(at); name != "" && !seen[name] {
			seen[name] = true
			s.networks = append(s.networks, membership{c.network(name, at), body})
		}
	}
	if networks != nil && networks.Kind != yaml.MappingNode {
		for _, n := range items(networks) {
			add(n, nil)
		}
	}
	for key, body := range entries(networks) {
		add(key, body)
	}
	slices.SortStableFunc(s.networks, func(a, b membership) int {
		if d := b.number("gw_priority") - a.number("gw_priority"); d != 0 {
			return d
		}
		return b.number("priority") - a.number("priority")
	})
	mode := child(s.body, "network_mode")
	if mode != nil && len(s.networks) > 0 {
		c.problem(mode, fmt.Sprintf("service %s: network_mode %s is left out", s.name, quoted(textIn(mode))), "its networks are taken; compose refuses both in one service")
	}
	if mode != nil && textIn(mode) != "bridge" && len(s.networks) == 0 {
		hint := "a station has a network of its own: it is put into cluster default"
		if kind, name, _ := strings.Cut(textIn(mode), ":"); kind == "service" && c.byService[name] != nil {
			other := c.byService[name]
			c.join(other, depth+1)
			for _, m := range other.networks {
				s.networks = append(s.networks, membership{network: m.network})
			}
			hint = fmt.Sprintf("a station has a network of its own: it is beside %s and reaches it by that name instead of localhost", other.as)
		}
		c.problem(mode, fmt.Sprintf("service %s: network_mode %s is left out", s.name, quoted(textIn(mode))), hint)
	}
	if len(s.networks) == 0 {
		s.networks = []membership{{network: c.network("default", s.key)}}
	}
}

// number is a priority; 0 where there is none.
func (m membership) number(key string) int {
	n, err := strconv.ParseInt(textIn(child(m.body, key)), 10, 32)
	if err != nil {
		return 0
	}
	return int(n)
}

// links gives services the further names that links and container_name mean,
// and has a service wait for those it links to.
func (c *composeFile) links(s *composeService) {
	if name := child(s.body, "container_name"); name != nil && textIn(name) != s.as {
		s.aliases = append(s.aliases, textNode(textIn(name), name))
	}
	for _, link := range items(child(s.body, "links")) {
		name, alias, ok := strings.Cut(textIn(link), ":")
		other := c.byService[name]
		if other == nil {
			c.problem(link, fmt.Sprintf("service %s: link %s is left out", s.name, quoted(textIn(link))), "there is no such service")
			continue
		}
		if !slices.Contains(s.linked, other.as) && other != s {
			s.linked = append(s.linked, other.as)
		}
		if ok && alias != other.as {
			other.aliases = append(other.aliases, textNode(alias, link))
		}
	}
}

// cluster writes a network with the services whose first one it is.
func (c *composeFile) cluster(n *composeNetwork) *yaml.Node {
	out := mappingNode(n.key)
	whose := "network " + n.name
	if n.body != nil && n.body.Kind != yaml.MappingNode && !isNull(n.body) {
		c.problem(n.body, whose+": what is no mapping is left out", "a network is a mapping of its keys")
	}
	for key, value := range entries(n.body) {
		switch name := key.Value; {
		case isNull(value), strings.HasPrefix(name, "x-"):
		case name == "ipam":
			c.subnets(out, whose, value)
		case name == "driver_opts":
			for opt, v := range entries(value) {
				if opt.Value == "com.docker.network.driver.mtu" {
					mtu := textNode(textIn(v), v)
					mtu.Tag = "!!int"
					put(out, textNode("mtu", v), mtu)
				} else {
					c.leftOut(opt, whose, opt.Value, "options of a driver have no counterpart")
				}
			}
		case name == "internal": // of all together: see topology
		case name == "driver" && slices.Contains([]string{"bridge", "default", "overlay"}, textIn(value)):
		case name == "name":
			c.leftOut(key, whose, name, "a cluster is called by its key, and no other topology shares it")
		case name == "enable_ipv6", name == "enable_ipv4":
			if textIn(value) != map[string]string{"enable_ipv6": "false", "enable_ipv4": "true"}[name] {
				c.leftOut(key, whose, name, "a cluster has the families of its subnets")
			}
		case name == "attachable" || name == "labels":
			c.leftOut(key, whose, name, "a cluster has no such key; x-"+name+" keeps it as a note")
		default:
			c.leftOut(key, whose, name, c.hint(clusterLevel, name))
		}
	}
	stations := mappingNode(n.key)
	for _, s := range n.used {
		if s.networks[0].network == n {
			put(stations, renamedKey(s.key, s.as), c.stationOf(s))
		}
	}
	if len(stations.Content) > 0 {
		put(out, textNode("stations", n.key), stations)
	}
	return out
}

func (c *composeFile) subnets(out *yaml.Node, whose string, ipam *yaml.Node) {
	var subnets, gateways []*yaml.Node
	for key, value := range entries(ipam) {
		if key.Value != "config" {
			if key.Value != "driver" || textIn(value) != "default" {
				c.leftOut(key, whose, key.Value+" of ipam", "addresses follow from the subnet and the names")
			}
			continue
		}
		for _, config := range items(value) {
			for key, value := range entries(config) {
				switch key.Value {
				case "subnet":
					subnets = append(subnets, value)
				case "gateway":
					gateways = append(gateways, value)
				default:
					c.leftOut(key, whose, key.Value, "write the addresses that matter in the stations: address: ...")
				}
			}
		}
	}
	putList(out, "subnet", "subnets", subnets)
	putList(out, "backbone_address", "backbone_addresses", gateways)
}

// wires writes a service's addresses, its interfaces in further networks and
// its further names.
func (c *composeFile) wires(out *yaml.Node, s *composeService) {
	putList(out, "address", "addresses", addressesOf(s.networks[0].body))
	all := s.aliases
	for _, m := range s.networks {
		all = append(all, items(child(m.body, "aliases"))...)
		for key, value := range entries(m.body) {
			if !isNull(value) && !slices.Contains([]string{"aliases", "ipv4_address", "ipv6_address", "priority", "gw_priority"}, key.Value) {
				c.leftOut(key, "service "+s.name, key.Value+" of network "+m.network.name, "addresses and names are what a station has in a cluster")
			}
		}
	}
	var own []*yaml.Node
	seen := map[string]bool{strings.ToLower(s.as): true, "": true}
	for _, a := range all {
		if name := strings.ToLower(textIn(a)); !seen[name] {
			seen[name] = true
			own = append(own, a)
		}
	}
	putList(out, "", "aliases", own)
	if len(s.networks) == 1 {
		return
	}
	list := listNode(s.networks[1].network.key)
	for _, m := range s.networks[1:] {
		one := mappingNode(m.network.key)
		put(one, textNode("cluster", m.network.key), textNode(m.network.as, m.network.key))
		putList(one, "address", "addresses", addressesOf(m.body))
		list.Content = append(list.Content, one)
	}
	put(out, textNode("interfaces", list), list)
}

func addressesOf(body *yaml.Node) []*yaml.Node {
	var all []*yaml.Node
	for _, key := range []string{"ipv4_address", "ipv6_address"} {
		if a := child(body, key); a != nil {
			all = append(all, a)
		}
	}
	return all
}
