package lifecycle

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"platelayer/netplan"
	"platelayer/resolved"
	"platelayer/topology"
)

// bus is the socket of the machine's system bus, or with --root one in that
// folder.
func (l Layout) bus() string {
	if l.Run == "/run/platelayer" {
		return "/run/dbus/system_bus_socket"
	}
	return filepath.Join(filepath.Dir(l.Run), "system_bus_socket")
}

// resolve has the machine's systemd-resolved ask the backbone about the domains
// that the machine has routes to, where that runs. It forgets them with the
// uplink.
func (o outside) resolve(t *topology.Topology, u *netplan.Uplink) (notices []string) {
	if u == nil {
		return nil
	}
	failed := func(err error) []string {
		if err == nil || errors.Is(err, resolved.ErrAbsent) {
			return nil
		}
		return []string{fmt.Sprintf("the machine knows names of stations from %s alone: %v", o.layout.hosts(), err)}
	}
	link, err := net.InterfaceByName(u.Name)
	if err != nil {
		return failed(err)
	}
	servers, domains := resolvable(t, u.Routes)
	return failed(resolved.Set(o.layout.bus(), resolved.Link{Index: link.Index, Servers: servers, Domains: domains}))
}

// resolvable are the domains with stations that the machine reaches over
// routes, and addresses of the backbone to ask about them.
func resolvable(t *topology.Topology, routes []netip.Prefix) (servers []netip.Addr, domains []string) {
	reached := func(a netip.Addr) bool {
		return slices.ContainsFunc(routes, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	for i := range t.Clusters {
		c := &t.Clusters[i]
		if slices.ContainsFunc(c.Subnets, func(p netip.Prefix) bool { return reached(p.Addr()) }) && !slices.Contains(domains, c.Domain) {
			domains = append(domains, c.Domain)
		}
		for _, a := range c.Resolvers() {
			if reached(a) {
				servers = append(servers, a)
			}
		}
	}
	const most = 3 // all are of one server
	return servers[:min(len(servers), most)], domains
}

// named tells whether the hosts file has names of a topology, as somebody asked
// for.
func (o outside) named(name string) bool {
	text, err := os.ReadFile(o.layout.hosts())
	return err == nil && strings.Contains(string(text), hostsMark(name)+"\n")
}
