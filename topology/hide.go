package topology

import "slices"

// hidden stands for a secret that is not shown.
const hidden = "(not shown)"

// WithoutSecrets is a copy to show, in which secrets have their names and not
// what they hold. t stays as it is.
func (t *Topology) WithoutSecrets() *Topology {
	out := *t
	out.Clusters = slices.Clone(t.Clusters)
	for i := range out.Clusters {
		c := &out.Clusters[i]
		c.Stations = slices.Clone(c.Stations)
		for j := range c.Stations {
			c.Stations[j] = *c.Stations[j].WithoutSecrets()
		}
	}
	return &out
}

// WithoutSecrets is the same for a station.
func (s *Station) WithoutSecrets() *Station {
	out := *s
	out.Files = slices.Clone(s.Files)
	for i := range out.Files {
		f := &out.Files[i]
		if !f.Secret {
			continue
		}
		if f.Digest = ""; f.Content != "" {
			f.Content = hidden
		}
	}
	return &out
}
