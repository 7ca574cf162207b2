package lifecycle

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"platelayer/backbone"
	"platelayer/topology"
)

const loopbackHosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

// hosts is /etc/hosts: the loopback and the station itself, so that its own
// name works without DNS; the others of a LAN where no backbone answers; and
// the file's own lines.
func hosts(t *topology.Topology, s *topology.Station) string {
	var b strings.Builder
	b.WriteString(loopbackHosts)
	names := s.Name + "." + t.Cluster(s.Cluster).Domain + " " + s.Name
	if s.Hostname != s.Name {
		names += " " + s.Hostname
	}
	for _, a := range s.Addresses {
		fmt.Fprintf(&b, "%s\t%s\n", a, names)
	}
	for _, leg := range interfaces(s) {
		if c := t.Cluster(leg.Cluster); len(c.Resolvers()) == 0 {
			neighbours(&b, t, c, s)
		}
	}
	for _, h := range s.ExtraHosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.Address, h.Name)
	}
	return b.String()
}

// neighbours lists the stations of a LAN.
func neighbours(b *strings.Builder, t *topology.Topology, c *topology.Cluster, except *topology.Station) {
	for _, s := range t.Stations() {
		if s.ID() == except.ID() {
			continue
		}
		for _, leg := range interfaces(s) {
			if leg.Cluster != c.Name {
				continue
			}
			names := []string{s.Name + "." + c.Domain, s.Name}
			if s.Cluster == c.Name {
				names = append(names, s.Aliases...)
			}
			for _, a := range leg.Addresses {
				fmt.Fprintf(b, "%s\t%s\n", a, strings.Join(names, " "))
			}
		}
	}
}

// resolvConf asks the backbone, at its addresses in the station's own cluster
// or else in the first of its others where it has one, or whom the file names
// in the topology.
func resolvConf(t *topology.Topology, s *topology.Station) string {
	var b strings.Builder
	search := s.DNSSearch
	if search == nil {
		search = []string{t.Cluster(s.Cluster).Domain}
	}
	fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	servers, _ := resolversOf(t, s)
	for _, leg := range interfaces(s) {
		if len(servers) == 0 {
			servers = t.Cluster(leg.Cluster).Resolvers()
		}
	}
	for i, a := range servers {
		if i == 3 { // resolv.conf(5): MAXNS
			break
		}
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(s.DNSOpt) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(s.DNSOpt, " "))
	}
	return b.String()
}

// resolversOf splits the resolvers that the file names for a station into those
// that it asks itself and those that the backbone asks for it.
func resolversOf(t *topology.Topology, s *topology.Station) (own, outside []netip.Addr) {
	within := func(a netip.Addr) bool {
		return a.IsLoopback() || slices.ContainsFunc(t.Clusters, func(c topology.Cluster) bool {
			return slices.ContainsFunc(c.Subnets, func(p netip.Prefix) bool { return p.Contains(a) })
		})
	}
	for _, a := range s.DNS {
		if within(a) {
			own = append(own, a)
		} else {
			outside = append(outside, a)
		}
	}
	return own, outside
}

// dnsConfig is what the backbone works from.
func (k *keeper) dnsConfig() backbone.Config {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.intent.Topology
	config := backbone.Config{DNS: k.plan.DNS, Upstream: upstream(t.Backbone.Upstream), Out: k.outOfTurn(), Ports: k.portConfig()}
	for _, d := range t.Backbone.Domains {
		config.Domains = append(config.Domains, backbone.Domain{Name: d.Domain, Upstream: upstream(d.Servers)})
	}
	for _, s := range t.Stations() {
		_, outside := resolversOf(t, s)
		if len(outside) == 0 {
			continue
		}
		asker := backbone.Asker{Addresses: slices.Concat(addresses(s), s.Loopback)}
		for _, a := range outside {
			asker.Upstream = append(asker.Upstream, netip.AddrPortFrom(a, 53))
		}
		config.Askers = append(config.Askers, asker)
	}
	for i := range k.plan.Nodes {
		if d := k.plan.Nodes[i].Divert; d != nil {
			config.Divert, config.Own, config.Origins = d.Port, d.Own, d.Origins
		}
	}
	k.guard.mu.Lock()
	config.Outside, config.Listed = k.guard.policy.askers()
	k.guard.mu.Unlock()
	return config
}

// hostUpstream stands for the machine's own resolvers.
const hostUpstream = "host"

func machineResolvers() []netip.AddrPort {
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	return backbone.HostResolvers(text)
}

// asksMachine tells whether the file has the machine's resolvers asked.
func asksMachine(t *topology.Topology) bool {
	return slices.Contains(t.Backbone.Upstream, hostUpstream) ||
		slices.ContainsFunc(t.Backbone.Domains, func(d topology.UpstreamDomain) bool { return slices.Contains(d.Servers, hostUpstream) })
}

// upstream resolves the file's `upstream:` to addresses.
func upstream(names []string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, u := range names {
		if u == hostUpstream {
			all = append(all, machineResolvers()...)
		} else if a, err := netip.ParseAddr(u); err == nil {
			all = append(all, netip.AddrPortFrom(a, 53))
		}
	}
	return all
}

// outOfTurn lists the stations that share a name and are not to be found under
// it now: they do not run, or have a health check that has not succeeded, or
// fails. The keeper's mutex is held.
func (k *keeper) outOfTurn() []string {
	users := map[string][]string{} // of names that are not a station's own
	for _, h := range k.plan.DNS.Hosts {
		for _, alias := range h.Aliases {
			key := h.Cluster + "/" + alias
			users[key] = append(users[key], h.Station)
		}
	}
	shares := map[string]bool{}
	for _, all := range users {
		for _, id := range all {
			shares[id] = shares[id] || len(all) > 1
		}
	}
	var out []string
	for _, m := range k.members {
		if id := m.station.ID(); shares[id] && (m.state.State != Running || m.state.Health != "" && m.state.Health != healthHealthy) {
			out = append(out, id)
		}
	}
	return out
}

// mindNames tells the backbone when stations leave and join names that they
// share, many changes at once, and when the machine's resolvers are others: it
// may be carried from one network to the next.
func (k *keeper) mindNames() {
	const gather = 50 * time.Millisecond
	const pause = 5 * time.Second // between looks at resolv.conf, which is a file that many programs replace
	look, resolvers := time.NewTicker(pause), machineResolvers()
	defer look.Stop()
	for {
		now, same := resolvers, false
		select {
		case _, open := <-k.renamed:
			if !open {
				return
			}
			k.mu.Lock()
			same = slices.Equal(k.outOfTurn(), k.told) || k.retired
			k.mu.Unlock()
		case <-look.C:
			k.mu.Lock()
			idle := k.retired || !asksMachine(k.intent.Topology)
			k.mu.Unlock()
			if !idle {
				now = machineResolvers()
			}
			same = slices.Equal(now, resolvers)
		}
		if same {
			continue
		}
		ctx, cancel := withTimeout(context.Background(), backbonePatience)
		if k.configureBackbone(ctx) == nil {
			resolvers = now
		} else {
			time.AfterFunc(time.Second, k.touch)
		}
		cancel()
		time.Sleep(gather)
	}
}
