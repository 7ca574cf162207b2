package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// The ends of a link have indexes of their own ranges, for the reason that
// requests.go gives.
const (
	firstAdded  = 10_000 // of the end that a link is added with
	firstLinked = 20_000 // of the other
)

// end of a link: a node's namespace and its interface.
type linkEnd struct{ netns, name string }

// added is the end that the link is added with.
func added(n *netplan.Node, f *netplan.Interface) linkEnd {
	if f.AddsLink {
		return linkEnd{n.NetNS, f.Name}
	}
	return linkEnd{f.PeerNetNS, f.Peer}
}

// linked lists the nodes that have links.
func linked(nodes []netplan.Node) []string {
	var names []string
	for i := range nodes {
		if hasLink(&nodes[i]) {
			names = append(names, nodes[i].NetNS)
		}
	}
	return names
}

func hasLink(n *netplan.Node) bool {
	for i := range n.Interfaces {
		if n.Interfaces[i].Linked() {
			return true
		}
	}
	return false
}

// connected tells whether l, an interface of node n, is its end of link f and
// leads to the other one. The thread is in n's namespace ns and returns there;
// s is a socket in it.
func (c *convergence) connected(ns *os.File, s *socket, f *netplan.Interface, l *link) (bool, error) {
	if l.kind != "veth" || l.nsid < 0 || l.mac != f.MAC {
		return false, nil
	}
	other, err := openPin(c.options, f.PeerNetNS)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer other.Close()
	if id, err := s.nsid(other); err != nil || id != l.nsid {
		return false, err
	}
	links, err := linksOf(other, ns)
	if err != nil {
		return false, err
	}
	for i := range links {
		if p := &links[i]; p.index == l.peer {
			return p.name == f.Peer && p.mac == f.PeerMAC && p.peer == l.index, nil
		}
	}
	return false, nil
}

// linksOf lists the interfaces of another namespace; the calling thread returns
// to home.
func linksOf(ns, home *os.File) ([]link, error) {
	if err := enter(ns); err != nil {
		return nil, err
	}
	s, err := openSocket()
	if err != nil {
		return nil, errors.Join(err, enter(home))
	}
	defer s.close()
	links, err := s.links()
	return links, errors.Join(err, enter(home))
}

// severed tells whether l, which the plan of its node does not have, is what a
// link was: its other end is in another namespace of the topology.
func (c *convergence) severed(s *socket, l *link) (bool, error) {
	if l.kind != "veth" || l.nsid < 0 {
		return false, nil
	}
	entries, err := os.ReadDir(c.options.PinDir)
	if err != nil {
		return false, fmt.Errorf("cannot list namespaces: %w", err)
	}
	for _, e := range entries {
		ns, err := openPin(c.options, e.Name())
		if err != nil {
			continue // not a pin, or one on its way out
		}
		id, err := s.nsid(ns)
		_ = ns.Close()
		if err != nil || id == l.nsid {
			return err == nil, err
		}
	}
	return false, nil
}

// makeLinks adds the links of the nodes that inspect has not found in place,
// and removes what has the names of their ends.
func (c *convergence) makeLinks(ctx context.Context) error {
	for i := range c.plan.Nodes {
		n := &c.plan.Nodes[i]
		for j := range n.Interfaces {
			f := &n.Interfaces[j]
			if !f.Linked() || c.inPlace[added(n, f)] {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := onOwnThread(func() error { return c.makeLink(n, f) }); err != nil {
				return err
			}
			c.inPlace[added(n, f)] = true
			if !slices.ContainsFunc(c.plan.Nodes, func(o netplan.Node) bool { return o.NetNS == f.PeerNetNS }) {
				c.far[f.PeerNetNS] = true
			}
			c.count(n.NetNS, 1)
		}
	}
	return nil
}

// makeLink adds one link, of which f is n's end.
func (c *convergence) makeLink(n *netplan.Node, f *netplan.Interface) error {
	failed := func(err error) error {
		return fmt.Errorf("cannot add link %s of %s to %s of %s: %w", f.Name, n.NetNS, f.Peer, f.PeerNetNS, err)
	}
	mac, err := net.ParseMAC(f.MAC)
	if err != nil {
		return failed(err)
	}
	peerMAC, err := net.ParseMAC(f.PeerMAC)
	if err != nil {
		return failed(err)
	}
	own, peer := firstAdded, firstLinked
	if !f.AddsLink {
		own, peer = peer, own
	}
	far, err := openPin(c.options, f.PeerNetNS)
	if err != nil {
		return failed(err)
	}
	defer far.Close()
	peerIndex, s, err := makeRoom(far, f.Peer, int32(peer))
	if err != nil {
		return failed(err)
	}
	s.close()
	near, err := openPin(c.options, n.NetNS)
	if err != nil {
		return failed(err)
	}
	defer near.Close()
	index, s, err := makeRoom(near, f.Name, int32(own))
	if err != nil {
		return failed(err)
	}
	defer s.close()

	one, mtu := nl.Uint32Attr(1), nl.Uint32Attr(uint32(f.MTU))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	inner := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	inner.AddChild(bare(peerIndex))
	inner.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(f.Peer))
	inner.AddRtAttr(unix.IFLA_ADDRESS, peerMAC)
	inner.AddRtAttr(unix.IFLA_MTU, mtu)
	inner.AddRtAttr(unix.IFLA_NUM_TX_QUEUES, one)
	inner.AddRtAttr(unix.IFLA_NUM_RX_QUEUES, one)
	inner.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(far.Fd())))
	var b batch
	b.add(unix.RTM_NEWLINK, create, func() string {
		return fmt.Sprintf("add link %s of %s to %s of %s", f.Name, n.NetNS, f.Peer, f.PeerNetNS)
	}, bare(index), attr(unix.IFLA_IFNAME, nl.ZeroTerminated(f.Name)), attr(unix.IFLA_ADDRESS, mac), attr(unix.IFLA_MTU, mtu),
		attr(unix.IFLA_NUM_TX_QUEUES, one), attr(unix.IFLA_NUM_RX_QUEUES, one), info)
	return unsupported("veth", s.send(&b))
}

// makeRoom moves the calling thread into a namespace, deletes what is called
// name there, and gives an index that is free, from first on.
func makeRoom(ns *os.File, name string, first int32) (int32, *socket, error) {
	s, err := openSocketIn(ns)
	if err != nil {
		return 0, nil, err
	}
	links, err := s.links()
	if err != nil {
		s.close()
		return 0, nil, err
	}
	taken := map[int32]bool{}
	var old batch
	for _, l := range links {
		taken[l.index] = true
		if l.name == name {
			old.add(unix.RTM_DELLINK, 0, func() string { return "delete link " + name }, bare(l.index))
		}
	}
	if err := s.send(&old); err != nil && !gone(err) {
		s.close()
		return 0, nil, err
	}
	for taken[first] {
		first++
	}
	return first, s, nil
}

// awaitLinks returns once the links of a node whose ends are both up carry
// packets, which the kernel lets them do a moment later.
func (c *convergence) awaitLinks(ctx context.Context) error {
	if len(c.links) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, portsWait)
	defer cancel()
	return c.eachNode(ctx, func(i int, _ *socket) error {
		n := &c.plan.Nodes[i]
		if !c.links[n.NetNS] {
			return nil
		}
		ns, s, err := c.enterNode(i)
		if err != nil {
			return err
		}
		defer ns.Close()
		defer s.close()
		for {
			links, err := s.links()
			if err != nil {
				return err
			}
			waiting := ""
			for _, l := range links {
				if f := planned(n, l.name); f != nil && f.Linked() && l.up && l.oper != operUp && c.links[f.PeerNetNS] {
					waiting = l.name
				}
			}
			if waiting == "" {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("cannot bring up link %s of %s: %w", waiting, n.NetNS, ctx.Err())
			case <-time.After(portsPeriod):
			}
		}
	})
}
