package authority

import (
	"net/netip"
	"slices"
	"strings"

	"platelayer/topology"
)

// Scope are the names and addresses that certificates may be for.
type Scope struct {
	Domains []string // with all below them
	Hosts   []string // without what is below: "dev" is a station, and a domain of the world's
	Subnets []netip.Prefix
}

// ScopeOf is what the certificates of a topology need: the domains and subnets of its
// clusters whole, so that further stations change nothing, and names and addresses beside them
// one by one.
func ScopeOf(t *topology.Topology) Scope {
	var s Scope
	for i := range t.Clusters {
		s.Domains = append(s.Domains, t.Clusters[i].Domain)
		for _, n := range t.Clusters[i].Subnets {
			s.Subnets = append(s.Subnets, n.Masked())
		}
	}
	for _, st := range t.Stations() {
		if st.TLS == nil {
			continue
		}
		for _, name := range st.TLS.Names {
			if a, err := netip.ParseAddr(name); err == nil {
				s = s.and(Scope{Subnets: []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}})
			} else if domain, all := strings.CutPrefix(name, "*."); all {
				s = s.and(Scope{Domains: []string{domain}})
			} else {
				s = s.and(Scope{Hosts: []string{name}})
			}
		}
	}
	return s
}

// and is s with what other has beyond it.
func (s Scope) and(other Scope) Scope {
	s.Domains, s.Hosts, s.Subnets = slices.Clone(s.Domains), slices.Clone(s.Hosts), slices.Clone(s.Subnets)
	for _, d := range other.Domains {
		if !s.has(Scope{Domains: []string{d}}) {
			s.Domains = append(s.Domains, d)
		}
	}
	s.Hosts = slices.DeleteFunc(s.Hosts, func(h string) bool { return s.has(Scope{Domains: []string{h}}) })
	for _, h := range other.Hosts {
		if !s.has(Scope{Hosts: []string{h}}) {
			s.Hosts = append(s.Hosts, h)
		}
	}
	for _, n := range other.Subnets {
		if !s.has(Scope{Subnets: []netip.Prefix{n}}) {
			s.Subnets = append(s.Subnets, n)
		}
	}
	return s
}

func (s Scope) has(other Scope) bool {
	for _, d := range other.Domains {
		if !slices.ContainsFunc(s.Domains, func(in string) bool { return below(d, in) }) {
			return false
		}
	}
	for _, h := range other.Hosts {
		if !slices.Contains(s.Hosts, h) && !s.has(Scope{Domains: []string{h}}) {
			return false
		}
	}
	for _, n := range other.Subnets {
		if !slices.ContainsFunc(s.Subnets, func(in netip.Prefix) bool { return in.Bits() <= n.Bits() && in.Contains(n.Addr()) }) {
			return false
		}
	}
	return true
}

// excluded are the constraints that keep what is below hosts out, each with a
// dot before it: at least one more part. A host stays without where something
// below it is in the scope.
func (s Scope) excluded() []string {
	var all []string
	for _, h := range s.Hosts {
		if !slices.ContainsFunc(slices.Concat(s.Domains, s.Hosts), func(name string) bool { return name != h && below(name, h) }) {
			all = append(all, "."+h)
		}
	}
	return all
}

// below tells whether a name is a domain or in it.
func below(name, domain string) bool { return name == domain || strings.HasSuffix(name, "."+domain) }
