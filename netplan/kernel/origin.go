package kernel

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// originChain lets what is for the node itself in by the interfaces that its
// senders are behind. What is forwarded does not pass it.
const originChain = "origin"

func (r *ruleset) addOrigins(d *netplan.Divert) {
	if len(d.Origins) == 0 {
		return
	}
	chain := r.chain(nftables.Chain{Name: originChain, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	for _, dev := range []string{"lo", netplan.UplinkPeer} {
		chain.add(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: deviceName(dev)}, accept)
	}
	for _, f := range families() {
		name := "origin" + f.version
		var elements []nftables.SetElement
		for _, o := range d.Origins {
			for _, p := range o.From {
				if f.has(p.Addr()) {
					elements = append(elements, nftables.SetElement{
						Key:    append(deviceName(o.Dev), p.Addr().AsSlice()...),
						KeyEnd: append(deviceName(o.Dev), last(p).AsSlice()...),
					})
				}
			}
		}
		kind := r.concatenated(nftables.TypeIFName, f.kind)
		r.set(nftables.Set{Name: name, KeyType: kind, Concatenation: true, Interval: true}, elements)
		chain.add(append(f.only(), &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1}, f.load(f.source, unix.NFT_REG_2),
			&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: name}, accept)...)
	}
	// Of those that have no address yet (RFC 4862).
	chain.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{unix.IPPROTO_ICMPV6}}, accept)
	chain.add(&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
}

// deviceName is an interface's name as nftables compares it.
func deviceName(name string) []byte {
	raw := make([]byte, unix.IFNAMSIZ)
	copy(raw, name)
	return raw
}
