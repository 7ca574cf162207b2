package topology

import (
	"fmt"
	"strings"
)

// Lookup finds the station that a user names: "station" where that is the
// only one of its name, "cluster/station", or the container's full name.
func (t *Topology) Lookup(ref string) (*Station, error) {
	var found []*Station
	var all []string
	for i := range t.Clusters {
		for j := range t.Clusters[i].Stations {
			s := &t.Clusters[i].Stations[j]
			all = append(all, s.ID())
			if ref == s.ID() || ref == t.ContainerName(s) {
				return s, nil
			}
			if ref == s.Name {
				found = append(found, s)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		hint := ""
		if guess := nearest(ref, append(t.shortNames(), all...)); guess != "" {
			hint = fmt.Sprintf("; did you mean %s?", guess)
		} else if len(all) > 0 {
			hint = "; there are " + strings.Join(firstFew(all), ", ")
		}
		return nil, fmt.Errorf("no station %s in topology %s%s", quoted(ref), t.Name, hint)
	}
	ids := make([]string, len(found))
	for i, s := range found {
		ids[i] = s.ID()
	}
	return nil, fmt.Errorf("station %s is ambiguous: it may be %s", quoted(ref), orList(firstFew(ids)))
}

func (t *Topology) shortNames() []string {
	var names []string
	for i := range t.Clusters {
		for j := range t.Clusters[i].Stations {
			names = append(names, t.Clusters[i].Stations[j].Name)
		}
	}
	return names
}
