package kernel

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// The chain of a Divert: own destinations go on after one look into a set, the
// rest is for sockets, or refused as for want of a route. Sockets of the backbone
// that carry an outside address come first, so that answers find them whatever
// listens.
const divertChain = "divert"

func (r *ruleset) addDivert(d *netplan.Divert) {
	chain := r.chain(nftables.Chain{Name: divertChain, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle})
	if d.Strangers != nil {
		r.addStrangers(chain, d.Strangers)
	}
	four, six := d.ByFamily()
	for i, own := range [][]netip.Prefix{four, six} {
		f := families()[i]
		name := "own" + f.version
		r.set(nftables.Set{Name: name, KeyType: f.kind, Interval: true}, intervals(own))
		chain.add(append(f.only(),
			f.load(f.destination, unix.NFT_REG_1),
			&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: name},
			&expr.Verdict{Kind: expr.VerdictReturn},
		)...)
	}
	protocol := func(number byte) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{number}},
		}
	}
	refuse := &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_NO_ROUTE}
	from := func(op expr.CmpOp) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIF, Register: unix.NFT_REG_1},
			&expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint32(loopback)},
		}
	}
	// What the node sends has no way outside either, but for the gate's packets.
	chain.add(append(from(expr.CmpOpEq),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint32(d.Mark)}, refuse)...)
	const syn, ack = 0x02, 0x10 // RFC 9293, section 3.1
	first := append(protocol(unix.IPPROTO_TCP),
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 1, Mask: []byte{syn | ack}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{syn}},
	)
	accept := []expr.Any{
		&expr.Immediate{Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint32(d.Mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1, SourceRegister: true},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
	proxy := append([]expr.Any{
		&expr.Immediate{Register: unix.NFT_REG_1, Data: binaryutil.BigEndian.PutUint16(d.Port)},
		&expr.TProxy{Family: unix.NFPROTO_UNSPEC, TableFamily: unix.NFPROTO_INET, RegPort: unix.NFT_REG_1},
	}, accept...)
	if d.Hold {
		echo := func(proto, kind byte) []expr.Any {
			return append(protocol(proto),
				&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{kind}})
		}
		for _, held := range [][]expr.Any{first, echo(unix.IPPROTO_ICMP, 8), echo(unix.IPPROTO_ICMPV6, 128)} { // RFC 792, RFC 4443
			chain.add(slices.Concat(from(expr.CmpOpNeq), held, []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})...)
		}
	}
	// Before the sockets: one in TIME_WAIT is not to have a new connection.
	chain.add(slices.Concat(first, proxy)...)
	for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		only := protocol(proto)
		chain.add(slices.Concat(only, []expr.Any{
			&expr.Socket{Key: expr.SocketKeyTransparent, Register: unix.NFT_REG_1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{1}},
		}, accept)...)
		chain.add(slices.Concat(only, proxy)...)
	}
	chain.add(refuse)
	r.addOrigins(d)
}

// intervals are prefixes as an interval set has them: where each begins, and
// where it has ended. What goes to the last address has no end.
func intervals(all []netip.Prefix) []nftables.SetElement {
	var es []nftables.SetElement
	for _, p := range all {
		es = append(es, nftables.SetElement{Key: p.Addr().AsSlice()})
		if end := last(p).Next(); end.IsValid() {
			es = append(es, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return es
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	raw := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}
