package backbone

import (
	"net/netip"
	"strings"
)

// Domain says who is asked about a domain and all names below it.
type Domain struct {
	Name     string           `json:"name"`
	Upstream []netip.AddrPort `json:"upstream"`
}

// Asker says who is asked, instead of Config.Upstream, for a station.
type Asker struct {
	Addresses []netip.Addr     `json:"addresses"`
	Upstream  []netip.AddrPort `json:"upstream"`
}

// resolvers are all that a configuration names.
func (c *Config) resolvers() []netip.AddrPort {
	var all []netip.AddrPort
	seen := map[netip.AddrPort]bool{}
	add := func(addrs []netip.AddrPort) {
		for _, a := range addrs {
			if !seen[a] {
				seen[a] = true
				all = append(all, a)
			}
		}
	}
	add(c.Upstream)
	for _, d := range c.Domains {
		add(d.Upstream)
	}
	for _, a := range c.Askers {
		add(a.Upstream)
	}
	return all
}

// routes tell which resolvers a question goes to: those of the longest domain
// that the name is in, otherwise the asker's own, otherwise everybody's.
type routes struct {
	all     *route
	domains map[string]*route // canonical
	askers  map[netip.Addr]*route
}

// route is resolvers, asked in this order.
type route struct{ servers []*resolver }

func newRoutes(c *Config, known map[netip.AddrPort]*resolver) routes {
	to := func(addrs []netip.AddrPort) *route {
		r := &route{}
		for _, a := range addrs {
			r.servers = append(r.servers, known[a])
		}
		return r
	}
	r := routes{all: to(c.Upstream), domains: map[string]*route{}, askers: map[netip.Addr]*route{}}
	for _, d := range c.Domains {
		r.domains[canonical(d.Name)] = to(d.Upstream)
	}
	for _, a := range c.Askers {
		way := to(a.Upstream)
		for _, addr := range a.Addresses {
			r.askers[addr.Unmap()] = way
		}
	}
	return r
}

// find is the route of a question.
func (r *routes) find(name string, from netip.Addr) *route {
	if len(r.domains) > 0 {
		for name = strings.ToLower(name); name != "."; name = parent(name) {
			if found := r.domains[name]; found != nil {
				return found
			}
		}
	}
	if own := r.askers[from.Unmap().WithZone("")]; own != nil {
		return own
	}
	return r.all
}
