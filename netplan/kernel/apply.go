package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// Apply brings everything in p up, from nothing: the fabric with its bridges,
// then each container's namespace with its veths, addresses, routes and rules.
// When it returns without an error every port and link forwards. After an error
// the caller runs Remove.
//
// A program that uses it keeps its main thread to itself as far as it can
// (see onOwnThread).
func Apply(ctx context.Context, p *netplan.Plan, o Options) error {
	// The pins first: they refuse when these options are in use, whose names
	// freeNames would otherwise take for stale.
	if err := makePinDir(o.PinDir); err != nil {
		return err
	}
	if err := checkHost(p, o); err != nil {
		return err
	}
	if err := freeNames(o, p.NetNSNames()); err != nil {
		return err
	}
	w := newWiring(p, o)
	if err := onOwnThread(w.makeFabric); err != nil {
		return err
	}
	defer w.fabric.Close()
	if err := w.makeNodes(ctx); err != nil {
		return err
	}
	if err := onOwnThread(func() error { return w.waitForPorts(ctx) }); err != nil {
		return err
	}
	if _, err := settleHost(ctx, p, o, w.fabric); err != nil {
		return err
	}
	return finishLinked(ctx, p, o, p.Nodes)
}

// finishLinked configures those of new nodes that have links, which can be
// added only when both nodes are there.
func finishLinked(ctx context.Context, p *netplan.Plan, o Options, nodes []netplan.Node) error {
	names := linked(nodes)
	if len(names) == 0 {
		return nil
	}
	return Converge(ctx, nil, p, o, names)
}

// wiring is one Apply.
type wiring struct {
	plan      *netplan.Plan
	options   Options
	bridges   map[string]int32 // interface index by name
	firstPort []int32          // interface index of each node's first port
	ports     map[string]bool  // whose forwarding is waited for
	fabric    *os.File         // the fabric's namespace
}

func newWiring(p *netplan.Plan, o Options) *wiring {
	w := &wiring{plan: p, options: o, bridges: map[string]int32{}, firstPort: make([]int32, len(p.Nodes)), ports: map[string]bool{}}
	for i, b := range p.Fabric.Bridges {
		w.bridges[b.Name] = int32(firstBridge + i)
	}
	for i := range p.Nodes {
		w.firstPort[i] = int32(firstPort + len(w.ports))
		if hasLink(&p.Nodes[i]) {
			continue // finishLinked makes its ports
		}
		for _, f := range p.Nodes[i].Interfaces {
			w.ports[f.Peer] = true
		}
	}
	return w
}

func (w *wiring) makeFabric() error {
	f := &w.plan.Fabric
	ns, err := enterNewNetNS(f.NetNS, f.Sysctls)
	if err != nil {
		return err
	}
	w.fabric = ns
	s, err := openSocket()
	if err != nil {
		return err
	}
	defer s.close()
	var b batch
	b.up(loopback, "lo", f.NetNS)
	for i, br := range f.Bridges {
		if err := b.addBridge(br, int32(firstBridge+i), f.NetNS); err != nil {
			return fmt.Errorf("cannot add bridge %s: %w", br.Name, err)
		}
	}
	if err := s.send(&b); err != nil {
		return w.unsupportedBridges(err)
	}
	return pin(w.options, f.NetNS)
}

// makeNodes makes every node of the plan.
func (w *wiring) makeNodes(ctx context.Context) error {
	return w.eachNode(ctx, w.makeNode)
}

// eachNode lets a few threads do f for the nodes, each taking the next that is
// left. f gets the node's place in the plan and a socket in the fabric, and
// may move its thread. The first error stops all.
func (w *wiring) eachNode(ctx context.Context, f func(i int, fabric *socket) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers := w.options.Workers
	if workers <= 0 {
		workers = min(runtime.NumCPU(), 4)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, len(w.plan.Nodes)) {
		wg.Go(func() {
			if err := onOwnThread(func() error { return w.work(ctx, &next, f) }); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// openFabric moves the calling thread into the fabric and opens a socket there,
// which stays there.
func (w *wiring) openFabric() (*socket, error) {
	if err := unix.Setns(int(w.fabric.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("cannot enter %s: %w", w.plan.Fabric.NetNS, err)
	}
	return openSocket()
}

// work goes from one namespace to the next on the calling thread. Its socket
// in the fabric stays there.
func (w *wiring) work(ctx context.Context, next *atomic.Int64, f func(i int, fabric *socket) error) error {
	s, err := w.openFabric()
	if err != nil {
		return err
	}
	defer s.close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		i := int(next.Add(1)) - 1
		if i >= len(w.plan.Nodes) {
			return nil
		}
		if err := f(i, s); err != nil {
			return err
		}
	}
}

func (w *wiring) makeNode(i int, fabric *socket) error {
	n := &w.plan.Nodes[i]
	ns, err := enterNewNetNS(n.NetNS, n.Sysctls)
	if err != nil {
		return err
	}
	defer ns.Close()
	if hasLink(n) {
		return pin(w.options, n.NetNS)
	}
	var veths batch
	for j, f := range n.Interfaces {
		bridge, ok := w.bridges[f.Bridge]
		if !ok {
			return fmt.Errorf("cannot add link %s of %s: no bridge %s", f.Name, n.NetNS, f.Bridge)
		}
		at := veth{netns: n.NetNS, netnsFD: int(ns.Fd()), inside: int32(firstInside + j), port: w.firstPort[i] + int32(j), bridge: bridge}
		if err := veths.addVeth(f, at); err != nil {
			return fmt.Errorf("cannot add link %s of %s: %w", f.Name, n.NetNS, err)
		}
		if want := w.vlansOf(f.Peer); want != nil {
			veths.setVLANs(at.port, *want, untouched())
		}
	}
	if err := fabric.send(&veths); err != nil {
		return unsupported("veth", err)
	}
	if err := configure(n); err != nil {
		return err
	}
	return pin(w.options, n.NetNS)
}

// configure does, in one message, what is to be done inside n's namespace,
// which is the calling thread's.
func configure(n *netplan.Node) error {
	s, err := openSocket()
	if err != nil {
		return err
	}
	defer s.close()
	if len(n.Apart) > 0 || n.Divert != nil {
		if n, _, err = settleFilter(n); err != nil {
			return err
		}
	}
	var b, rules batch
	b.up(loopback, "lo", n.NetNS)
	index := map[string]int32{"lo": loopback}
	for j, f := range n.Interfaces {
		index[f.Name] = int32(firstInside + j)
		b.up(index[f.Name], f.Name, n.NetNS)
		for _, a := range additions(f.Addresses) {
			b.addAddress(a, f.NoPrefixRoute, index[f.Name], f.Name, n.NetNS)
		}
	}
	for _, a := range n.Loopback {
		b.addAddress(a, false, loopback, "lo", n.NetNS)
	}
	for _, r := range n.Routes {
		if index[r.Dev] == 0 && r.Type == "" {
			return fmt.Errorf("cannot %s in %s: no such interface", words(r.Text()), n.NetNS)
		}
		b.addRoute(r, create, index[r.Dev], n.NetNS)
	}
	if err := s.send(&b); err != nil {
		return err
	}
	for _, r := range n.Rules {
		rules.addRule(r, n.NetNS)
	}
	return unsupported("policy routing", s.send(&rules))
}

// additions are addresses in the order in which they are to be added for the
// first to be the source of what the kernel sends: of IPv6 ones it prefers the
// newest (ipv6_link_dev_addr in net/ipv6/addrconf.c).
func additions(addresses []netip.Prefix) []netip.Prefix {
	var four, six []netip.Prefix
	for _, a := range addresses {
		if a.Addr().Is4() {
			four = append(four, a)
		} else {
			six = slices.Insert(six, 0, a)
		}
	}
	return append(four, six...)
}

// unsupported marks an error that means that the kernel lacks the feature.
func unsupported(feature string, err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return &Unsupported{Feature: feature, Err: err}
	}
	return err
}
