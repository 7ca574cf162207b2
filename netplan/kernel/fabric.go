package kernel

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// ground is what the fabric holds, dumped once for all that is to be changed.
type ground struct {
	byName   map[string]*link
	byEnd    map[end]*link // ports
	bridge   int32         // the next free index of a bridge
	nextPort atomic.Int32  // the last taken index of a port
}

// end is where a port leads to, which the fabric alone is asked: what a
// station's namespace tells, the station may have made up.
type end struct {
	nsid, index int32
}

func survey(s *socket) (*ground, error) {
	links, err := s.links()
	return groundOf(links), err
}

func groundOf(links []link) *ground {
	g := &ground{byName: map[string]*link{}, byEnd: map[end]*link{}, bridge: firstBridge}
	last := int32(firstPort - 1)
	for i := range links {
		l := &links[i]
		g.byName[l.name] = l
		if l.kind == "veth" {
			g.byEnd[end{l.nsid, l.peer}] = l
		}
		if l.index >= firstPort {
			last = max(last, l.index)
		} else if l.index >= g.bridge {
			g.bridge = l.index + 1
		}
	}
	g.nextPort.Store(last)
	return g
}

// ours tells whether l is something that a plan makes in the fabric.
func (l *link) ours() bool { return l.kind == "veth" || l.kind == "bridge" }

// doomed is the device group of what is to go.
const doomed = 0x706c6179

// removeLinks deletes links of the fabric all at once, by their group: each
// deletion waits for every CPU several times over. Veths take their other ends
// along.
func (s *socket) removeLinks(links []*link) error {
	if len(links) == 0 {
		return nil
	}
	var mark, del batch
	for _, l := range links {
		mark.add(unix.RTM_NEWLINK, 0, func() string { return "mark link " + l.name }, bare(l.index), attr(unix.IFLA_GROUP, nl.Uint32Attr(doomed)))
	}
	del.add(unix.RTM_DELLINK, 0, func() string { return "delete links" }, nl.NewIfInfomsg(unix.AF_UNSPEC),
		attr(unix.IFLA_GROUP, nl.Uint32Attr(doomed)))
	// A dying namespace takes its links away meanwhile.
	if err := s.send(&mark); err != nil && !gone(err) {
		return err
	}
	if err := s.send(&del); err != nil && !gone(err) {
		return err
	}
	return nil
}

// gone marks errors of deleting what is not there.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// addBridges makes those of the plan that g lacks and returns how many.
func (w *wiring) addBridges(s *socket, g *ground) (int, error) {
	var b batch
	for _, br := range w.plan.Fabric.Bridges {
		if l := g.byName[br.Name]; l != nil {
			if l.kind == "bridge" {
				w.bridges[br.Name] = l.index
				continue
			}
			if err := s.removeLinks([]*link{l}); err != nil {
				return 0, err
			}
		}
		w.bridges[br.Name] = g.bridge
		if err := b.addBridge(br, g.bridge, w.plan.Fabric.NetNS); err != nil {
			return 0, fmt.Errorf("cannot add bridge %s: %w", br.Name, err)
		}
		g.bridge++
	}
	return len(b.what), w.unsupportedBridges(s.send(&b))
}

// setBridge brings a bridge to what the plan says.
func (b *batch) setBridge(br netplan.Bridge, l *link, netns string) error {
	mac, err := net.ParseMAC(br.MAC)
	if err != nil {
		return fmt.Errorf("cannot set bridge %s: %w", br.Name, err)
	}
	msg := bare(l.index)
	data := []nl.NetlinkRequestData{msg}
	if !l.up {
		msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	}
	if l.mac != br.MAC {
		data = append(data, attr(unix.IFLA_ADDRESS, mac))
	}
	if l.mtu != br.MTU {
		data = append(data, attr(unix.IFLA_MTU, nl.Uint32Attr(uint32(br.MTU))))
	}
	set := func(kind int) bool { return number(l.bridge[uint16(kind)]) != 0 }
	if set(nl.IFLA_BR_STP_STATE) {
		// First, for it has bounds for the delay.
		stp := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		stp.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
		stp.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0))
		b.add(unix.RTM_NEWLINK, 0, func() string { return "set bridge " + br.Name + " in " + netns }, bare(l.index), stp)
	}
	filter, filters := len(br.VLANs) > 0, set(nl.IFLA_BR_VLAN_FILTERING)
	learns, bounded := l.bridge[unix.IFLA_BR_FDB_MAX_LEARNED]
	if set(nl.IFLA_BR_FORWARD_DELAY) || set(nl.IFLA_BR_MCAST_SNOOPING) || bounded && number(learns) != netplan.MaxMACs || filter != filters {
		data = append(data, bridgeInfo(filter, filters))
	}
	if len(data) > 1 || !l.up {
		b.add(unix.RTM_NEWLINK, 0, func() string { return "set bridge " + br.Name + " in " + netns }, data...)
	}
	return nil
}

// settleFabric brings the fabric's settings and bridges to what the plan says,
// and ports back to their bridges. It runs after the nodes: a bridge's MTU
// follows its ports' (br_mtu_auto_adjust in net/bridge/br_if.c).
func (w *wiring) settleFabric(s *socket) (int, error) {
	f := &w.plan.Fabric
	sent, err := keepSysctls(f.Sysctls)
	if err != nil {
		return sent, fmt.Errorf("cannot configure %s: %w", f.NetNS, err)
	}
	g, err := survey(s)
	if err != nil {
		return sent, err
	}
	var b batch
	if lo := g.byName["lo"]; lo != nil && !lo.up {
		b.up(loopback, "lo", f.NetNS)
	}
	for _, br := range f.Bridges {
		if l := g.byName[br.Name]; l != nil {
			if err := b.setBridge(br, l, f.NetNS); err != nil {
				return sent, err
			}
		}
	}
	for i := range w.plan.Nodes {
		for _, i := range w.plan.Nodes[i].Interfaces {
			if l := g.byName[i.Peer]; l != nil && !i.Linked() && l.kind == "veth" && (l.master != w.bridges[i.Bridge] || !l.up) {
				b.setPort(l, w.bridges[i.Bridge], i.MTU, f.NetNS)
			}
		}
	}
	if err := w.unsupportedBridges(s.send(&b)); err != nil {
		return sent, err
	}
	vlans, err := w.settleVLANs(s, g)
	return sent + len(b.what) + vlans, err
}

// setPort puts a port, up, into its bridge.
func (b *batch) setPort(l *link, bridge int32, mtu int, netns string) {
	msg := bare(l.index)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	b.add(unix.RTM_NEWLINK, 0, func() string { return "set port " + l.name + " in " + netns },
		msg, attr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))), attr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
}

func (b *batch) setMTU(index int32, f netplan.Interface, netns string) {
	b.add(unix.RTM_NEWLINK, 0, func() string { return fmt.Sprintf("set MTU %d of %s in %s", f.MTU, f.Name, netns) },
		bare(index), attr(unix.IFLA_MTU, nl.Uint32Attr(uint32(f.MTU))))
}

// bare is a link's header that changes no flag.
func bare(index int32) *nl.IfInfomsg {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = index
	return msg
}
