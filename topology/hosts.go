package topology

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// hosts is the part of a subnet that machines may have: without the network
// and broadcast addresses of IPv4 and the all-zero address of IPv6. A /31 and
// a /127 are used in full.
type hosts struct {
	first, last netip.Addr
	// between counts the addresses after first and before last; of huge
	// subnets only the lower 2^32.
	between uint64
}

func hostsOf(p netip.Prefix) hosts {
	base := p.Masked().Addr()
	size := base.BitLen() - p.Bits()
	top := lastOf(p)
	if size == 1 {
		return hosts{first: base, last: top}
	}
	h := hosts{first: base.Next(), last: top}
	used := uint64(3) // all-zero, first, last
	if base.Is4() {
		h.last = top.Prev()
		used++
	}
	h.between = 1 << min(size, 32)
	if size <= 32 {
		h.between -= min(h.between, used)
	}
	return h
}

// at returns the i-th address between first and last.
func (h hosts) at(i uint64) netip.Addr { return plus(h.first, i+1) }

// lastOf is the address of a subnet with all host bits set.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

func plus(a netip.Addr, n uint64) netip.Addr {
	if a.Is4() {
		b := a.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
		return netip.AddrFrom4(b)
	}
	b := a.As16()
	low, carry := bits.Add64(binary.BigEndian.Uint64(b[8:]), n, 0)
	binary.BigEndian.PutUint64(b[8:], low)
	binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])+carry)
	return netip.AddrFrom16(b)
}
