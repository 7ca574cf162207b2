package netplan

import (
	"fmt"
	"net/netip"

	"platelayer/topology"
)

// station plans one station: eth0 in its cluster, eth1 and so on elsewhere.
func (b *builder) station(s *topology.Station) (Node, error) {
	n := Node{NetNS: b.t.ContainerName(s), Cluster: s.Cluster, Station: s.Name, Interfaces: []Interface{}}
	legs := append([]topology.Interface{{Cluster: s.Cluster, Addresses: s.Addresses}}, s.Interfaces...)
	ipv6 := false
	for i, leg := range legs {
		c := b.clusters[leg.Cluster]
		if c == nil {
			return n, fmt.Errorf("cannot plan %s: no cluster %s", s.ID(), leg.Cluster)
		}
		name := fmt.Sprintf("eth%d", i)
		path := s.ID() + "/" + name
		f, err := b.iface(name, b.names.port(s.Name, path), path, c, leg.Addresses)
		if err != nil {
			return n, err
		}
		n.Interfaces = append(n.Interfaces, f)
		for _, a := range leg.Addresses {
			ipv6 = ipv6 || a.Is6()
		}
	}
	n.Sysctls = nodeSysctls(b.forwards[s], ipv6)
	if err := b.stationRoutes(&n, s); err != nil {
		return n, err
	}
	if b.forwards[s] {
		b.returnPaths(&n, s)
	}
	return n, nil
}

// stationRoutes adds the default route of each family, through the first
// interface that has it, unless the file gives one, and then the file's own.
func (b *builder) stationRoutes(n *Node, s *topology.Station) error {
	has := map[netip.Prefix]bool{}
	for _, r := range s.Routes {
		has[r.To.Masked()] = true
	}
	legs := append([]topology.Interface{{Cluster: s.Cluster, Addresses: s.Addresses}}, s.Interfaces...)
	for i, leg := range legs {
		c := b.clusters[leg.Cluster]
		for _, subnet := range c.Subnets {
			if _, ok := addressIn(subnet, leg.Addresses); !ok {
				continue
			}
			via, ok := b.nextHop(c, subnet, s)
			if !ok || has[everywhere(via)] {
				continue
			}
			has[everywhere(via)] = true
			n.Routes = append(n.Routes, Route{To: everywhere(via), Via: via, Dev: n.Interfaces[i].Name})
		}
	}
	for _, r := range s.Routes {
		dev, ok := deviceFor(n, r.Via)
		if !ok {
			return fmt.Errorf("cannot plan %s: the route to %s goes via %s, which is in no subnet of the station", s.ID(), r.To, r.Via)
		}
		n.Routes = append(n.Routes, Route{To: r.To.Masked(), Via: r.Via, Dev: dev})
	}
	return nil
}

// nextHop is where s sends what leaves subnet of cluster c: to the cluster's
// gateway, which itself sends to the backbone.
func (b *builder) nextHop(c *topology.Cluster, subnet netip.Prefix, s *topology.Station) (netip.Addr, bool) {
	if g := b.gateways[c.Name]; g != nil && g != s {
		return addressIn(subnet, addressesIn(g, c.Name))
	}
	return addressIn(subnet, c.BackboneAddresses)
}

// returnPaths keeps a gateway's paths symmetric where it has an interface in
// another cluster too: that cluster's stations reach the gateway's LAN through
// the backbone, so what the LAN answers goes back there and not straight out
// of the interface. Where the gateway is that cluster's as well, both
// directions cross it anyhow.
func (b *builder) returnPaths(n *Node, s *topology.Station) {
	home := b.clusters[s.Cluster]
	if b.gateways[home.Name] != s {
		return
	}
	table := uint32(FirstTable)
	for _, f := range s.Interfaces {
		if f.Cluster == s.Cluster || b.gateways[f.Cluster] == s {
			continue
		}
		for _, from := range home.Subnets {
			via, ok := addressIn(from, home.BackboneAddresses)
			if !ok {
				continue
			}
			for _, to := range b.clusters[f.Cluster].Subnets {
				if to.Addr().Is4() != from.Addr().Is4() {
					continue
				}
				if _, direct := addressIn(to, f.Addresses); !direct {
					continue
				}
				n.Routes = append(n.Routes, Route{To: to.Masked(), Via: via, Dev: n.Interfaces[0].Name, Table: table})
				n.Rules = append(n.Rules, Rule{Priority: table, From: from.Masked(), To: to.Masked(), Table: table})
				table++
			}
		}
	}
}

// addressesIn are the addresses of s in a cluster.
func addressesIn(s *topology.Station, cluster string) []netip.Addr {
	var as []netip.Addr
	if s.Cluster == cluster {
		as = append(as, s.Addresses...)
	}
	for _, f := range s.Interfaces {
		if f.Cluster == cluster {
			as = append(as, f.Addresses...)
		}
	}
	return as
}

// deviceFor is the interface with the longest prefix that contains via.
func deviceFor(n *Node, via netip.Addr) (string, bool) {
	dev, bits := "", -1
	for _, f := range n.Interfaces {
		for _, a := range f.Addresses {
			if a.Contains(via) && a.Bits() > bits {
				dev, bits = f.Name, a.Bits()
			}
		}
	}
	return dev, bits >= 0
}
