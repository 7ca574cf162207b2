package netplan

import (
	"net/netip"
	"slices"

	"platelayer/topology"
)

// dns lists zones and hosts: a station once for its own cluster, with its
// aliases, and once for each further cluster it has an interface in.
func dns(t *topology.Topology) DNS {
	d := DNS{Clusters: []DNSCluster{}, Hosts: []DNSHost{}, Listen: []netip.Addr{}}
	domains := map[string]string{}
	for i := range t.Clusters {
		c := &t.Clusters[i]
		domains[c.Name] = c.Domain
		d.Clusters = append(d.Clusters, DNSCluster{Name: c.Name, Domain: c.Domain, Subnets: slices.Concat(c.Subnets, c.Transit)})
		d.Listen = append(d.Listen, c.Resolvers()...)
	}
	if len(d.Listen) == 0 { // no cluster has a leg: the backbone has only itself to answer
		d.Listen = append(d.Listen, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	ends := linkEnds(t)
	for i := range t.Clusters {
		c := &t.Clusters[i]
		d.Records = append(d.Records, c.Records...)
		for j := range c.Stations {
			s := &c.Stations[j]
			d.Hosts = append(d.Hosts, dnsHosts(s, domains)...)
			further := s.Loopback
			for _, e := range ends[s.ID()] {
				further = slices.Concat(further, e.own.Addresses)
			}
			for _, transit := range c.Transit {
				if c.Gateway == s.Name {
					_, gateway := topology.TransitEnds(transit)
					further = slices.Concat(further, []netip.Addr{gateway})
				}
			}
			for _, a := range further {
				d.Pointers = append(d.Pointers, DNSPointer{Address: a, Cluster: c.Name, FQDN: s.Name + "." + c.Domain})
			}
		}
	}
	for _, k := range t.Links {
		d.Links = append(d.Links, k.Subnets...)
	}
	return d
}

func dnsHosts(s *topology.Station, domains map[string]string) []DNSHost {
	hosts := []DNSHost{}
	for _, cluster := range clustersOf(s) {
		h := DNSHost{
			Cluster:   cluster,
			Station:   s.ID(),
			Name:      s.Name,
			FQDN:      s.Name + "." + domains[cluster],
			Addresses: addressesIn(s, cluster),
		}
		if cluster == s.Cluster {
			h.Aliases = s.Aliases
		}
		hosts = append(hosts, h)
	}
	return hosts
}

// clustersOf lists each cluster of s once, its own first.
func clustersOf(s *topology.Station) []string {
	names, seen := []string{s.Cluster}, map[string]bool{s.Cluster: true}
	for _, f := range s.Interfaces {
		if !seen[f.Cluster] {
			seen[f.Cluster] = true
			names = append(names, f.Cluster)
		}
	}
	return names
}
