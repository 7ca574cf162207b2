package netplan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"platelayer/topology"
)

// station plans one station: eth0 in its cluster, eth1 and so on elsewhere and
// on links, and an inline gateway's link to the backbone at last.
func (b *builder) station(s *topology.Station) (Node, error) {
	n := Node{NetNS: b.t.ContainerName(s), Cluster: s.Cluster, Station: s.Name, Interfaces: []Interface{}}
	for i, leg := range legsOf(s) {
		c := b.clusters[leg.Cluster]
		if c == nil {
			return n, fmt.Errorf("cannot plan %s: no cluster %s", s.ID(), leg.Cluster)
		}
		path := fmt.Sprintf("%s/eth%d", s.ID(), i)
		f, err := b.iface(cmp.Or(leg.Name, fmt.Sprintf("eth%d", i)), b.names.port(s.Name, path), path, c, leg.Addresses)
		if err != nil {
			return n, err
		}
		f.MAC, f.MTU = cmp.Or(leg.MAC, f.MAC), cmp.Or(leg.MTU, f.MTU)
		if v := leg.VLANs; v.Untagged != 0 || v.Tagged != nil {
			b.vlans[c.Name] = append(b.vlans[c.Name], PortVLANs{Port: f.Peer, Untagged: v.Untagged, Tagged: v.Tagged})
		}
		n.Interfaces = append(n.Interfaces, f)
	}
	for _, e := range b.ends[s.ID()] {
		n.Interfaces = append(n.Interfaces, b.linkInterface(e))
	}
	if c := b.clusters[s.Cluster]; len(c.Transit) > 0 && b.gateways[c.Name] == s {
		n.Interfaces = append(n.Interfaces, b.transitInterface(c))
	}
	for _, a := range s.Loopback {
		n.Loopback = append(n.Loopback, host(a))
	}
	n.Sysctls = own(nodeSysctls(b.forwards[s], n.hasIPv6()), s.Sysctls)
	if err := b.stationRoutes(&n, s); err != nil {
		return n, err
	}
	if b.forwards[s] {
		b.returnPaths(&n, s)
	}
	return n, nil
}

// legsOf are the station's interfaces in clusters.
func legsOf(s *topology.Station) []topology.Interface {
	return append([]topology.Interface{{Cluster: s.Cluster, Addresses: s.Addresses, Name: s.InterfaceName, MAC: s.MAC, VLANs: s.VLANs}}, s.Interfaces...)
}

func (n *Node) hasIPv6() bool {
	six := func(p netip.Prefix) bool { return p.Addr().Is6() }
	return slices.ContainsFunc(n.Loopback, six) || slices.ContainsFunc(n.Interfaces, func(f Interface) bool { return slices.ContainsFunc(f.Addresses, six) })
}

// own gives settings the values that the file asks for; what only other nodes'
// plans set is added, or Settings would take it back. What is no number is left
// to the engine, which tells it with all else that is wrong.
func own(settings []Sysctl, asked []topology.Sysctl) []Sysctl {
	for _, a := range asked {
		if !numbers(a.Value) {
			continue
		}
		named := func(s Sysctl) bool { return s.Key == a.Name }
		if i := slices.IndexFunc(settings, named); i >= 0 {
			settings[i].Value = a.Value
		} else if slices.ContainsFunc(untouched(), named) {
			settings = append(settings, Sysctl{Key: a.Name, Value: a.Value})
		}
	}
	return settings
}

func numbers(value string) bool {
	words := strings.Fields(value)
	return len(words) > 0 && !slices.ContainsFunc(words, func(w string) bool { _, err := strconv.Atoi(w); return err != nil })
}

// stationRoutes adds the default route of each family, through the first
// interface that has it, unless the file gives one, and then the file's own.
func (b *builder) stationRoutes(n *Node, s *topology.Station) error {
	has := map[netip.Prefix]bool{}
	for _, r := range s.Routes {
		has[r.To.Masked()] = true
	}
	for i, leg := range legsOf(s) {
		c := b.clusters[leg.Cluster]
		for _, subnet := range c.Subnets {
			if _, ok := addressIn(subnet, leg.Addresses); !ok {
				continue
			}
			for k, hop := range b.nextHops(c, subnet, s, n.Interfaces[i].Name) {
				if k == 0 && has[hop.To] {
					break
				}
				has[hop.To] = true
				n.Routes = append(n.Routes, hop)
			}
		}
	}
	for _, r := range s.Routes {
		dev, ok := r.Dev, true
		if r.Via.IsValid() && dev == "" {
			dev, ok = deviceFor(n, r.Via)
		}
		if !ok {
			return fmt.Errorf("cannot plan %s: the route to %s goes via %s, which is in no subnet of the station", s.ID(), r.To, r.Via)
		}
		n.Routes = append(n.Routes, Route{Type: r.Type, To: r.To.Masked(), Via: r.Via, Dev: dev, Metric: metric(r.To.Addr(), r.Metric)})
	}
	return nil
}

// nextHops are the default routes of s for what leaves subnet of cluster c by
// dev: to the cluster's gateway and those that stand by, which themselves send
// to the backbone.
func (b *builder) nextHops(c *topology.Cluster, subnet netip.Prefix, s *topology.Station, dev string) []Route {
	g := b.gateways[c.Name]
	leads := g == nil || g == s || slices.ContainsFunc(b.standby[c.Name], func(o standby) bool { return o.station == s })
	if leads {
		via, own := b.backboneHop(c, subnet, dev)
		if !via.IsValid() {
			return nil
		}
		return []Route{{To: everywhere(via), Via: via, Dev: own}}
	}
	var hops []Route
	for _, o := range append([]standby{{g, c.Metric}}, b.standby[c.Name]...) {
		if via, ok := addressIn(subnet, addressesIn(o.station, c.Name)); ok {
			hops = append(hops, Route{To: everywhere(via), Via: via, Dev: dev, Metric: metric(via, o.metric)})
		}
	}
	return hops
}

// backboneHop is the backbone as a gateway of cluster c sees it; dev is the
// gateway's interface in the cluster. The address is invalid where the backbone
// has no leg.
func (b *builder) backboneHop(c *topology.Cluster, subnet netip.Prefix, dev string) (netip.Addr, string) {
	if len(c.Transit) > 0 {
		via, _, _ := transitFor(c, subnet)
		return via, topology.TransitInterface
	}
	via, _ := addressIn(subnet, c.BackboneAddresses)
	return via, dev
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
			via, dev := b.backboneHop(home, from, n.Interfaces[0].Name)
			if !via.IsValid() {
				continue
			}
			for _, to := range b.clusters[f.Cluster].Subnets {
				if to.Addr().Is4() != from.Addr().Is4() {
					continue
				}
				if _, direct := addressIn(to, f.Addresses); !direct {
					continue
				}
				n.Routes = append(n.Routes, Route{To: to.Masked(), Via: via, Dev: dev, Table: table})
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
