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

func addOrigins(conn *nftables.Conn, table *nftables.Table, d *netplan.Divert) error {
	if len(d.Origins) == 0 {
		return nil
	}
	chain := conn.AddChain(&nftables.Chain{Name: originChain, Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	add := func(exprs ...expr.Any) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	}
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	for _, dev := range []string{"lo", netplan.UplinkPeer} {
		add(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: deviceName(dev)}, accept)
	}
	for _, f := range []struct {
		name           string
		kind           nftables.SetDatatype
		proto          byte
		offset, length uint32 // of the source in the header: RFC 791, RFC 8200
	}{
		{"origin4", nftables.TypeIPAddr, unix.NFPROTO_IPV4, 12, 4},
		{"origin6", nftables.TypeIP6Addr, unix.NFPROTO_IPV6, 8, 16},
	} {
		kind, err := nftables.ConcatSetType(nftables.TypeIFName, f.kind)
		if err != nil {
			return err
		}
		set := &nftables.Set{Table: table, Name: f.name, KeyType: kind, Concatenation: true, Interval: true}
		var elements []nftables.SetElement
		for _, o := range d.Origins {
			for _, p := range o.From {
				if p.Addr().Is4() == (f.length == 4) {
					elements = append(elements, nftables.SetElement{
						Key:    append(deviceName(o.Dev), p.Addr().AsSlice()...),
						KeyEnd: append(deviceName(o.Dev), last(p).AsSlice()...),
					})
				}
			}
		}
		if err := conn.AddSet(set, elements); err != nil {
			return err
		}
		add(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{f.proto}},
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
			&expr.Payload{DestRegister: unix.NFT_REG_2, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.length},
			&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set.Name, SetID: set.ID}, accept)
	}
	// Of those that have no address yet (RFC 4862).
	add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{unix.IPPROTO_ICMPV6}}, accept)
	add(&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
	return nil
}

// deviceName is an interface's name as nftables compares it.
func deviceName(name string) []byte {
	raw := make([]byte, unix.IFNAMSIZ)
	copy(raw, name)
	return raw
}
