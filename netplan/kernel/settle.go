package kernel

import (
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// settle brings a node to what the plan says. A change may have others in its
// wake (the last address takes routes along, an interface that goes up gets
// more), so it looks again until nothing differs.
func (c *convergence) settle(i int, fabric *socket) error {
	ns, s, err := c.enterNode(i)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer s.close()
	n := &c.plan.Nodes[i]
	sent, err := keepSysctls(n.Settings())
	c.count(n.NetNS, sent)
	if err != nil {
		return fmt.Errorf("cannot configure %s: %w", n.NetNS, err)
	}
	if err := c.addPorts(n, ns, s, fabric); err != nil {
		return err
	}
	if n.Station == "" {
		if n, sent, err = settleFilter(n); err != nil {
			return err
		}
		c.count(n.NetNS, sent)
	}
	t := &settling{socket: s, node: n, was: c.before(n.NetNS), up: map[string]bool{}, news: map[string]bool{}, set: map[string]bool{}}
	// Every round but the first sets right what the one before has upset; one
	// more for each address, for the order of those of a subnet.
	rounds := 8
	for _, f := range n.Interfaces {
		rounds += len(f.Addresses)
	}
	for range rounds {
		before := t.sent
		if err := t.round(); err != nil {
			return err
		}
		if t.sent > before {
			continue
		}
		c.count(n.NetNS, t.sent)
		for _, f := range n.Interfaces {
			if t.up[f.Name] {
				c.await(n, f)
			}
			if t.up[f.Name] || t.news[f.Name] {
				c.news[i] = append(c.news[i], f.Name)
			}
		}
		return nil
	}
	return fmt.Errorf("cannot converge %s: something else changes it at the same time", n.NetNS)
}

// addPorts makes the interfaces on switches that n lacks, and sets the ports of
// the others.
func (c *convergence) addPorts(n *netplan.Node, ns *os.File, s *socket, fabric *socket) error {
	links, err := s.links()
	if err != nil {
		return err
	}
	has, taken := map[string]bool{}, map[int32]bool{}
	for _, l := range links {
		has[l.name], taken[l.index] = true, true
	}
	var b batch
	inside := int32(firstInside)
	for _, f := range n.Interfaces {
		if f.Linked() {
			continue
		}
		bridge, ok := c.bridges[f.Bridge]
		if !ok {
			return fmt.Errorf("cannot add link %s of %s: no bridge %s", f.Name, n.NetNS, f.Bridge)
		}
		if has[f.Name] {
			if port := c.ground.byName[f.Peer]; port != nil && (port.mtu != f.MTU || !port.up) {
				b.setPort(port, bridge, f.MTU, c.plan.Fabric.NetNS)
			}
			continue
		}
		for taken[inside] {
			inside++
		}
		taken[inside] = true
		at := veth{netns: n.NetNS, netnsFD: int(ns.Fd()), inside: inside, port: c.ground.nextPort.Add(1), bridge: bridge}
		if err := b.addVeth(f, at); err != nil {
			return fmt.Errorf("cannot add link %s of %s: %w", f.Name, n.NetNS, err)
		}
		if want := c.vlansOf(f.Peer); want != nil {
			b.setVLANs(at.port, *want, untouched())
		}
	}
	c.count(n.NetNS, len(b.what))
	return unsupported("veth", fabric.send(&b))
}

// settling is one node on its way.
type settling struct {
	*socket
	node *netplan.Node
	was  *netplan.Node // before, or nil
	sent int
	up   map[string]bool // interfaces that were down
	news map[string]bool // interfaces with new addresses
	set  map[string]bool // interfaces whose settings are done
	// again: an address was deleted that the next round adds, and routes
	// depend on it.
	again bool
	// steered: the rules were added before the first new address.
	steered bool
}

// round sends what differs: links, then what stands on them.
func (t *settling) round() error {
	links, err := t.links()
	if err != nil {
		return err
	}
	byName := map[string]*link{}
	for i := range links {
		byName[links[i].name] = &links[i]
	}
	if err := t.settleLinks(byName); err != nil {
		return err
	}
	t.again = false
	if err := t.settleAddresses(byName); err != nil || t.again {
		return err
	}
	if err := t.settleRoutes(byName); err != nil {
		return err
	}
	return t.settleRules()
}

// do sends what comes, and then what goes, of which some may be gone already.
func (t *settling) do(come, leave *batch) error {
	t.sent += len(come.what) + len(leave.what)
	if err := t.send(come); err != nil {
		return err
	}
	if err := t.send(leave); err != nil && !gone(err) {
		return err
	}
	return nil
}

func (t *settling) settleLinks(links map[string]*link) error {
	n := t.node
	var mtus, ups batch
	for _, f := range n.Interfaces {
		l := links[f.Name]
		if l == nil {
			return fmt.Errorf("cannot converge %s: %s vanished", n.NetNS, f.Name)
		}
		if l.mtu != f.MTU {
			mtus.setMTU(l.index, f, n.NetNS)
		}
	}
	if err := t.do(&mtus, &batch{}); err != nil {
		return err
	}
	if lo := links["lo"]; lo != nil && !lo.up {
		ups.up(lo.index, "lo", n.NetNS)
	}
	for _, f := range n.Interfaces {
		if l := links[f.Name]; !l.up {
			ups.up(l.index, f.Name, n.NetNS)
			t.up[f.Name] = true
		}
		if t.set[f.Name] {
			continue
		}
		t.set[f.Name] = true
		// Between: an MTU below 1280 takes the settings of IPv6 away, and IPv6
		// starts when the interface goes up.
		written, err := keepSysctls(n.InterfaceSettings(f.Name))
		t.sent += written
		if err != nil {
			return fmt.Errorf("cannot configure %s: %w", n.NetNS, err)
		}
	}
	return t.do(&ups, &batch{})
}

func (t *settling) settleAddresses(links map[string]*link) error {
	have, err := t.addresses()
	if err != nil {
		return err
	}
	if len(t.node.Rules) > 0 && !t.steered && t.lacksAddress(links, have) {
		t.steered = true
		if err := t.steer(links); err != nil {
			return err
		}
	}
	for _, f := range t.node.Interfaces {
		if err := t.settleInterface(f, links[f.Name].index, have); err != nil {
			return err
		}
	}
	return t.settleInterface(netplan.Interface{Name: "lo", Addresses: t.node.Loopback}, loopback, have)
}

func (t *settling) settleInterface(f netplan.Interface, index int32, have []address) error {
	netns := t.node.NetNS
	var come, leave batch
	remove := func(a address) {
		leave.again(unix.RTM_DELADDR, a.raw, func() string { return "delete address " + a.ip.String() + " of " + f.Name + " in " + netns })
	}
	four := false // an IPv4 address is deleted
	for _, a := range have {
		ours := a.proto == ourAddress || a.proto == 0 && t.had(f.Name, a.ip)
		if a.index == uint32(index) && ours && !slices.Contains(f.Addresses, a.ip) {
			remove(a)
			four = four || a.ip.Addr().Is4()
		}
	}
	held := func(want netip.Prefix) int { // in the kernel's order
		return slices.IndexFunc(have, func(a address) bool { return a.index == uint32(index) && a.ip == want })
	}
	for _, want := range additions(f.Addresses) {
		if held(want) < 0 {
			come.addAddress(want, f.NoPrefixRoute, index, f.Name, netns)
			t.news[f.Name] = true
		}
	}
	for i, want := range f.Addresses {
		at := held(want)
		if at < 0 {
			continue
		}
		a := have[at]
		other := a.flags&unix.IFA_F_NOPREFIXROUTE != 0 != f.NoPrefixRoute
		switch {
		case want.Addr().Is6() && other:
			come.setAddress(want, unix.NLM_F_REPLACE, f.NoPrefixRoute, index, f.Name, netns)
		case want.Addr().Is6():
			// It is to be the source of what the kernel sends, and to come first for that.
			if slices.ContainsFunc(f.Addresses[i+1:], func(b netip.Prefix) bool { return b.Masked() == want.Masked() && held(b) >= 0 && held(b) < at }) &&
				!isSecondary(f.Addresses[:i], want) {
				remove(a)
				t.again = true
			}
		case other || isSecondary(f.Addresses[:i], want) && a.flags&unix.IFA_F_SECONDARY == 0:
			// The flag cannot be changed, and it is for those before to be
			// the source of what the kernel sends.
			remove(a)
			four, t.again = true, true
		}
	}
	const leastIPv6 = 1280 // bytes, RFC 8200
	if index != loopback && f.MTU >= leastIPv6 && t.hasIPv6() && !slices.ContainsFunc(have, func(a address) bool {
		return a.index == uint32(index) && a.ip.Addr().Is6() && a.ip.Addr().IsLinkLocalUnicast()
	}) {
		if err := come.addLinkLocal(f, index, netns); err != nil {
			return err
		}
	}
	if !four {
		return t.do(&come, &leave)
	}
	// Without it the kernel deletes the others of a subnet with its first.
	key := "net.ipv4.conf." + f.Name + ".promote_secondaries"
	old, err := getSysctl(key)
	if err != nil {
		return fmt.Errorf("cannot read %s in %s: %w", key, netns, err)
	}
	if err := setSysctls([]netplan.Sysctl{{Key: key, Value: "1"}}); err != nil {
		return fmt.Errorf("cannot configure %s: %w", netns, err)
	}
	err = t.do(&come, &leave)
	if err := setSysctls([]netplan.Sysctl{{Key: key, Value: old}}); err != nil {
		return fmt.Errorf("cannot configure %s: %w", netns, err)
	}
	return err
}

func (t *settling) lacksAddress(links map[string]*link, have []address) bool {
	return slices.ContainsFunc(t.node.Interfaces, func(f netplan.Interface) bool {
		return slices.ContainsFunc(f.Addresses, func(want netip.Prefix) bool {
			return !slices.ContainsFunc(have, func(a address) bool { return a.index == uint32(links[f.Name].index) && a.ip == want })
		})
	})
}

// steer adds the rules of a node, and the routes of their tables on interfaces
// that carry traffic already, before a new address takes that traffic to another
// interface, whose port may not forward yet. What can't be added so early is
// added after the addresses.
func (t *settling) steer(links map[string]*link) error {
	routes, err := t.routes()
	if err != nil {
		return err
	}
	rules, err := t.rules()
	if err != nil {
		return err
	}
	n := t.node
	var come batch
	for _, r := range n.Routes {
		l := links[r.Dev]
		if r.Table == 0 || l == nil || r.Type != "" || t.up[r.Dev] || slices.ContainsFunc(routes, func(h route) bool { return h.is(r, l.index) }) {
			continue
		}
		come.addRoute(r, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, l.index, n.NetNS)
	}
	for _, r := range n.Rules {
		if !slices.ContainsFunc(rules, func(h rule) bool { return h.is(r) }) {
			come.addRule(r, n.NetNS)
		}
	}
	t.sent += len(come.what)
	_ = t.send(&come)
	return nil
}

// before is what the plan was for a namespace, nil where that is not known.
func (c *convergence) before(netns string) *netplan.Node {
	if c.was == nil {
		return nil
	}
	if i := slices.IndexFunc(c.was.Nodes, func(n netplan.Node) bool { return n.NetNS == netns }); i >= 0 {
		return &c.was.Nodes[i]
	}
	return nil
}

// had tells whether an interface had an address by the plan before.
func (t *settling) had(dev string, a netip.Prefix) bool {
	return t.was != nil && slices.ContainsFunc(t.was.Interfaces, func(f netplan.Interface) bool { return f.Name == dev && slices.Contains(f.Addresses, a) })
}

// ourAddress is what addresses of the plan have as IFA_PROTO: a station's
// programs have their own, such as a gateway's that is taken over (VRRP).
const ourAddress = 'p'

func (t *settling) hasIPv6() bool {
	return slices.ContainsFunc(t.node.Loopback, isIPv6) ||
		slices.ContainsFunc(t.node.Interfaces, func(f netplan.Interface) bool { return slices.ContainsFunc(f.Addresses, isIPv6) })
}

func isIPv6(a netip.Prefix) bool { return a.Addr().Is6() }

// isSecondary tells whether one of the addresses before a is of its subnet.
func isSecondary(before []netip.Prefix, a netip.Prefix) bool {
	return slices.ContainsFunc(before, func(b netip.Prefix) bool { return b.Masked() == a.Masked() })
}

// settleRoutes replaces and adds before it deletes. Ours are those of protocol
// static; a daemon's have its own.
func (t *settling) settleRoutes(links map[string]*link) error {
	have, err := t.routes()
	if err != nil {
		return err
	}
	n := t.node
	var come, leave batch
	keep, replaced := map[int]bool{}, map[slot]bool{}
	t.settlePrefixRoutes(links, have, &come, &leave) // first: the next hops of others lie there
	for _, r := range n.Routes {
		l := links[r.Dev]
		if l == nil && r.Type != "" {
			l = &link{}
		}
		if l == nil {
			return fmt.Errorf("cannot %s in %s: no such interface", words(r.Text()), n.NetNS)
		}
		at := slices.IndexFunc(have, func(h route) bool { return h.is(r, l.index) })
		if at >= 0 {
			keep[at] = true
			continue
		}
		come.addRoute(r, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, l.index, n.NetNS)
		replaced[slotOf(r)] = true
	}
	for i, h := range have {
		// What stands in the place of a route to come is replaced by it, and
		// if not, deleted in the next round.
		if h.proto != unix.RTPROT_STATIC || h.table == unix.RT_TABLE_LOCAL || keep[i] || replaced[slot{h.table, h.to, h.priority}] {
			continue
		}
		leave.again(unix.RTM_DELROUTE, h.raw, func() string { return "delete route " + h.to.String() + " in " + n.NetNS })
	}
	return t.do(&come, &leave)
}

// settlePrefixRoutes looks after the routes that the kernel adds for subnets:
// a program of the station may have deleted one, and the kernel keeps one that
// should go when an IPv6 address without it comes before the one with it goes
// (check_cleanup_prefix_route in net/ipv6/addrconf.c).
func (t *settling) settlePrefixRoutes(links map[string]*link, have []route, come, leave *batch) {
	n := t.node
	for _, f := range n.Interfaces {
		index := links[f.Name].index
		for i, a := range f.Addresses {
			subnet := a.Masked()
			if subnet.Bits() == a.Addr().BitLen() || isSecondary(f.Addresses[:i], a) {
				continue
			}
			at := slices.IndexFunc(have, func(h route) bool {
				return h.proto == unix.RTPROT_KERNEL && h.table == unix.RT_TABLE_MAIN && h.to == subnet && h.index == uint32(index)
			})
			switch {
			case at < 0 && !f.NoPrefixRoute:
				come.addPrefixRoute(a, index, n.NetNS)
			case at >= 0 && f.NoPrefixRoute:
				leave.again(unix.RTM_DELROUTE, have[at].raw, func() string { return "delete route " + subnet.String() + " in " + n.NetNS })
			}
		}
	}
}

// slot is where one route takes another's place.
type slot struct {
	table    uint32
	to       netip.Prefix
	priority uint32
}

func slotOf(r netplan.Route) slot {
	s := slot{table: r.Table, to: r.To, priority: r.Metric}
	if s.table == 0 {
		s.table = unix.RT_TABLE_MAIN
	}
	if r.To.Addr().Is6() && r.Metric == 0 {
		s.priority = 1024 // IP6_RT_PRIO_USER, what the kernel takes for none
	}
	return s
}

func (h route) is(r netplan.Route, index int32) bool {
	return h.plain && h.proto == unix.RTPROT_STATIC && h.kind == routeType(r) && (h.index == uint32(index) || r.Type != "") && h.via == r.Via &&
		slotOf(r) == slot{h.table, h.to, h.priority}
}

func (h rule) is(r netplan.Rule) bool {
	return h.plain && h.priority == r.Priority && h.table == r.Table && h.from == r.From && h.to == r.To && h.mark == r.Mark
}

// settleRules knows the plan's own rules by their priority, which is their
// table's number.
func (t *settling) settleRules() error {
	have, err := t.rules()
	if err != nil {
		return err
	}
	n := t.node
	var come, leave batch
	keep := map[int]bool{}
	for _, r := range n.Rules {
		at := slices.IndexFunc(have, func(h rule) bool { return h.is(r) })
		if at >= 0 {
			keep[at] = true
		} else {
			come.addRule(r, n.NetNS)
		}
	}
	const kernels = 32766 // the priority of the kernel's rule for main
	for i, h := range have {
		if h.priority < netplan.FirstTable || h.priority >= kernels || h.priority != h.table || keep[i] {
			continue
		}
		leave.again(unix.RTM_DELRULE, h.raw, func() string { return fmt.Sprintf("delete rule of priority %d in %s", h.priority, n.NetNS) })
	}
	if !come.empty() || !leave.empty() {
		return unsupported("policy routing", t.do(&come, &leave))
	}
	return nil
}
