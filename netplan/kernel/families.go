package kernel

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ipFamily is IPv4 (RFC 791) or IPv6 (RFC 8200) as nftables looks at its packets.
type ipFamily struct {
	version             string
	kind                nftables.SetDatatype // of its addresses
	proto               byte
	source, destination uint32 // where the addresses are in the header
	length              uint32 // of an address
}

func families() []ipFamily {
	return []ipFamily{
		{"4", nftables.TypeIPAddr, unix.NFPROTO_IPV4, 12, 16, 4},
		{"6", nftables.TypeIP6Addr, unix.NFPROTO_IPV6, 8, 24, 16},
	}
}

func familyOf(a netip.Addr) ipFamily {
	all := families()
	if all[0].has(a) {
		return all[0]
	}
	return all[1]
}

func (f *ipFamily) has(a netip.Addr) bool { return a.Is4() == (f.length == 4) }

// only lets packets of the family through to the rest of a rule.
func (f *ipFamily) only() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{f.proto}},
	}
}

// load puts an address of the header, source or destination, into a register.
func (f *ipFamily) load(at, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: f.length}
}
