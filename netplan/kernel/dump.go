package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// dump asks for a list and shows visit each entry, which is valid until visit
// returns. It tells whether the list is whole: a change may have interrupted
// it.
func (s *socket) dump(kind uint16, what string, visit func(entry []byte), data ...nl.NetlinkRequestData) (bool, error) {
	req := nl.NetlinkRequest{NlMsghdr: unix.NlMsghdr{Type: kind, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP}}
	for _, d := range data {
		req.AddData(d)
	}
	if err := unix.Sendto(s.fd, req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, fmt.Errorf("cannot send to netlink: %w", err)
	}
	whole := true
	for {
		msgs, err := s.receive()
		if err != nil {
			return false, err
		}
		for _, m := range msgs {
			whole = whole && m.Header.Flags&unix.NLM_F_DUMP_INTR == 0
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return whole, nil
			case unix.NLMSG_ERROR:
				code := int32(binary.NativeEndian.Uint32(m.Data))
				return false, fmt.Errorf("cannot list %s: %w", what, unix.Errno(-code))
			default:
				visit(m.Data)
			}
		}
	}
}

// list is a whole dump of what parse takes.
func list[T any](s *socket, kind uint16, what string, parse func(entry []byte) (T, bool), data ...nl.NetlinkRequestData) ([]T, error) {
	const (
		tries = 100
		most  = 1 << 17 // what a station puts into its namespace is not to fill our memory
	)
	for range tries {
		var all []T
		whole, err := s.dump(kind, what, func(entry []byte) {
			if t, ok := parse(entry); ok && len(all) <= most {
				all = append(all, t)
			}
		}, data...)
		if len(all) > most {
			return nil, fmt.Errorf("cannot list %s: more than %d", what, most)
		}
		if err != nil || whole {
			return all, err
		}
	}
	return nil, fmt.Errorf("cannot list %s: they change all the time", what)
}

// attributes of an entry after its header, by number. Those of a malformed
// entry end where it is.
func attributes(entry []byte, header int) map[uint16][]byte {
	m := map[uint16][]byte{}
	eachAttribute(entry, header, func(kind uint16, value []byte) { m[kind] = value })
	return m
}

// eachAttribute goes without a map, for a fabric has many links.
func eachAttribute(entry []byte, header int, visit func(kind uint16, value []byte)) {
	const head = unix.SizeofRtAttr
	for rest := entry[min(header, len(entry)):]; len(rest) >= head; {
		n := int(binary.NativeEndian.Uint16(rest))
		if n < head || n > len(rest) {
			return
		}
		visit(binary.NativeEndian.Uint16(rest[2:])&nl.NLA_TYPE_MASK, rest[head:n])
		rest = rest[min((n+3)&^3, len(rest)):]
	}
}

func number(raw []byte) uint32 {
	switch len(raw) {
	case 1:
		return uint32(raw[0])
	case 4:
		return binary.NativeEndian.Uint32(raw)
	}
	return 0
}

func text(raw []byte) string { return string(bytes.TrimRight(raw, "\x00")) }

func ip(raw []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// link is an interface as the kernel lists it.
type link struct {
	index  int32
	peer   int32 // index of a veth's other end, in the namespace nsid
	nsid   int32 // the lister's number for that namespace; -1: its own
	master int32
	name   string
	kind   string // "bridge", "veth"
	alias  string
	mac    string
	mtu    int
	up     bool
	oper   byte
	bridge map[uint16][]byte // a bridge's settings, IFLA_BR_*
}

func (s *socket) links() ([]link, error) {
	return list(s, unix.RTM_GETLINK, "links", parseLink, nl.NewIfInfomsg(unix.AF_UNSPEC), attr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
}

// nsid is the number that the socket's namespace has for another, -1 if none:
// one that a link there leads to has one.
func (s *socket) nsid(ns *os.File) (int32, error) {
	var b batch
	b.add(unix.RTM_GETNSID, 0, func() string { return "identify " + filepath.Base(ns.Name()) },
		raw{unix.AF_UNSPEC, 0, 0, 0}, attr(unix.NETNSA_FD, nl.Uint32Attr(uint32(ns.Fd())))) // struct rtgenmsg, aligned
	if err := unix.Sendto(s.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return -1, fmt.Errorf("cannot send to netlink: %w", err)
	}
	msgs, err := s.receive()
	if err != nil {
		return -1, err
	}
	for _, m := range msgs {
		if m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4 {
			return -1, b.failure(m, syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data))))
		}
		if id := attributes(m.Data, 4)[unix.NETNSA_NSID]; m.Header.Type == unix.RTM_NEWNSID && id != nil {
			return int32(number(id)), nil
		}
	}
	return -1, nil
}

// bridges lists those alone.
func (s *socket) bridges() ([]link, error) {
	kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	kind.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	return list(s, unix.RTM_GETLINK, "bridges", parseLink, nl.NewIfInfomsg(unix.AF_UNSPEC), kind, attr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
}

func parseLink(entry []byte) (link, bool) {
	if len(entry) < unix.SizeofIfInfomsg {
		return link{}, false
	}
	header := nl.DeserializeIfInfomsg(entry)
	l := link{index: header.Index, nsid: -1, up: header.Flags&unix.IFF_UP != 0}
	eachAttribute(entry, unix.SizeofIfInfomsg, func(kind uint16, value []byte) {
		switch kind {
		case unix.IFLA_LINK:
			l.peer = int32(number(value))
		case unix.IFLA_LINK_NETNSID:
			l.nsid = int32(number(value))
		case unix.IFLA_MASTER:
			l.master = int32(number(value))
		case unix.IFLA_IFNAME:
			l.name = text(value)
		case unix.IFLA_IFALIAS:
			l.alias = text(value)
		case unix.IFLA_ADDRESS:
			l.mac = net.HardwareAddr(value).String()
		case unix.IFLA_MTU:
			l.mtu = int(number(value))
		case unix.IFLA_OPERSTATE:
			l.oper = byte(number(value))
		case unix.IFLA_LINKINFO:
			eachAttribute(value, 0, l.info)
		}
	})
	return l, true
}

func (l *link) info(kind uint16, value []byte) {
	switch {
	case kind == nl.IFLA_INFO_KIND:
		l.kind = text(value)
	case kind == nl.IFLA_INFO_DATA && l.kind == "bridge": // the kernel tells the kind before
		l.bridge = attributes(slices.Clone(value), 0) // the entry's memory is used again
	}
}

const ifaProto = 11 // IFA_PROTO, since 5.18

// address is one of an interface. raw asks to delete it.
type address struct {
	index uint32
	ip    netip.Prefix
	flags uint32
	proto uint32 // IFA_PROTO: 0 for what programs and people add
	raw   []byte
}

func (s *socket) addresses() ([]address, error) {
	return list(s, unix.RTM_GETADDR, "addresses", func(entry []byte) (address, bool) {
		if len(entry) < unix.SizeofIfAddrmsg {
			return address{}, false
		}
		header := nl.DeserializeIfAddrmsg(entry)
		a := attributes(entry, unix.SizeofIfAddrmsg)
		at := address{index: header.Index, flags: uint32(header.Flags), proto: number(a[ifaProto]), raw: slices.Clone(entry)}
		if raw, ok := a[unix.IFA_FLAGS]; ok {
			at.flags = number(raw)
		}
		own := a[unix.IFA_LOCAL]
		if own == nil {
			own = a[unix.IFA_ADDRESS]
		}
		at.ip = netip.PrefixFrom(ip(own), int(header.Prefixlen))
		return at, at.ip.IsValid()
	}, nl.NewIfAddrmsg(unix.AF_UNSPEC))
}

// route is one of a table. raw asks to delete it.
type route struct {
	table    uint32
	to       netip.Prefix
	via      netip.Addr
	index    uint32
	priority uint32
	proto    uint8
	kind     uint8
	plain    bool // nothing beyond the fields above
	raw      []byte
}

// routes lists the plan's kind and the kernel's.
func (s *socket) routes() ([]route, error) {
	return list(s, unix.RTM_GETROUTE, "routes", readRoute, nl.NewRtMsg())
}

// readRoute reads one, where it is of these kinds.
func readRoute(entry []byte) (route, bool) {
	const rtaNHID = 30 // RTA_NH_ID
	if len(entry) < unix.SizeofRtMsg {
		return route{}, false
	}
	header := nl.DeserializeRtMsg(entry)
	if header.Family != unix.AF_INET && header.Family != unix.AF_INET6 || header.Flags&unix.RTM_F_CLONED != 0 {
		return route{}, false
	}
	if header.Protocol != unix.RTPROT_STATIC && header.Protocol != unix.RTPROT_KERNEL {
		return route{}, false // somebody else's
	}
	a := attributes(entry, unix.SizeofRtMsg)
	r := route{
		table:    number(a[unix.RTA_TABLE]),
		to:       prefix(header.Family, a[unix.RTA_DST], header.Dst_len),
		via:      ip(a[unix.RTA_GATEWAY]),
		index:    number(a[unix.RTA_OIF]),
		priority: number(a[unix.RTA_PRIORITY]),
		proto:    header.Protocol,
		kind:     header.Type,
		plain:    header.Tos == 0 && header.Src_len == 0,
		raw:      slices.Clone(entry),
	}
	for _, more := range []uint16{unix.RTA_METRICS, unix.RTA_PREFSRC, unix.RTA_MULTIPATH, unix.RTA_VIA, rtaNHID, unix.RTA_ENCAP} {
		r.plain = r.plain && a[more] == nil
	}
	// Flags are what the kernel found out, and it refuses some in requests.
	binary.NativeEndian.PutUint32(r.raw[8:], 0)
	return r, true
}

// rule is a routing policy rule. raw asks to delete it.
type rule struct {
	priority uint32
	table    uint32
	from, to netip.Prefix
	mark     uint32
	plain    bool // a lookup of the table, by nothing beyond from, to and all of mark
	raw      []byte
}

func (s *socket) rules() ([]rule, error) {
	return list(s, unix.RTM_GETRULE, "rules", func(entry []byte) (rule, bool) {
		if len(entry) < unix.SizeofRtMsg {
			return rule{}, false
		}
		header := nl.DeserializeRtMsg(entry) // struct fib_rule_hdr: see addRule
		if header.Family != unix.AF_INET && header.Family != unix.AF_INET6 {
			return rule{}, false
		}
		a := attributes(entry, unix.SizeofRtMsg)
		r := rule{
			priority: number(a[nl.FRA_PRIORITY]),
			table:    number(a[nl.FRA_TABLE]),
			plain:    header.Type == nl.FR_ACT_TO_TBL && header.Flags == 0 && header.Tos == 0,
			raw:      slices.Clone(entry),
		}
		r.mark = number(a[nl.FRA_FWMARK])
		if mask := a[nl.FRA_FWMASK]; mask != nil {
			r.plain = r.plain && number(mask) == 0xffffffff
		}
		if src := a[nl.FRA_SRC]; src != nil || r.mark != 0 {
			r.from = prefix(header.Family, src, header.Src_len)
		}
		if dst := a[nl.FRA_DST]; dst != nil {
			r.to = prefix(header.Family, dst, header.Dst_len)
		}
		for _, more := range []uint16{nl.FRA_IIFNAME, nl.FRA_OIFNAME, nl.FRA_L3MDEV, nl.FRA_UID_RANGE,
			nl.FRA_IP_PROTO, nl.FRA_SPORT_RANGE, nl.FRA_DPORT_RANGE} {
			r.plain = r.plain && a[more] == nil
		}
		return r, true
	}, nl.NewRtMsg())
}

// prefix is of a route's or rule's destination or source; none is everything.
func prefix(family uint8, raw []byte, bits uint8) netip.Prefix {
	a := ip(raw)
	if raw == nil && family == unix.AF_INET {
		a = netip.IPv4Unspecified()
	} else if raw == nil {
		a = netip.IPv6Unspecified()
	}
	return netip.PrefixFrom(a, int(bits))
}
