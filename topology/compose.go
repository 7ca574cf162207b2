package topology

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Import turns a compose file into a topology file: each of its networks is a
// cluster, each service a station of its first network with an interface in
// each further one. Comments stay where their keys do. What can't be carried
// over is left out and listed, with its place in the compose file and what to
// do instead. A file that is no compose file is an error, Problems.
func Import(path string, compose []byte) (text []byte, left Problems, err error) {
	c := &composeFile{path: path, taken: map[string]bool{}, refused: foreignKeys(stationLevel)}
	for _, k := range keyTable()[stationLevel] {
		c.taken[k.name] = true
	}
	if err := c.read(compose); err != nil {
		return nil, nil, err
	}
	out := c.topology()
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(out); err != nil {
		return nil, nil, fmt.Errorf("cannot write the topology of %s: %w", path, err)
	}
	return b.Bytes(), c.left.sorted(), nil
}

// composeFile is a compose file on its way to a topology.
type composeFile struct {
	path     string
	root     *yaml.Node
	networks []*composeNetwork
	services []*composeService
	taken    map[string]bool   // keys that stations have too
	refused  map[string]string // keys that they have not, and what to do instead
	left     Problems
}

// composeNetwork becomes a cluster.
type composeNetwork struct {
	name string // in the compose file
	key  *yaml.Node
	body *yaml.Node // nil: nothing is said about it
	used []*composeService
}

// composeService becomes a station.
type composeService struct {
	name     string
	key      *yaml.Node
	body     *yaml.Node
	networks []membership
	aliases  []string // asked for by links and container_name
}

// membership is a service's place in one network.
type membership struct {
	network *composeNetwork
	body    *yaml.Node // addresses, aliases; nil
}

func (c *composeFile) problem(n *yaml.Node, message, hint string) {
	c.left = append(c.left, Problem{File: c.path, Line: n.Line, Column: n.Column, Message: message, Hint: hint})
}

func (c *composeFile) read(text []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return Problems{{File: c.path, Line: 1, Column: 1, Message: "is not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}}
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return Problems{{File: c.path, Line: 1, Column: 1, Message: "is not a compose file", Hint: "a mapping with services is expected"}}
	}
	c.root = plainTree(doc.Content[0], 0)
	c.root.HeadComment = doc.HeadComment
	services := child(c.root, "services")
	if services == nil || services.Kind != yaml.MappingNode || len(services.Content) == 0 {
		return Problems{{File: c.path, Line: c.root.Line, Column: c.root.Column, Message: "has no services", Hint: "a mapping of names to services is expected"}}
	}
	for key, body := range entries(child(c.root, "networks")) {
		c.networks = append(c.networks, &composeNetwork{name: key.Value, key: key, body: body})
	}
	for key, body := range entries(services) {
		c.services = append(c.services, &composeService{name: key.Value, key: key, body: body})
	}
	for _, s := range c.services {
		c.join(s)
	}
	for _, s := range c.services {
		c.linked(s)
	}
	return nil
}

// join puts a service into its networks, that of the highest priority first.
func (c *composeFile) join(s *composeService) {
	switch networks := child(s.body, "networks"); {
	case networks != nil && networks.Kind == yaml.SequenceNode:
		for _, n := range networks.Content {
			s.networks = append(s.networks, membership{network: c.network(n.Value, n)})
		}
	case networks != nil && networks.Kind == yaml.MappingNode:
		for key, body := range entries(networks) {
			s.networks = append(s.networks, membership{c.network(key.Value, key), body})
		}
		slices.SortStableFunc(s.networks, func(a, b membership) int { return b.priority() - a.priority() })
	}
	if mode := child(s.body, "network_mode"); mode != nil && mode.Value != "bridge" {
		c.problem(mode, fmt.Sprintf("service %s: network_mode %s is left out", s.name, mode.Value),
			"a station always has a network of its own: it is put into cluster default")
	}
	if len(s.networks) == 0 {
		s.networks = []membership{{network: c.network("default", s.key)}}
	}
	for _, m := range s.networks {
		m.network.used = append(m.network.used, s)
	}
}

func (m membership) priority() int {
	var n int
	if p := child(m.body, "priority"); p != nil {
		fmt.Sscan(p.Value, &n)
	}
	return n
}

func (c *composeFile) network(name string, at *yaml.Node) *composeNetwork {
	for _, n := range c.networks {
		if n.name == name {
			return n
		}
	}
	n := &composeNetwork{name: name, key: at}
	c.networks = append(c.networks, n)
	return n
}

// linked gives services the further names that links and container_name mean.
func (c *composeFile) linked(s *composeService) {
	if name := child(s.body, "container_name"); name != nil && name.Value != s.name {
		s.aliases = append(s.aliases, name.Value)
	}
	links := child(s.body, "links")
	if links == nil {
		return
	}
	for _, link := range links.Content {
		name, alias, ok := strings.Cut(link.Value, ":")
		for _, other := range c.services {
			if ok && other.name == name && alias != name && !slices.Contains(other.aliases, alias) {
				other.aliases = append(other.aliases, alias)
			}
		}
	}
}

// topology writes the whole.
func (c *composeFile) topology() *yaml.Node {
	out := mappingNode()
	out.HeadComment = c.root.HeadComment
	for key, value := range entries(c.root) {
		switch {
		case key.Value == "name":
			key.HeadComment = c.root.HeadComment
			put(out, key, value)
		case strings.HasPrefix(key.Value, "x-"), key.Value == "volumes", key.Value == "configs", key.Value == "secrets", key.Value == "include":
			if keyTaken(topologyLevel, key.Value) || strings.HasPrefix(key.Value, "x-") {
				put(out, key, value)
			} else {
				c.problem(key, key.Value+" is left out", foreignKeys(topologyLevel)[key.Value])
			}
		case key.Value == "services", key.Value == "networks", key.Value == "version":
		default:
			c.problem(key, key.Value+" is left out", "a topology has no such key")
		}
	}
	clusters := mappingNode()
	for _, n := range c.networks {
		if len(n.used) > 0 {
			put(clusters, renamedKey(n.key, c.name(n.name, "network", n.key)), c.cluster(n))
		}
	}
	put(out, textNode("clusters"), clusters)
	return out
}

// name makes a compose name one that a topology takes.
func (c *composeFile) name(name, what string, at *yaml.Node) string {
	fixed := fixName(name)
	if fixed != name {
		c.problem(at, fmt.Sprintf("%s %s is called %s", what, name, fixed), "names are lower-case letters, digits, - and _")
	}
	return fixed
}

func fixName(name string) string {
	fixed := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	return strings.Trim(fixed, "-_")
}

func (c *composeFile) cluster(n *composeNetwork) *yaml.Node {
	out := mappingNode()
	for key, value := range entries(n.body) {
		switch key.Value {
		case "ipam":
			c.subnets(out, n, value)
		case "driver_opts":
			for opt, v := range entries(value) {
				if opt.Value == "com.docker.network.driver.mtu" {
					put(out, textNode("mtu"), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: v.Value})
				} else {
					c.problem(opt, fmt.Sprintf("network %s: option %s is left out", n.name, opt.Value), "")
				}
			}
		case "driver", "name", "enable_ipv6", "labels", "attachable":
		case "internal":
			c.problem(key, fmt.Sprintf("network %s: internal is left out", n.name), "egress: none in the backbone keeps all clusters inside")
		default:
			c.problem(key, fmt.Sprintf("network %s: %s is left out", n.name, key.Value), foreignKeys(clusterLevel)[key.Value])
		}
	}
	stations := mappingNode()
	for _, s := range n.used {
		if s.networks[0].network == n {
			put(stations, renamedKey(s.key, c.name(s.name, "service", s.key)), c.station(s))
		}
	}
	if len(stations.Content) > 0 {
		put(out, textNode("stations"), stations)
	}
	return out
}

func (c *composeFile) subnets(out *yaml.Node, n *composeNetwork, ipam *yaml.Node) {
	var subnets, gateways []string
	configs := child(ipam, "config")
	if configs == nil {
		return
	}
	for _, config := range configs.Content {
		for key, value := range entries(config) {
			switch key.Value {
			case "subnet":
				subnets = append(subnets, value.Value)
			case "gateway":
				gateways = append(gateways, value.Value)
			default:
				c.problem(key, fmt.Sprintf("network %s: %s is left out", n.name, key.Value), "")
			}
		}
	}
	putList(out, "subnet", "subnets", subnets)
	putList(out, "backbone_address", "backbone_addresses", gateways)
}

func (c *composeFile) station(s *composeService) *yaml.Node {
	out := mappingNode()
	for key, value := range entries(s.body) {
		name := key.Value
		switch {
		case name == "networks":
			c.wires(out, s)
		case name == "network_mode", name == "links", name == "container_name":
		case name == "depends_on":
			put(out, key, c.dependencies(value))
		case name == "aliases":
		case c.taken[name], strings.HasPrefix(name, "x-"):
			put(out, key, value)
		default:
			hint := c.refused[name]
			if hint == "" {
				hint = "a station has no such key"
			}
			c.problem(key, fmt.Sprintf("service %s: %s is left out", s.name, name), hint)
		}
	}
	if own := c.aliases(s); len(own) > 0 {
		putList(out, "", "aliases", own)
	}
	return out
}

// aliases are the further names of a service in its first network.
func (c *composeFile) aliases(s *composeService) []string {
	all := slices.Clone(s.aliases)
	for i, m := range s.networks {
		aliases := child(m.body, "aliases")
		if aliases == nil {
			continue
		}
		for _, a := range aliases.Content {
			if !slices.Contains(all, a.Value) && a.Value != s.name {
				all = append(all, a.Value)
			}
			if i > 0 {
				c.problem(a, fmt.Sprintf("service %s: its name %s is of network %s alone", s.name, a.Value, m.network.name),
					"aliases are of a station's own cluster")
			}
		}
	}
	return all
}

// wires writes a service's addresses, and its interfaces in further networks.
func (c *composeFile) wires(out *yaml.Node, s *composeService) {
	putList(out, "address", "addresses", addressesOf(s.networks[0].body))
	if len(s.networks) == 1 {
		return
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, m := range s.networks[1:] {
		one := mappingNode()
		put(one, textNode("cluster"), textNode(fixName(m.network.name)))
		putList(one, "address", "addresses", addressesOf(m.body))
		list.Content = append(list.Content, one)
	}
	put(out, textNode("interfaces"), list)
}

func addressesOf(body *yaml.Node) []string {
	var all []string
	for _, key := range []string{"ipv4_address", "ipv6_address"} {
		if a := child(body, key); a != nil {
			all = append(all, a.Value)
		}
	}
	return all
}

// dependencies are the names of services, as the stations are called.
func (c *composeFile) dependencies(n *yaml.Node) *yaml.Node {
	for i, item := range n.Content {
		if n.Kind == yaml.SequenceNode || i%2 == 0 {
			item.Value = fixName(item.Value)
		}
	}
	return n
}

func keyTaken(at level, name string) bool {
	for _, k := range keyTable()[at] {
		if k.name == name {
			return true
		}
	}
	return false
}
