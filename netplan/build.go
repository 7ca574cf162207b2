package netplan

import (
	"fmt"
	"math"
	"net/netip"

	"platelayer/topology"
)

const defaultMTU = 1500

// Build turns a topology into its plan. The topology is taken as valid:
// errors are about what only a plan can find, such as a route whose next hop
// is on no link.
func Build(t *topology.Topology) (*Plan, error) {
	b, err := newBuilder(t)
	if err != nil {
		return nil, err
	}
	p := &Plan{Topology: t.Name, Fabric: b.fabric(), DNS: dns(t)}
	backbone, err := b.backbone()
	if err != nil {
		return nil, err
	}
	p.Nodes = append(p.Nodes, backbone)
	for i := range t.Clusters {
		for j := range t.Clusters[i].Stations {
			n, err := b.station(&t.Clusters[i].Stations[j])
			if err != nil {
				return nil, err
			}
			p.Nodes = append(p.Nodes, n)
		}
	}
	if d := p.Nodes[0].Divert; d != nil {
		d.Origins, d.Strangers = origins(p.Nodes), strangers(p.Nodes)
	}
	for i := range p.Fabric.Bridges {
		br := &p.Fabric.Bridges[i]
		br.VLANs = b.vlans[br.Cluster]
		if br.Host != nil && len(br.VLANs) > 0 {
			br.VLANs = append(br.VLANs, trunk(br.Host.Port, br.VLANs))
		}
	}
	p.addLinks()
	return p, nil
}

// builder holds what is worked out once and looked up for every station.
type builder struct {
	t        *topology.Topology
	names    *allocator
	clusters map[string]*topology.Cluster
	bridges  map[string]string            // by cluster
	gateways map[string]*topology.Station // by cluster; absent: the backbone
	standby  map[string][]standby         // by cluster
	forwards map[*topology.Station]bool   // gateway of some cluster, or standing by
	ends     map[string][]linkEnd         // by station's ID
	netns    map[string]string            // by station's ID
	legs     map[string]string            // the backbone's interface, by cluster
	vlans    map[string][]PortVLANs       // by cluster
	macs     map[string]string            // of links, by what they are for
	ipv6     bool                         // some address of the topology is IPv6
}

func newBuilder(t *topology.Topology) (*builder, error) {
	b := &builder{
		t:        t,
		names:    newAllocator(),
		clusters: map[string]*topology.Cluster{},
		bridges:  map[string]string{},
		gateways: map[string]*topology.Station{},
		standby:  map[string][]standby{},
		ends:     linkEnds(t),
		netns:    map[string]string{},
		legs:     map[string]string{},
		vlans:    map[string][]PortVLANs{},
		macs:     map[string]string{},
		forwards: map[*topology.Station]bool{},
	}
	for i := range t.Clusters {
		c := &t.Clusters[i]
		b.clusters[c.Name] = c
		b.bridges[c.Name] = b.names.fit("br-", c.Name)
		for _, s := range c.Subnets {
			b.ipv6 = b.ipv6 || s.Addr().Is6()
		}
	}
	for _, s := range t.Stations() {
		b.netns[s.ID()] = t.ContainerName(s)
	}
	members := b.members()
	for i := range t.Clusters {
		c := &t.Clusters[i]
		if c.Gateway == "" {
			continue
		}
		g := members[c.Name+"/"+c.Gateway]
		if g == nil {
			return nil, fmt.Errorf("cannot plan cluster %s: its gateway %s has no interface in it", c.Name, c.Gateway)
		}
		b.gateways[c.Name] = g
		b.forwards[g] = true
		for _, other := range c.Standby {
			s := members[c.Name+"/"+other.Station]
			if s == nil {
				return nil, fmt.Errorf("cannot plan cluster %s: its gateway %s has no interface in it", c.Name, other.Station)
			}
			b.standby[c.Name] = append(b.standby[c.Name], standby{s, other.Metric})
			b.forwards[s] = true
		}
	}
	return b, nil
}

// standby is a further gateway of a cluster.
type standby struct {
	station *topology.Station
	metric  uint32
}

// members finds a station by a cluster it has an interface in and its name or
// ID. A cluster's own stations win over visitors of the same name.
func (b *builder) members() map[string]*topology.Station {
	m := map[string]*topology.Station{}
	add := func(key string, s *topology.Station) {
		if m[key] == nil {
			m[key] = s
		}
	}
	var all []*topology.Station
	for i := range b.t.Clusters {
		for j := range b.t.Clusters[i].Stations {
			s := &b.t.Clusters[i].Stations[j]
			all = append(all, s)
			add(s.Cluster+"/"+s.Name, s)
			add(s.Cluster+"/"+s.ID(), s)
		}
	}
	for _, s := range all {
		for _, f := range s.Interfaces {
			add(f.Cluster+"/"+s.Name, s)
			add(f.Cluster+"/"+s.ID(), s)
		}
	}
	return m
}

func (b *builder) fabric() Fabric {
	f := Fabric{NetNS: b.t.Name + ".fabric", Sysctls: fabricSysctls(), Bridges: []Bridge{}}
	for i := range b.t.Clusters {
		c := &b.t.Clusters[i]
		f.Bridges = append(f.Bridges, Bridge{
			Name:    b.bridges[c.Name],
			Cluster: c.Name,
			MAC:     b.names.mac("bridge/" + c.Name),
			MTU:     mtu(c),
			Host:    b.host(c),
		})
	}
	return f
}

// iface is a veth into cluster c. path is its identity without the topology's
// name, so that two copies of a topology have the same MACs.
func (b *builder) iface(name, peer, path string, c *topology.Cluster, addrs []netip.Addr) (Interface, error) {
	f := Interface{
		Name:      name,
		MAC:       b.names.mac("inside/" + path),
		Peer:      peer,
		PeerMAC:   b.names.mac("port/" + path),
		Bridge:    b.bridges[c.Name],
		Cluster:   c.Name,
		MTU:       mtu(c),
		Addresses: []netip.Prefix{},
	}
	for _, a := range addrs {
		s, ok := subnetOf(c, a)
		if !ok {
			return f, fmt.Errorf("cannot plan %s: address %s is in no subnet of cluster %s", path, a, c.Name)
		}
		f.Addresses = append(f.Addresses, netip.PrefixFrom(a, s.Bits()))
	}
	return f, nil
}

func mtu(c *topology.Cluster) int {
	if c.MTU == 0 {
		return defaultMTU
	}
	return c.MTU
}

func subnetOf(c *topology.Cluster, a netip.Addr) (netip.Prefix, bool) {
	for _, s := range c.Subnets {
		if s.Contains(a) {
			return s.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

// addressIn is the first of addrs in subnet.
func addressIn(subnet netip.Prefix, addrs []netip.Addr) (netip.Addr, bool) {
	for _, a := range addrs {
		if subnet.Contains(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// metric is what Linux is told of a route: for IPv6 it takes 0 for 1024
// (IP6_RT_PRIO_USER), which others must stay above.
func metric(of netip.Addr, asked uint32) uint32 {
	const base = 1024
	if of.Is4() || asked == 0 {
		return asked
	}
	return min(asked, math.MaxUint32-base) + base
}

// host is a as a prefix of its own: /32 or /128.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// everywhere is the default destination of a's family.
func everywhere(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
