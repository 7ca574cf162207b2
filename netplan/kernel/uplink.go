package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// uplinkOwner starts the alias of an uplink, before the topology's name.
const uplinkOwner = "platelayer "

// Machine is what the caller's own namespace has.
type Machine struct {
	// Connected are the subnets of its interfaces, without those of uplinks.
	Connected []netip.Prefix
	// Routed are destinations of its other routes, with whose uplink they lead
	// over: a topology's name, or "".
	Routed map[netip.Prefix]string
	// IPv6 tells whether a new interface has it.
	IPv6 bool
}

// Survey tells what the caller's namespace has, but for what is of the uplink
// called own.
func Survey(own string) (*Machine, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	defer s.close()
	links, err := s.links()
	if err != nil {
		return nil, err
	}
	owner := map[uint32]string{}
	skip := map[uint32]bool{}
	for i := range links {
		l := &links[i]
		skip[uint32(l.index)] = l.name == own
		if name, ours := strings.CutPrefix(l.alias, uplinkOwner); ours && l.kind == "veth" {
			owner[uint32(l.index)] = name
		}
	}
	addresses, err := s.addresses()
	if err != nil {
		return nil, err
	}
	m := &Machine{Routed: map[netip.Prefix]string{}, IPv6: machineHasIPv6()}
	for _, a := range addresses {
		if !skip[a.index] {
			m.Connected = append(m.Connected, a.ip.Masked())
		}
	}
	routes, err := s.routes()
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if r.table == unix.RT_TABLE_MAIN && r.to.Bits() > 0 && !skip[r.index] {
			m.Routed[r.to.Masked()] = owner[r.index]
		}
	}
	return m, nil
}

// machineHasIPv6 tells whether new interfaces in the caller's namespace have it.
func machineHasIPv6() bool {
	off, err := getSysctl("net.ipv6.conf.default.disable_ipv6")
	return err == nil && off == "0"
}

// Connect makes the uplink between the caller's namespace and the one called
// backbone what u says, whatever there is of it.
func Connect(o Options, topology, backbone string, u *netplan.Uplink) error {
	far, err := openPin(o, backbone)
	if err != nil {
		return err
	}
	defer far.Close()
	// A thread of its own is still in the machine's namespace, and does not
	// return from the backbone's.
	return onOwnThread(func() error {
		s, err := openSocket()
		if err != nil {
			return err
		}
		defer s.close()
		index, err := s.uplink(far, topology, backbone, u)
		if err != nil {
			return err
		}
		inside, err := openSocketIn(far)
		if err != nil {
			return err
		}
		defer inside.close()
		if err := guard(u); err != nil {
			return fmt.Errorf("cannot guard the uplink in %s: %w", backbone, err)
		}
		if err := inside.uplinkPeer(backbone, u); err != nil {
			return err
		}
		return s.uplinkRoutes(index, u)
	})
}

// ours finds the machine's end; one that has its name alone is another's.
func (s *socket) ours(name, mac string) (*link, error) {
	links, err := s.links()
	if err != nil {
		return nil, err
	}
	for i := range links {
		if l := &links[i]; l.name == name {
			if l.kind != "veth" || l.mac != mac {
				return nil, interfaceTaken(name)
			}
			return l, nil
		}
	}
	return nil, nil
}

// uplink makes the veth and the machine's end of it.
func (s *socket) uplink(far *os.File, topology, backbone string, u *netplan.Uplink) (int32, error) {
	l, err := s.ours(u.Name, u.MAC)
	if err != nil {
		return 0, err
	}
	if l != nil {
		id, err := s.nsid(far)
		if err != nil {
			return 0, err
		}
		if id != l.nsid { // of an earlier backbone
			if err := s.removeLinks([]*link{l}); err != nil && !gone(err) {
				return 0, err
			}
			l = nil
		}
	}
	if l == nil {
		if err := s.addUplink(far, backbone, u); err != nil {
			return 0, err
		}
		if l, err = s.ours(u.Name, u.MAC); err != nil {
			return 0, err
		}
		if l == nil {
			return 0, fmt.Errorf("cannot use interface %s: it vanished", u.Name)
		}
	}
	var b batch
	alias := nl.NewIfInfomsg(unix.AF_UNSPEC)
	alias.Index = l.index
	b.add(unix.RTM_NEWLINK, 0, func() string { return "name the owner of " + u.Name }, alias,
		attr(unix.IFLA_IFALIAS, nl.NonZeroTerminated(uplinkOwner+topology)))
	b.up(l.index, u.Name, "the machine")
	if err := s.send(&b); err != nil {
		return 0, err
	}
	return l.index, s.settleUplink(l.index, u.Name, "the machine", u.Addresses)
}

func (s *socket) addUplink(far *os.File, backbone string, u *netplan.Uplink) error {
	mac, err := net.ParseMAC(u.MAC)
	if err != nil {
		return err
	}
	peerMAC, err := net.ParseMAC(u.PeerMAC)
	if err != nil {
		return err
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	inner := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	inner.AddChild(nl.NewIfInfomsg(unix.AF_UNSPEC))
	inner.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(netplan.UplinkPeer))
	inner.AddRtAttr(unix.IFLA_ADDRESS, peerMAC)
	inner.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(far.Fd())))
	var b batch
	b.add(unix.RTM_NEWLINK, create, func() string { return "add the uplink " + u.Name + " of " + backbone }, nl.NewIfInfomsg(unix.AF_UNSPEC),
		attr(unix.IFLA_IFNAME, nl.ZeroTerminated(u.Name)), attr(unix.IFLA_ADDRESS, mac), info)
	return unsupported("veth", s.send(&b))
}

// settleUplink gives an end of the uplink its addresses, and no others of ours.
func (s *socket) settleUplink(index int32, name, where string, want []netip.Prefix) error {
	have, err := s.addresses()
	if err != nil {
		return err
	}
	var come, leave batch
	for _, a := range have {
		if a.index == uint32(index) && !slices.Contains(want, a.ip) && !a.ip.Addr().IsLinkLocalUnicast() {
			leave.again(unix.RTM_DELADDR, a.raw, func() string { return "delete address " + a.ip.String() + " of " + name + " in " + where })
		}
	}
	for _, p := range want {
		if !slices.ContainsFunc(have, func(a address) bool { return a.index == uint32(index) && a.ip == p }) {
			come.addAddress(p, false, index, name, where)
		}
	}
	if err := s.send(&leave); err != nil && !gone(err) {
		return err
	}
	return unsupported("IPv6", s.send(&come))
}

func (s *socket) uplinkPeer(backbone string, u *netplan.Uplink) error {
	links, err := s.links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.name != netplan.UplinkPeer {
			continue
		}
		var b batch
		b.up(l.index, l.name, backbone)
		if err := s.send(&b); err != nil {
			return err
		}
		var others []netip.Prefix
		for _, p := range u.Addresses {
			others = append(others, netip.PrefixFrom(netplan.Other(p), p.Bits()))
		}
		return s.settleUplink(l.index, l.name, backbone, others)
	}
	return fmt.Errorf("cannot find the uplink in %s", backbone)
}

// uplinkRoutes brings the machine's routes over the uplink to u's.
func (s *socket) uplinkRoutes(index int32, u *netplan.Uplink) error {
	have, err := s.routes()
	if err != nil {
		return err
	}
	var come, leave batch
	there := map[netip.Prefix]bool{}
	for _, r := range have {
		if r.index != uint32(index) || r.proto != unix.RTPROT_STATIC {
			continue
		}
		if slices.Contains(u.Routes, r.to) {
			there[r.to] = true
			continue
		}
		leave.again(unix.RTM_DELROUTE, r.raw, func() string { return "delete route " + r.to.String() + " of the machine" })
	}
	for _, to := range u.Routes {
		if there[to] {
			continue
		}
		come.addRoute(netplan.Route{To: to, Via: u.Via(to), Dev: u.Name}, create, index, "the machine")
	}
	if err := s.send(&leave); err != nil && !gone(err) {
		return err
	}
	return s.send(&come)
}

// Disconnect takes the machine's end of an uplink away, and with it the veth,
// its addresses and routes. It tells of one that is not ours by leaving it.
func Disconnect(topology string) error {
	s, err := openSocket()
	if err != nil {
		return err
	}
	defer s.close()
	name, mac := netplan.UplinkID(topology)
	l, err := s.ours(name, mac)
	if err != nil || l == nil {
		return nil
	}
	if err := s.removeLinks([]*link{l}); err != nil && !gone(err) {
		return fmt.Errorf("cannot remove the uplink of %s: %w", topology, err)
	}
	return nil
}

// uplinkTable is the table of nftables in the backbone that lets stations
// answer the machine and open nothing to it. Connections are followed for what
// goes to the machine and comes from it alone: the rest stays as fast.
const uplinkTable = "platelayer-uplink"

func guard(u *netplan.Uplink) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: uplinkTable, Family: nftables.TableFamilyINet}
	conn.AddTable(table)
	conn.DelTable(table)
	if !u.Open {
		conn.AddTable(table)
		addGuard(conn, table, u)
	}
	err = conn.Flush()
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist) {
		return &Unsupported{Feature: "connection tracking by nftables", Err: err}
	}
	return err
}

func addGuard(conn *nftables.Conn, table *nftables.Table, u *netplan.Uplink) {
	peer := deviceName(netplan.UplinkPeer)
	byName := func(key expr.MetaKey) []expr.Any {
		return []expr.Any{&expr.Meta{Key: key, Register: unix.NFT_REG_1}, &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: peer}}
	}
	verdict := func(kind expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: kind} }
	chain := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) func(exprs ...expr.Any) {
		c := conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: priority})
		return func(exprs ...expr.Any) { conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: exprs}) }
	}
	toMachine := func(add func(...expr.Any)) {
		for _, a := range u.Addresses {
			f := familyOf(a.Addr())
			add(append(f.only(), f.load(f.destination, unix.NFT_REG_1),
				&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: a.Addr().AsSlice()}, verdict(expr.VerdictAccept))...)
		}
	}
	raw := chain("untracked", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	raw(append(byName(expr.MetaKeyIIFNAME), verdict(expr.VerdictAccept))...)
	toMachine(raw)
	raw(&expr.Notrack{})
	out := chain("untracked-own", nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	toMachine(out)
	out(&expr.Notrack{})
	forward := chain("uplink", nftables.ChainHookForward, nftables.ChainPriorityFilter)
	forward(append(byName(expr.MetaKeyOIFNAME),
		&expr.Ct{Register: unix.NFT_REG_1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
			Mask: native32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), Xor: native32(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: native32(0)},
		&expr.Counter{}, verdict(expr.VerdictDrop))...)
}

func native32(v uint32) []byte { return nl.Uint32Attr(v) }
