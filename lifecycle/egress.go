package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"platelayer/backbone"
	"platelayer/netplan"
	"platelayer/topology"
)

const (
	// egressTime is how long a destination outside may take to answer.
	egressTime = 10 * time.Second
	// maxEgress bounds the connections outside that one station waits for.
	maxEgress = 64
)

// guard decides what stations may reach outside, and keeps what they tried.
type guard struct {
	leaks *leakBook

	mu      sync.Mutex
	policy  egressRules
	waiting map[string]int // by station
}

// egressRules is what a topology allows, by who asks.
type egressRules struct {
	sources map[netip.Addr]source
	subnets map[netip.Prefix]source // of clusters: for what is behind a station
	inside  []netip.Prefix          // what is never outside
}

type source struct {
	name   string // "cluster/station", or a cluster's with a "/" behind
	group  string // control group; "" of a cluster
	egress string
	to     []topology.Destination
}

func newPolicy(t *topology.Topology, p *netplan.Plan) egressRules {
	all := egressRules{sources: map[netip.Addr]source{}, subnets: map[netip.Prefix]source{}}
	named := func(name, group, egress string) source {
		return source{name, group, egress, topology.Destinations(egress)}
	}
	byID := map[string]source{}
	for i := range t.Clusters {
		c := &t.Clusters[i]
		for _, subnet := range c.Subnets {
			all.subnets[subnet.Masked()] = named(c.Name+"/", "", t.EgressOf(c, nil))
		}
		for j := range c.Stations {
			s := &c.Stations[j]
			byID[s.ID()] = named(s.ID(), cgroup(t.Name)+"/"+t.ContainerName(s), t.EgressOf(c, s))
		}
	}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if n.Station == "" {
			if n.Divert != nil {
				all.inside = n.Divert.Own
			}
			continue
		}
		from := byID[n.Cluster+"/"+n.Station]
		for _, a := range n.Loopback {
			all.sources[a.Addr()] = from
		}
		for _, f := range n.Interfaces {
			for _, a := range f.Addresses {
				all.sources[a.Addr()] = from
			}
		}
	}
	return all
}

// who is the source of an address.
func (p *egressRules) who(a netip.Addr) source {
	if s, ok := p.sources[a]; ok {
		return s
	}
	for subnet, s := range p.subnets {
		if subnet.Contains(a) {
			return s
		}
	}
	return source{name: a.String(), egress: topology.EgressNone}
}

// refuses says why a source may not reach a destination, or "". local are the
// machine's own addresses. A name never opens those: who answers for it outside
// is not to choose what of the machine a station talks to.
func (p *egressRules) refuses(s source, to netip.AddrPort, names []string, local func() []netip.Addr) string {
	addr := to.Addr()
	if slices.ContainsFunc(p.inside, func(own netip.Prefix) bool { return own.Contains(addr) }) {
		return "it is not outside"
	}
	open := s.egress == topology.EgressAllow
	for _, d := range s.to {
		if d.Port != 0 && d.Port != to.Port() {
			continue
		}
		if d.Prefix.IsValid() && d.Prefix.Contains(addr) {
			return ""
		}
		open = open || d.Name != "" && slices.Contains(names, d.Name)
	}
	switch {
	case s.egress == topology.EgressNone:
		return "egress is none"
	case !open:
		return "egress does not list it"
	case addr.IsLoopback() || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLinkLocalUnicast() || slices.Contains(local(), addr):
		return "it is the machine's own"
	}
	return ""
}

// askers tells who gets answers about outside names, and which of these are
// listed.
func (p *egressRules) askers() (outside map[netip.Prefix]bool, listed []string) {
	outside = map[netip.Prefix]bool{}
	note := func(subnet netip.Prefix, s source) {
		outside[subnet] = s.egress != topology.EgressNone
		for _, d := range s.to {
			if d.Name != "" && !slices.Contains(listed, d.Name) {
				listed = append(listed, d.Name)
			}
		}
	}
	for subnet, s := range p.subnets {
		note(subnet, s)
	}
	for a, s := range p.sources {
		note(netip.PrefixFrom(a, a.BitLen()), s)
	}
	slices.Sort(listed)
	return outside, listed
}

func localAddresses() []netip.Addr {
	var all []netip.Addr
	found, _ := net.InterfaceAddrs()
	for _, a := range found {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				all = append(all, addr.Unmap())
			}
		}
	}
	return all
}

// set puts a new policy in the place of the old one. Connections under way go
// on.
func (g *guard) set(p egressRules) {
	g.mu.Lock()
	g.policy = p
	g.mu.Unlock()
}

// open is a backbone.EgressFunc.
func (g *guard) open(ctx context.Context, network string, from, to netip.AddrPort, names []string) (*os.File, error) {
	if network != "tcp" && network != "udp" && network != "icmp" || !to.IsValid() || to.Addr().Is4In6() || (to.Port() == 0) != (network == "icmp") {
		return nil, errors.New("not a destination")
	}
	g.mu.Lock()
	p := g.policy
	s := p.who(from.Addr())
	crowded := g.waiting[s.name] >= maxEgress
	if !crowded {
		g.waiting[s.name]++
		defer g.left(s.name)
	}
	g.mu.Unlock()
	tried := Leak{Station: s.name, Protocol: network, Address: to.Addr(), Port: to.Port()}
	for _, name := range names {
		tried.Name = name
		if slices.ContainsFunc(s.to, func(d topology.Destination) bool { return d.Name == name }) {
			break
		}
		tried.Name = names[0]
	}
	if s.group != "" && g.leaks.isNew(tried) {
		tried.Process = sender(s.group, network, from, to) // which waits for what becomes of it
	}
	why := p.refuses(s, to, names, localAddresses)
	tried.Outcome = LeakRefused
	if why == "" && crowded {
		why, tried.Outcome = fmt.Sprintf("%d others wait for an answer", maxEgress), LeakFailed
	}
	if why != "" {
		tried.Reason = why
		g.leaks.add(tried, 1)
		return nil, errors.New(why)
	}
	ctx, cancel := context.WithTimeout(ctx, egressTime)
	defer cancel()
	f, err := backbone.Dial(ctx, network, to)
	tried.Outcome = LeakAllowed
	if err != nil {
		tried.Outcome, tried.Reason = LeakFailed, cause(err)
	}
	g.leaks.add(tried, 1)
	return f, err
}

// cause is an error without what the record says anyway.
func cause(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err.Error()
}

func (g *guard) left(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting[name]--; g.waiting[name] == 0 {
		delete(g.waiting, name)
	}
}

// asked takes questions for outside names.
func (g *guard) asked(all []backbone.Asked) {
	g.mu.Lock()
	p := g.policy
	g.mu.Unlock()
	for _, a := range all {
		s := p.who(a.From)
		tried := Leak{Station: s.name, Protocol: "dns", Name: a.Name, Outcome: LeakAllowed}
		switch {
		case a.Passed:
		case s.egress == topology.EgressNone:
			tried.Outcome, tried.Reason = LeakRefused, "egress is none"
		default:
			tried.Outcome, tried.Reason = LeakRefused, "no upstream resolver"
		}
		g.leaks.add(tried, a.Count)
	}
}
