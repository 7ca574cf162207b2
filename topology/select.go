package topology

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Selection says which stations of a topology are wanted. The zero value
// wants those that have no profile.
type Selection struct {
	// Profiles are the active ones; "*" is all.
	Profiles []string
	// Only names the wanted stations as LookupAll takes them; what they need
	// comes along. Empty: all that the profiles enable. A station that is named
	// needs no profile, and its profiles count as active for what it needs, as
	// in compose.
	Only []string
}

// SelectionError tells what a selection leaves out although it needs it.
type SelectionError struct{ Missing []Missing }

// Missing is a station that another needs and that no active profile enables.
type Missing struct {
	Station  string   // what is missing, as "cluster/station"
	NeededBy string   // the station that waits for it, or the cluster that it is the gateway of
	Gateway  bool     // NeededBy is a cluster
	Profiles []string // any one of these would enable it
}

func (m Missing) String() string {
	why := fmt.Sprintf("station %s depends on %s", m.NeededBy, m.Station)
	if m.Gateway {
		why = fmt.Sprintf("station %s is the gateway of cluster %s", m.Station, m.NeededBy)
	}
	if len(m.Profiles) == 0 {
		return why + ", which is not there"
	}
	return fmt.Sprintf("%s, which is not enabled: activate profile %s", why, orList(m.Profiles))
}

// Error prints a line for each.
func (e *SelectionError) Error() string {
	lines := make([]string, len(e.Missing))
	for i, m := range e.Missing {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n")
}

// Select returns the topology with the selected stations only; t stays as it
// is. Addresses, names and the order never change by it. A cluster that
// nobody is left in is dropped when o.Only is given, or when its gateway is
// not enabled. The error is a *SelectionError, or tells of names in o.Only
// that LookupAll does not know.
func (t *Topology) Select(o Selection) (*Topology, error) {
	s := selector{topology: t, active: o.Profiles, byID: map[string]*Station{}, in: map[string]bool{}}
	for _, st := range t.Stations() {
		s.byID[st.ID()] = st
	}
	var err error
	if len(o.Only) > 0 {
		err = s.only(o.Only)
	} else {
		for _, st := range t.Stations() {
			s.in[st.ID()] = s.enabled(st)
		}
	}
	if err != nil {
		return nil, err
	}
	out := s.result(len(o.Only) > 0)
	if len(s.missing) > 0 {
		return nil, &SelectionError{s.missing}
	}
	return out, nil
}

type selector struct {
	topology *Topology
	active   []string
	byID     map[string]*Station
	in       map[string]bool // by ID
	missing  []Missing
}

func (s *selector) enabled(st *Station) bool {
	return len(st.Profiles) == 0 || slices.Contains(s.active, "*") ||
		slices.ContainsFunc(st.Profiles, func(p string) bool { return slices.Contains(s.active, p) })
}

// only takes the named stations in, and everything that they need and that
// is enabled. What isn't is reported by result.
func (s *selector) only(refs []string) error {
	var queue []*Station
	take := func(st *Station) {
		if !s.in[st.ID()] {
			s.in[st.ID()] = true
			queue = append(queue, st)
		}
	}
	var unknown []error
	active := slices.Clone(s.active)
	for _, ref := range refs {
		found, err := s.topology.LookupAll(ref)
		if err != nil {
			unknown = append(unknown, err)
		}
		for _, st := range found {
			take(st)
			active = append(active, st.Profiles...)
		}
	}
	if err := errors.Join(unknown...); err != nil {
		return err
	}
	slices.Sort(active)
	s.active = slices.Compact(active)
	gateways := map[string]*Station{} // by cluster
	for _, c := range s.topology.Clusters {
		if c.Gateway != "" {
			gateways[c.Name] = s.byID[c.Name+"/"+c.Gateway]
		}
	}
	for len(queue) > 0 {
		st := queue[0]
		queue = queue[1:]
		var needs []*Station
		for _, d := range st.DependsOn {
			if !d.Optional {
				needs = append(needs, s.byID[d.Station])
			}
		}
		for _, cluster := range st.clusters() {
			needs = append(needs, gateways[cluster])
		}
		for _, n := range needs {
			if n != nil && s.enabled(n) {
				take(n)
			}
		}
	}
	return nil
}

// clusters lists the clusters that the station has an interface in.
func (s *Station) clusters() []string {
	names := []string{s.Cluster}
	for _, i := range s.Interfaces {
		names = append(names, i.Cluster)
	}
	return names
}

// result builds the topology of what is in, and collects what it misses.
func (s *selector) result(dropEmpty bool) *Topology {
	inhabited := map[string]bool{}
	for id, in := range s.in {
		if in {
			for _, cluster := range s.byID[id].clusters() {
				inhabited[cluster] = true
			}
		}
	}
	out := *s.topology
	out.Links = slices.DeleteFunc(slices.Clone(out.Links), func(k Link) bool { return !s.in[k.Ends[0].Station] || !s.in[k.Ends[1].Station] })
	out.Clusters = nil
	for _, c := range s.topology.Clusters {
		gateway := c.Name + "/" + c.Gateway
		closed := c.Gateway != "" && !s.in[gateway]
		switch {
		case !inhabited[c.Name] && (dropEmpty || closed):
			continue
		case closed:
			s.miss(gateway, c.Name, true)
		}
		c.Standby = slices.DeleteFunc(slices.Clone(c.Standby), func(g Gateway) bool { return !s.in[c.Name+"/"+g.Station] })
		stations := c.Stations
		c.Stations = nil
		for _, st := range stations {
			if s.in[st.ID()] {
				st.DependsOn = s.dependencies(&st)
				c.Stations = append(c.Stations, st)
			}
		}
		out.Clusters = append(out.Clusters, c)
	}
	return &out
}

// dependencies keeps those on stations that are in.
func (s *selector) dependencies(st *Station) []Dependency {
	var kept []Dependency
	for _, d := range st.DependsOn {
		switch {
		case s.in[d.Station]:
			kept = append(kept, d)
		case !d.Optional:
			s.miss(d.Station, st.ID(), false)
		}
	}
	return kept
}

func (s *selector) miss(station, neededBy string, gateway bool) {
	m := Missing{Station: station, NeededBy: neededBy, Gateway: gateway}
	if st := s.byID[station]; st != nil {
		m.Profiles = st.Profiles
	}
	s.missing = append(s.missing, m)
}
