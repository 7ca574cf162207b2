package topology

import (
	"fmt"
	"slices"
	"strings"
)

// Stations lists every station in the order of the file.
func (t *Topology) Stations() []*Station {
	var all []*Station
	for i := range t.Clusters {
		for j := range t.Clusters[i].Stations {
			all = append(all, &t.Clusters[i].Stations[j])
		}
	}
	return all
}

// Cluster finds a cluster by its name; nil is none.
func (t *Topology) Cluster(name string) *Cluster {
	for i := range t.Clusters {
		if t.Clusters[i].Name == name {
			return &t.Clusters[i]
		}
	}
	return nil
}

// Connected tells whether the backbone leads into the cluster.
func (c *Cluster) Connected() bool { return len(c.BackboneAddresses) > 0 || len(c.Transit) > 0 }

// Lookup finds the station that a user names: "station" where that is the
// only one of its name, "cluster/station", or the container's full name. A
// group's name is that of its only member.
func (t *Topology) Lookup(ref string) (*Station, error) {
	found, err := t.LookupAll(ref)
	if err != nil {
		return nil, err
	}
	if len(found) > 1 {
		return nil, fmt.Errorf("station %s is several: write %s", quoted(ref), orList(firstFew(idsOf(found))))
	}
	return found[0], nil
}

// LookupAll finds what a user names as Lookup does, but a group's name means
// all of its members. The result is never empty without an error.
func (t *Topology) LookupAll(ref string) ([]*Station, error) {
	found := map[string][]*Station{} // by what ref may mean: a station's or a group's ID
	var meanings, all []string
	add := func(id string, s *Station) {
		if found[id] == nil {
			meanings = append(meanings, id)
		}
		found[id] = append(found[id], s)
	}
	for _, s := range t.Stations() {
		all = append(all, s.ID())
		if ref == s.ID() || ref == t.ContainerName(s) {
			return []*Station{s}, nil
		}
		if ref == s.Name {
			add(s.ID(), s)
		}
		if s.Group == "" {
			continue
		}
		group := Station{Name: s.Group, Cluster: s.Cluster}
		if ref == group.Name || ref == group.ID() || ref == t.ContainerName(&group) {
			add(group.ID(), s)
		}
	}
	switch len(meanings) {
	case 1:
		return found[meanings[0]], nil
	case 0:
		hint := ""
		if guess := nearest(ref, append(t.shortNames(), all...)); guess != "" {
			hint = fmt.Sprintf("; did you mean %s?", guess)
		} else if len(all) > 0 {
			hint = "; there are " + strings.Join(firstFew(all), ", ")
		}
		return nil, fmt.Errorf("no station %s in topology %s%s", quoted(ref), t.Name, hint)
	}
	return nil, fmt.Errorf("station %s is ambiguous: it may be %s", quoted(ref), orList(firstFew(meanings)))
}

func idsOf(stations []*Station) []string {
	ids := make([]string, len(stations))
	for i, s := range stations {
		ids[i] = s.ID()
	}
	return ids
}

// shortNames lists the names of stations and groups.
func (t *Topology) shortNames() []string {
	var names []string
	for _, s := range t.Stations() {
		names = append(names, s.Name)
		if s.Group != "" {
			names = append(names, s.Group)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
