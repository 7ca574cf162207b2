package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// UpstreamDomain says who is asked about a domain and all below it.
type UpstreamDomain struct {
	Domain  string   `json:"domain"`  // without a trailing dot
	Servers []string `json:"servers"` // as Backbone.Upstream
}

// ExtraHost is a line of a station's /etc/hosts.
type ExtraHost struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
}

// upstream reads the backbone's resolvers: those for all names, and those for
// the names of a domain.
func (l *loader) upstream(b *Backbone, up *node) {
	plain := map[string]bool{}
	domains := map[string]bool{}
	for _, item := range up.good() {
		if item.kind != mapping {
			if who, ok := l.server(item, plain); ok {
				b.Upstream = append(b.Upstream, who)
			}
			continue
		}
		d, n := UpstreamDomain{}, item.get("domain")
		if n == nil {
			continue
		}
		var ok bool
		if d.Domain, ok = l.dnsName(n, "domain"); !ok {
			continue
		}
		if domains[d.Domain] {
			l.spoil(n, fmt.Sprintf("domain %s is listed twice", d.Domain), "put its servers into one entry")
			continue
		}
		domains[d.Domain] = true
		servers, seen := item.get("servers"), map[string]bool{}
		if servers != nil && servers.kind == sequence && len(servers.items) == 0 {
			l.spoil(servers, "the list of servers is empty", "name one, or remove the entry")
		}
		for _, s := range servers.good() {
			if who, ok := l.server(s, seen); ok {
				d.Servers = append(d.Servers, who)
			}
		}
		b.Domains = append(b.Domains, d)
	}
}

// server reads who is asked: "host" or an address. The machine asks, so its
// own loopback is an address like others.
func (l *loader) server(item *node, seen map[string]bool) (string, bool) {
	who := item.text
	if who != "host" {
		addr, ok := l.resolver(item)
		if !ok {
			return "", false
		}
		who = addr.String()
	}
	if seen[who] {
		l.spoil(item, fmt.Sprintf("%s is listed twice", who), "remove one")
		return "", false
	}
	seen[who] = true
	return who, true
}

// resolver reads an address, also of the loopback.
func (l *loader) resolver(n *node) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(n.text); err == nil && addr.IsLoopback() && addr.Zone() == "" && !addr.Is4In6() {
		return addr, true
	}
	return l.address(n)
}

// resolving reads how a station's own programs look names up.
func (l *loader) resolving(s *stationDraft) {
	out := &s.out
	for _, n := range s.body.get("dns").good() {
		addr, ok := l.resolver(n)
		switch {
		case !ok:
		case slices.Contains(out.DNS, addr):
			l.spoil(n, fmt.Sprintf("%s is listed twice", addr), "remove one")
		default:
			out.DNS = append(out.DNS, addr)
		}
	}
	for _, n := range s.body.get("dns_search").good() {
		if n.text == "." {
			out.DNSSearch = append(out.DNSSearch, ".")
		} else if name, ok := l.dnsName(n, "domain"); ok {
			out.DNSSearch = append(out.DNSSearch, name)
		}
	}
	if len(out.DNSSearch) > 1 && slices.Contains(out.DNSSearch, ".") {
		l.spoil(s.body.get("dns_search"), `"." stands beside domains`, `"." alone is no domain at all`)
	}
	for _, n := range s.body.get("dns_opt").good() {
		if n.text == "" || strings.ContainsAny(n.text, " \t\n\r") {
			l.spoil(n, fmt.Sprintf("%s is not an option", quoted(n.text)), "write one of resolv.conf(5), like ndots:2")
			continue
		}
		out.DNSOpt = append(out.DNSOpt, n.text)
	}
	l.extraHosts(s)
}

func (l *loader) extraHosts(s *stationDraft) {
	n := s.body.get("extra_hosts")
	if n == nil {
		return
	}
	add := func(name, address string, at *node) {
		address = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
		addr, err := netip.ParseAddr(address)
		switch {
		case !validDNSName(name):
			l.spoil(at, fmt.Sprintf("%s is not a host name", quoted(name)), "write NAME=ADDRESS")
		case address == "host-gateway":
			l.spoil(at, "host-gateway is not available in this version", "stations cannot open connections to the machine: write an address")
		case err != nil || addr.Zone() != "":
			l.spoil(at, fmt.Sprintf("%s is not an IP address", quoted(address)), "write NAME=ADDRESS")
		case !slices.Contains(s.out.ExtraHosts, ExtraHost{name, addr.Unmap()}):
			s.out.ExtraHosts = append(s.out.ExtraHosts, ExtraHost{name, addr.Unmap()})
		}
	}
	for _, p := range n.pairs {
		for _, v := range p.val.good() {
			add(p.key, v.text, v)
		}
	}
	for _, item := range n.items {
		if item.bad {
			continue
		}
		name, address, ok := strings.Cut(item.text, "=")
		if !ok { // compose's older form
			name, address, ok = strings.Cut(item.text, ":")
		}
		if !ok {
			l.spoil(item, fmt.Sprintf("%s is not NAME=ADDRESS", quoted(item.text)), `write it like "db.example=10.20.0.5"`)
			continue
		}
		add(name, address, item)
	}
}

// checkResolvers reports resolvers outside of a topology that nothing leaves.
func (l *loader) checkResolvers(b *Backbone) {
	if b.Egress != "none" {
		return
	}
	for _, c := range l.clusters {
		for _, s := range c.stations {
			for i, n := range s.body.get("dns").good() {
				if i < len(s.out.DNS) && !s.out.DNS[i].IsLoopback() && !l.inside(s.out.DNS[i]) {
					l.spoil(n, fmt.Sprintf("%s is outside of the topology, and egress is none", s.out.DNS[i]), "nothing leaves, DNS included: remove one of them, or name a station's address")
				}
			}
		}
	}
}

// inside tells whether an address is in a subnet of the topology's.
func (l *loader) inside(addr netip.Addr) bool {
	return slices.ContainsFunc(l.clusters, func(c *clusterDraft) bool {
		return c.unsure || slices.ContainsFunc(c.subnets, func(s subnet) bool { return s.Contains(addr) })
	})
}
