package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// Converge brings namespaces of p that exist, by name, to what p says of them:
// it lists what is there and sends the differences alone. Other namespaces
// notice nothing but the changes in those. Bridges must exist (Extend), except
// where the fabric itself is named. What is not of the plan's kind stays:
// other interfaces, routes of other protocols than static, rules outside the
// plan's own range, addresses of other origin (IFA_PROTO).
// was is the plan before, nil where nobody knows: earlier programs did not mark
// their addresses.
func Converge(ctx context.Context, was, p *netplan.Plan, o Options, netns []string) error {
	_, err := converge(ctx, was, p, o, netns)
	return err
}

// Mend is Converge of all namespaces, and returns those in which something was
// not as planned, in the order of the plan.
func Mend(ctx context.Context, p *netplan.Plan, o Options) ([]string, error) {
	sent, err := converge(ctx, nil, p, o, p.NetNSNames())
	return slices.DeleteFunc(p.NetNSNames(), func(name string) bool { return sent[name] == 0 }), err
}

// converge also returns how many requests it sent and settings it wrote, by
// namespace.
func converge(ctx context.Context, was, p *netplan.Plan, o Options, netns []string) (map[string]int, error) {
	listed := map[string]bool{}
	all := p.NetNSNames()
	for _, name := range netns {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("cannot converge %s: the plan has no such namespace", name)
		}
		listed[name] = true
	}
	some := *p
	some.Nodes = slices.DeleteFunc(slices.Clone(p.Nodes), func(n netplan.Node) bool { return !listed[n.NetNS] })
	for _, name := range netns {
		if _, err := pinned(o, name); err != nil {
			return nil, err
		}
	}
	fabric, err := openPin(o, p.Fabric.NetNS)
	if err != nil {
		return nil, err
	}
	defer fabric.Close()
	w := newWiring(&some, o)
	w.fabric = fabric
	w.ports = map[string]bool{} // none is made yet
	c := &convergence{wiring: w, was: was, stale: make([][]*link, len(some.Nodes)), news: make([][]string, len(some.Nodes)),
		sent: map[string]int{}, inPlace: map[linkEnd]bool{}, links: map[string]bool{}, far: map[string]bool{}}
	if err := c.run(ctx, listed[p.Fabric.NetNS], &wiring{plan: p, options: o, bridges: w.bridges, fabric: fabric}); err != nil || len(c.far) == 0 {
		return c.sent, err
	}
	sent, err := converge(ctx, was, p, o, slices.Collect(maps.Keys(c.far)))
	for name, n := range sent {
		c.sent[name] += n
	}
	return c.sent, err
}

// convergence is one Converge.
type convergence struct {
	*wiring
	was    *netplan.Plan // before, or nil
	ground *ground
	stale  [][]*link  // ports to delete, by node
	news   [][]string // interfaces with new addresses, by node

	mu      sync.Mutex       // guards the rest and wiring.ports
	sent    map[string]int   // by namespace
	inPlace map[linkEnd]bool // links that are as planned, by the end they are added with
	links   map[string]bool  // namespaces in which links came up
	far     map[string]bool  // others, in which a link has a new end
}

func (c *convergence) run(ctx context.Context, fabric bool, whole *wiring) error {
	if err := c.inFabric(func(s *socket) error { return c.prepare(s, fabric) }); err != nil {
		return err
	}
	if err := c.eachNode(ctx, c.inspect); err != nil {
		return err
	}
	if stale := slices.Concat(c.stale...); len(stale) > 0 {
		for i := range c.stale {
			c.count(c.plan.Nodes[i].NetNS, len(c.stale[i]))
		}
		err := c.inFabric(func(s *socket) error { return s.removeLinks(stale) })
		if err != nil {
			return err
		}
		for _, l := range stale {
			delete(c.ground.byName, l.name)
		}
	}
	if err := c.makeLinks(ctx); err != nil {
		return err
	}
	if err := c.eachNode(ctx, c.settle); err != nil {
		return err
	}
	if fabric {
		err := c.inFabric(func(s *socket) error {
			sent, err := whole.settleFabric(s)
			c.count(c.plan.Fabric.NetNS, sent)
			return err
		})
		if err != nil {
			return err
		}
		sent, err := settleHost(ctx, whole.plan, c.options, c.fabric)
		c.count(c.plan.Fabric.NetNS, sent)
		if err != nil {
			return err
		}
	}
	if err := onOwnThread(func() error { return c.waitForPorts(ctx) }); err != nil {
		return err
	}
	if err := c.awaitLinks(ctx); err != nil {
		return err
	}
	if !slices.ContainsFunc(c.news, func(names []string) bool { return len(names) > 0 }) {
		return nil
	}
	return c.eachNode(ctx, func(i int, _ *socket) error { return c.announce(i, c.news[i]) })
}

func (c *convergence) inFabric(f func(s *socket) error) error {
	return onOwnThread(func() error {
		s, err := c.openFabric()
		if err != nil {
			return err
		}
		defer s.close()
		return f(s)
	})
}

func (c *convergence) prepare(s *socket, fabric bool) error {
	g, err := survey(s)
	if err != nil {
		return err
	}
	c.ground = g
	if fabric {
		sent, err := c.addBridges(s, g)
		c.count(c.plan.Fabric.NetNS, sent)
		return err
	}
	for _, br := range c.plan.Fabric.Bridges {
		if l := g.byName[br.Name]; l != nil && l.kind == "bridge" {
			c.bridges[br.Name] = l.index
		} else {
			delete(c.bridges, br.Name)
		}
	}
	return nil
}

// enterNode moves the calling thread into a node's namespace and opens a
// socket there.
func (c *convergence) enterNode(i int) (*os.File, *socket, error) {
	ns, err := openPin(c.options, c.plan.Nodes[i].NetNS)
	if err != nil {
		return nil, nil, err
	}
	s, err := openSocketIn(ns)
	if err != nil {
		return nil, nil, errors.Join(err, ns.Close())
	}
	return ns, s, nil
}

// inspect finds the ports of a node that are to be deleted: those of
// interfaces that the plan does not have or has otherwise, and those whose
// name an interface of the plan needs. It deletes devices of others inside
// that have the name of an interface of the plan.
func (c *convergence) inspect(i int, fabric *socket) error {
	ns, s, err := c.enterNode(i)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer s.close()
	nsid, err := fabric.nsid(ns)
	if err != nil {
		return err
	}
	links, err := s.links()
	if err != nil {
		return err
	}
	n := &c.plan.Nodes[i]
	good := map[string]bool{} // ports to keep
	var foreign batch
	for j := range links {
		l := &links[j]
		f := planned(n, l.name)
		port := c.ground.byEnd[end{nsid, l.index}]
		attached := port != nil && nsid >= 0
		leads, severed := false, false
		switch {
		case attached:
		case f != nil && f.Linked():
			leads, err = c.connected(ns, s, f, l)
		case f == nil:
			severed, err = c.severed(s, l)
		}
		if err != nil {
			return err
		}
		switch {
		case leads:
			c.found(added(n, f))
		case attached && f != nil && !f.Linked() && c.fits(f, l, port):
			good[port.name] = true
		case attached:
			c.stale[i] = append(c.stale[i], port)
		case f != nil || severed:
			foreign.add(unix.RTM_DELLINK, 0, func() string { return "delete link " + l.name + " in " + n.NetNS }, bare(l.index))
		}
	}
	for _, f := range n.Interfaces {
		port := c.ground.byName[f.Peer]
		if f.Linked() {
			continue
		}
		if port != nil && !good[port.name] && !slices.Contains(c.stale[i], port) {
			c.stale[i] = append(c.stale[i], port)
		}
	}
	c.count(n.NetNS, len(foreign.what))
	if err := s.send(&foreign); err != nil && !gone(err) {
		return err
	}
	return nil
}

func planned(n *netplan.Node, name string) *netplan.Interface {
	for i := range n.Interfaces {
		if n.Interfaces[i].Name == name {
			return &n.Interfaces[i]
		}
	}
	return nil
}

// fits tells whether what cannot or need not be changed in place is as planned.
func (c *convergence) fits(f *netplan.Interface, inside, port *link) bool {
	return inside.mac == f.MAC && port.name == f.Peer && port.mac == f.PeerMAC && port.master == c.bridges[f.Bridge]
}

func (c *convergence) count(netns string, sent int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent[netns] += sent
}

// await has the end wait for an interface of a node to carry packets.
func (c *convergence) await(n *netplan.Node, f netplan.Interface) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.Linked() {
		c.links[n.NetNS] = true
		return
	}
	c.ports[f.Peer] = true
}

func (c *convergence) found(link linkEnd) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inPlace[link] = true
}
