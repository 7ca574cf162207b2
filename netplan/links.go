package netplan

import (
	"net/netip"

	"platelayer/topology"
)

// linkEnd is one end of a link and the other.
type linkEnd struct {
	link        *topology.Link
	own, remote *topology.LinkEnd
}

// linkEnds sorts the ends of links by their stations' IDs.
func linkEnds(t *topology.Topology) map[string][]linkEnd {
	ends := map[string][]linkEnd{}
	for i := range t.Links {
		k := &t.Links[i]
		for j := range k.Ends {
			own, remote := &k.Ends[j], &k.Ends[1-j]
			ends[own.Station] = append(ends[own.Station], linkEnd{k, own, remote})
		}
	}
	return ends
}

// linkInterface is a station's end of a link.
func (b *builder) linkInterface(e linkEnd) Interface {
	f := Interface{
		Name: e.own.Name, MAC: b.linkMAC(e.own),
		Peer: e.remote.Name, PeerMAC: b.linkMAC(e.remote), PeerNetNS: b.netns[e.remote.Station],
		MTU: e.link.MTU, Addresses: []netip.Prefix{},
	}
	for _, a := range e.own.Addresses {
		for _, s := range e.link.Subnets {
			if s.Contains(a) {
				f.Addresses = append(f.Addresses, netip.PrefixFrom(a, s.Bits()))
			}
		}
	}
	return f
}

// linkMAC is asked for by both nodes of a link, which must agree.
func (b *builder) linkMAC(e *topology.LinkEnd) string {
	if e.MAC != "" {
		return e.MAC
	}
	path := "link/" + e.Station + "/" + e.Name
	if b.macs[path] == "" {
		b.macs[path] = b.names.mac(path)
	}
	return b.macs[path]
}

// transitLeg is the backbone's end of the link to a cluster's inline gateway,
// and transitInterface the gateway's.
func (b *builder) transitLeg(c *topology.Cluster, name string) Interface {
	first := func(p netip.Prefix) netip.Addr { a, _ := topology.TransitEnds(p); return a }
	return b.transit(c, name, topology.TransitInterface, b.t.ContainerName(b.gateways[c.Name]), first)
}

func (b *builder) transitInterface(c *topology.Cluster) Interface {
	second := func(p netip.Prefix) netip.Addr { _, a := topology.TransitEnds(p); return a }
	return b.transit(c, topology.TransitInterface, b.legs[c.Name], b.t.Name+".backbone", second)
}

func (b *builder) transit(c *topology.Cluster, name, peer, peerNetNS string, own func(netip.Prefix) netip.Addr) Interface {
	mac := func(name string) string {
		path := "transit/" + c.Name + "/" + map[bool]string{true: "gateway", false: "backbone"}[name == topology.TransitInterface]
		if b.macs[path] == "" {
			b.macs[path] = b.names.mac(path)
		}
		return b.macs[path]
	}
	f := Interface{Name: name, MAC: mac(name), Peer: peer, PeerMAC: mac(peer), PeerNetNS: peerNetNS, MTU: mtu(c), Addresses: []netip.Prefix{}}
	for _, s := range c.Transit {
		f.Addresses = append(f.Addresses, netip.PrefixFrom(own(s), s.Bits()))
	}
	return f
}

// addLinks marks the end of each link that it is added with: both nodes are
// there by then.
func (p *Plan) addLinks() {
	seen := map[string]bool{}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		for j := range n.Interfaces {
			f := &n.Interfaces[j]
			f.AddsLink = f.Linked() && seen[f.PeerNetNS]
		}
		seen[n.NetNS] = true
	}
}
