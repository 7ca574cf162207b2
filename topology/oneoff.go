package topology

import (
	"fmt"
	"net/netip"
	"slices"
)

// OneOff is a copy of a station for one command: with automatic addresses of
// its own, its own name ("" is one that is free), and without what would have
// others take it for the station: aliases, group, health check and restarts.
// The topology does not get it; see With.
func (t *Topology) OneOff(of *Station, name string) (*Station, error) {
	s := *of
	s.Name = name
	base := of.Name
	if of.Group != "" {
		base = of.Group
	}
	for i := 1; s.Name == "" || name == "" && t.knows(s.Name); i++ {
		suffix := fmt.Sprintf("-run-%d", i)
		s.Name = base[:min(len(base), 63-len(suffix))] + suffix
	}
	switch {
	case !validName(s.Name):
		return nil, fmt.Errorf("%s is not a station's name: a name starts and ends with a letter or digit, has lower-case letters, digits, - and _, and at most 63", quoted(s.Name))
	case t.knows(s.Name):
		return nil, fmt.Errorf("there is a station or alias %s already", quoted(s.Name))
	}
	if of.Hostname == of.Name {
		s.Hostname = s.Name
	}
	s.Aliases, s.Group, s.Profiles, s.Ports = nil, "", nil, nil // the machine's ports are the other's
	s.Healthcheck, s.Restart = nil, Restart{}
	s.TTY, s.StdinOpen = false, false
	s.MAC, s.Loopback = "", nil
	s.Routes = t.routesWithoutLinks(of)
	var err error
	if s.Addresses, err = t.freeAddresses(of.Cluster, s.Name); err != nil {
		return nil, err
	}
	s.Interfaces = slices.Clone(of.Interfaces)
	for i := range s.Interfaces {
		s.Interfaces[i].MAC = ""
		if s.Interfaces[i].Addresses, err = t.freeAddresses(s.Interfaces[i].Cluster, s.ID()); err != nil {
			return nil, err
		}
	}
	if of.TLS != nil {
		s.TLS = &TLS{Days: of.TLS.Days}
		s.TLS.Names = t.ownNames(&s)
	}
	return &s, nil
}

// routesWithoutLinks are the routes that a copy of a station can have, which
// has no links.
func (t *Topology) routesWithoutLinks(of *Station) []Route {
	var kept []Route
	for _, r := range of.Routes {
		if !slices.ContainsFunc(t.Links, func(k Link) bool { return k.carries(r, of.ID()) }) {
			kept = append(kept, r)
		}
	}
	return kept
}

// carries tells whether a station's route leads over the link.
func (k *Link) carries(r Route, station string) bool {
	return slices.ContainsFunc(k.Ends[:], func(e LinkEnd) bool {
		return e.Station == station && (r.Dev == e.Name || r.Via.IsValid() && slices.ContainsFunc(k.Subnets, func(p netip.Prefix) bool { return p.Contains(r.Via) }))
	})
}

// knows tells whether a short name means something already, in any cluster:
// some share a domain.
func (t *Topology) knows(name string) bool {
	return slices.ContainsFunc(t.Stations(), func(s *Station) bool {
		return s.Name == name || s.Group == name || slices.Contains(s.Aliases, name)
	})
}

func (t *Topology) freeAddresses(cluster, key string) ([]netip.Addr, error) {
	c := t.Cluster(cluster)
	if c == nil {
		return nil, fmt.Errorf("there is no cluster %s", quoted(cluster))
	}
	taken := t.taken(c)
	var out []netip.Addr
	for _, subnet := range c.Subnets {
		free := pool{hosts: hostsOf(subnet), taken: taken}
		addr := free.free(key)
		if !addr.IsValid() {
			return nil, fmt.Errorf("subnet %s of cluster %s has no address left", subnet, c.Name)
		}
		out = append(out, addr)
	}
	return out, nil
}

// taken are the addresses in a cluster that somebody has.
func (t *Topology) taken(c *Cluster) map[netip.Addr]holder {
	all := map[netip.Addr]holder{}
	add := func(who string, addresses []netip.Addr) {
		for _, a := range addresses {
			all[a] = holder{who: who}
		}
	}
	add("the backbone", c.BackboneAddresses)
	for _, s := range t.Stations() {
		if s.Cluster == c.Name {
			add(s.ID(), s.Addresses)
		}
		for _, i := range s.Interfaces {
			if i.Cluster == c.Name {
				add(s.ID(), i.Addresses)
			}
		}
	}
	return all
}

// With gives a topology that has the station too; t stays as it is. False says
// that there is no place for it: its cluster, its name or an address.
func (t *Topology) With(s *Station) (*Topology, bool) {
	fits := func(cluster string, addresses []netip.Addr) bool {
		c := t.Cluster(cluster)
		if c == nil || len(c.Subnets) != len(addresses) {
			return false
		}
		taken := t.taken(c)
		for i, a := range addresses {
			if _, used := taken[a]; used || !c.Subnets[i].Contains(a) {
				return false
			}
		}
		return true
	}
	if t.knows(s.Name) || !fits(s.Cluster, s.Addresses) {
		return nil, false
	}
	for _, i := range s.Interfaces {
		if !fits(i.Cluster, i.Addresses) {
			return nil, false
		}
	}
	have := map[string]bool{"": true}
	for _, other := range t.Stations() {
		have[other.ID()] = true
	}
	if !have[s.PID] || !have[s.IPC] {
		return nil, false
	}
	added := *s
	added.DependsOn = slices.DeleteFunc(slices.Clone(s.DependsOn), func(d Dependency) bool { return !have[d.Station] })
	out := *t
	out.Clusters = slices.Clone(t.Clusters)
	c := out.Cluster(s.Cluster)
	c.Stations = append(slices.Clone(c.Stations), added)
	return &out, true
}

// Without gives a topology that lacks the stations, named as ID does; t stays
// as it is.
func (t *Topology) Without(ids ...string) *Topology {
	out := *t
	out.Clusters = slices.Clone(t.Clusters)
	for i := range out.Clusters {
		c := &out.Clusters[i]
		c.Stations = slices.DeleteFunc(slices.Clone(c.Stations), func(s Station) bool { return slices.Contains(ids, s.ID()) })
	}
	return &out
}
