package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// Interface indexes are set and not asked for, which saves a round trip for
// each. The ranges are apart for two reasons: devices such as sit0 appear in
// new namespaces by themselves, with low numbers; and a veth whose index
// equals its peer's is taken for a device without one by
// linkwatch_urgent_event (net/core/link_watch.c), which then lets its carrier
// wait for up to a second.
const (
	loopback    = 1
	firstInside = 100
	firstBridge = 1_000_000
	firstPort   = 2_000_000
)

const create = unix.NLM_F_CREATE | unix.NLM_F_EXCL

func (b *batch) addBridge(br netplan.Bridge, index int32, netns string) error {
	mac, err := net.ParseMAC(br.MAC)
	if err != nil {
		return err
	}
	link := nl.NewIfInfomsg(unix.AF_UNSPEC)
	link.Index = index
	link.Flags, link.Change = unix.IFF_UP, unix.IFF_UP
	b.add(unix.RTM_NEWLINK, create, func() string { return "add bridge " + br.Name + " in " + netns },
		link, attr(unix.IFLA_IFNAME, nl.ZeroTerminated(br.Name)), attr(unix.IFLA_ADDRESS, mac),
		attr(unix.IFLA_MTU, nl.Uint32Attr(uint32(br.MTU))), bridgeInfo(len(br.VLANs) > 0, false))
	return nil
}

// bridgeInfo makes a bridge a plain switch, or one that looks at VLANs' tags. A
// kernel that can't takes no word of it, so where it does not it is not told.
func bridgeInfo(filter, filters bool) *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(0))
	data.AddRtAttr(unix.IFLA_BR_FDB_MAX_LEARNED, nl.Uint32Attr(netplan.MaxMACs)) // older kernels than 6.7 don't look at it
	switch {
	case filter:
		data.AddRtAttr(nl.IFLA_BR_VLAN_FILTERING, nl.Uint8Attr(1))
	case filters:
		data.AddRtAttr(nl.IFLA_BR_VLAN_FILTERING, nl.Uint8Attr(0))
	}
	return info
}

// addVeth makes both ends in place: to move or rename a device afterwards
// costs 20 ms, for that waits for every CPU. The outer link is the bridge's
// port, for the inner one cannot be made up.
func (b *batch) addVeth(f netplan.Interface, n veth) error {
	mac, err := net.ParseMAC(f.MAC)
	if err != nil {
		return err
	}
	peerMAC, err := net.ParseMAC(f.PeerMAC)
	if err != nil {
		return err
	}
	one := nl.Uint32Attr(1)
	mtu := nl.Uint32Attr(uint32(f.MTU))
	port := nl.NewIfInfomsg(unix.AF_UNSPEC)
	port.Index = n.port
	port.Flags, port.Change = unix.IFF_UP, unix.IFF_UP

	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	inner := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	eth := nl.NewIfInfomsg(unix.AF_UNSPEC)
	eth.Index = n.inside
	inner.AddChild(eth)
	inner.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(f.Name))
	inner.AddRtAttr(unix.IFLA_ADDRESS, mac)
	inner.AddRtAttr(unix.IFLA_MTU, mtu)
	inner.AddRtAttr(unix.IFLA_NUM_TX_QUEUES, one)
	inner.AddRtAttr(unix.IFLA_NUM_RX_QUEUES, one)
	inner.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(n.netnsFD)))

	b.add(unix.RTM_NEWLINK, create, func() string { return "add link " + f.Name + " of " + n.netns + " with port " + f.Peer },
		port, attr(unix.IFLA_IFNAME, nl.ZeroTerminated(f.Peer)), attr(unix.IFLA_ADDRESS, peerMAC),
		attr(unix.IFLA_MTU, mtu), attr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(n.bridge))),
		attr(unix.IFLA_NUM_TX_QUEUES, one), attr(unix.IFLA_NUM_RX_QUEUES, one), info)
	return nil
}

// veth is where an interface goes.
type veth struct {
	netns                string
	netnsFD              int
	inside, port, bridge int32 // interface indexes
}

func (b *batch) up(index int32, name, netns string) {
	link := nl.NewIfInfomsg(unix.AF_UNSPEC)
	link.Index = index
	link.Flags, link.Change = unix.IFF_UP, unix.IFF_UP
	b.add(unix.RTM_NEWLINK, 0, func() string { return "set link " + name + " up in " + netns }, link)
}

func (b *batch) addAddress(a netip.Prefix, noPrefixRoute bool, index int32, name, netns string) {
	b.setAddress(a, create, noPrefixRoute, index, name, netns)
}

// setAddress is addAddress with flags that tell what to do with one that
// exists.
func (b *batch) setAddress(a netip.Prefix, flags uint16, noPrefixRoute bool, index int32, name, netns string) {
	msg := nl.NewIfAddrmsg(family(a.Addr()))
	msg.Prefixlen = uint8(a.Bits())
	msg.Index = uint32(index)
	var ifa uint32
	if a.Addr().Is6() {
		ifa |= unix.IFA_F_NODAD
	}
	if noPrefixRoute {
		ifa |= unix.IFA_F_NOPREFIXROUTE
	}
	raw := a.Addr().AsSlice()
	b.add(unix.RTM_NEWADDR, flags, func() string {
		return words(netplan.AddressText(name, a, noPrefixRoute)) + " in " + netns
	}, msg, attr(unix.IFA_LOCAL, raw), attr(unix.IFA_ADDRESS, raw), attr(unix.IFA_FLAGS, nl.Uint32Attr(ifa)),
		attr(ifaProto, nl.Uint8Attr(ourAddress)))
}

// addLinkLocal is the address that the kernel gives an interface when IPv6
// starts on it, of RFC 4291, appendix A.
func (b *batch) addLinkLocal(f netplan.Interface, index int32, netns string) error {
	mac, err := net.ParseMAC(f.MAC)
	if err != nil {
		return fmt.Errorf("cannot add address of %s in %s: %w", f.Name, netns, err)
	}
	a := []byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}
	msg := nl.NewIfAddrmsg(unix.AF_INET6)
	msg.Prefixlen, msg.Scope, msg.Index = 64, unix.RT_SCOPE_LINK, uint32(index)
	// A link's other end may bring IPv6 up at any time: the kernel may be first.
	b.add(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, func() string { return "add the link-local address of " + f.Name + " in " + netns },
		msg, attr(unix.IFA_LOCAL, a), attr(unix.IFA_ADDRESS, a), attr(ifaProto, nl.Uint8Attr(3))) // IFAPROT_KERNEL_LL
	return nil
}

// addRoute's flags tell whether it takes another's place.
func (b *batch) addRoute(r netplan.Route, flags uint16, index int32, netns string) {
	msg := nl.NewRtMsg()
	msg.Family = uint8(family(r.To.Addr()))
	msg.Dst_len = uint8(r.To.Bits())
	msg.Protocol = unix.RTPROT_STATIC
	msg.Table = unix.RT_TABLE_UNSPEC
	table := r.Table
	if table == 0 {
		table = unix.RT_TABLE_MAIN
	}
	data := []nl.NetlinkRequestData{msg, attr(unix.RTA_TABLE, nl.Uint32Attr(table))}
	if msg.Type = routeType(r); msg.Type == unix.RTN_UNICAST || msg.Type == unix.RTN_LOCAL {
		data = append(data, attr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	}
	if r.Metric != 0 {
		data = append(data, attr(unix.RTA_PRIORITY, nl.Uint32Attr(r.Metric)))
	}
	if r.To.Bits() > 0 {
		data = append(data, attr(unix.RTA_DST, r.To.Addr().AsSlice()))
	}
	if r.Via.IsValid() {
		data = append(data, attr(unix.RTA_GATEWAY, r.Via.AsSlice()))
	} else if r.To.Addr().Is4() && r.Type == "" {
		msg.Scope = unix.RT_SCOPE_LINK
	} else if r.To.Addr().Is4() && msg.Type == unix.RTN_LOCAL {
		msg.Scope = unix.RT_SCOPE_HOST
	}
	b.add(unix.RTM_NEWROUTE, flags, func() string { return words(r.Text()) + " in " + netns }, data...)
}

func routeType(r netplan.Route) uint8 {
	switch r.Type {
	case netplan.RouteLocal:
		return unix.RTN_LOCAL
	case netplan.RouteThrow:
		return unix.RTN_THROW
	case netplan.RouteBlackhole:
		return unix.RTN_BLACKHOLE
	case netplan.RouteUnreachable:
		return unix.RTN_UNREACHABLE
	case netplan.RouteProhibit:
		return unix.RTN_PROHIBIT
	}
	return unix.RTN_UNICAST
}

// addPrefixRoute is the route that the kernel adds with an address.
func (b *batch) addPrefixRoute(a netip.Prefix, index int32, netns string) {
	msg := nl.NewRtMsg()
	msg.Family = uint8(family(a.Addr()))
	msg.Dst_len = uint8(a.Bits())
	msg.Protocol = unix.RTPROT_KERNEL
	data := []nl.NetlinkRequestData{msg, attr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))), attr(unix.RTA_DST, a.Masked().Addr().AsSlice())}
	if a.Addr().Is4() {
		msg.Scope = unix.RT_SCOPE_LINK
		data = append(data, attr(unix.RTA_PREFSRC, a.Addr().AsSlice()))
	} else {
		data = append(data, attr(unix.RTA_PRIORITY, nl.Uint32Attr(256))) // IP6_RT_PRIO_ADDRCONF
	}
	b.add(unix.RTM_NEWROUTE, create, func() string { return "add route " + a.Masked().String() + " in " + netns }, data...)
}

// addRule's header is struct fib_rule_hdr, of rtmsg's layout with the action
// in the place of the type.
func (b *batch) addRule(r netplan.Rule, netns string) {
	msg := nl.NewRtMsg()
	msg.Protocol, msg.Scope = 0, 0
	msg.Table = unix.RT_TABLE_UNSPEC
	msg.Type = nl.FR_ACT_TO_TBL
	data := []nl.NetlinkRequestData{msg, attr(nl.FRA_PRIORITY, nl.Uint32Attr(r.Priority)), attr(nl.FRA_TABLE, nl.Uint32Attr(r.Table))}
	if r.From.IsValid() {
		msg.Family, msg.Src_len = uint8(family(r.From.Addr())), uint8(r.From.Bits())
		if r.From.Bits() > 0 {
			data = append(data, attr(nl.FRA_SRC, r.From.Addr().AsSlice()))
		}
	}
	if r.To.IsValid() {
		msg.Family, msg.Dst_len = uint8(family(r.To.Addr())), uint8(r.To.Bits())
		data = append(data, attr(nl.FRA_DST, r.To.Addr().AsSlice()))
	}
	if r.Mark != 0 {
		data = append(data, attr(nl.FRA_FWMARK, nl.Uint32Attr(r.Mark)))
	}
	b.add(unix.RTM_NEWRULE, create, func() string { return words(r.Text()) + " in " + netns }, data...)
}

// words turns iproute2's "route add ..." into English: "add route ...".
func words(line string) string {
	object, rest, _ := strings.Cut(line, " add ")
	return "add " + object + " " + rest
}

func attr(kind int, data []byte) *nl.RtAttr { return nl.NewRtAttr(kind, data) }

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
