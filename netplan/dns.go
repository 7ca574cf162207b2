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
	for i := range t.Clusters {
		for j := range t.Clusters[i].Stations {
			d.Hosts = append(d.Hosts, dnsHosts(&t.Clusters[i].Stations[j], domains)...)
		}
	}
	return d
}

func dnsHosts(s *topology.Station, domains map[string]string) []DNSHost {
	hosts := []DNSHost{}
	for _, cluster := range clustersOf(s) {
		h := DNSHost{
			Cluster:   cluster,
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
