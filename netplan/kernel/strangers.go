package kernel

import (
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// addStrangers adds a chain that notes an address that is looked for, as long as
// there is room in the set. What goes to known ones passes after one look into a
// set, by rules of the divert chain, which is empty.
func (r *ruleset) addStrangers(divert *chainRules, s *netplan.Strangers) {
	from := nftables.Chain{Name: s.Chain()}
	if s.Forwarded {
		from.Type, from.Hooknum, from.Priority = nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter
	}
	chain := r.chain(from)
	for _, f := range families() {
		var links []netip.Prefix
		for _, p := range s.Links {
			if f.has(p.Addr()) {
				links = append(links, p)
			}
		}
		if len(links) == 0 {
			continue
		}
		var elements []nftables.SetElement
		for _, a := range s.Known {
			if f.has(a) {
				elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
			}
		}
		known, on, sought := "known"+f.version, "links"+f.version, "sought"+f.version
		r.set(nftables.Set{Name: known, KeyType: f.kind}, elements)
		r.set(nftables.Set{Name: on, KeyType: f.kind, Interval: true}, intervals(links))
		r.set(nftables.Set{Name: sought, KeyType: f.kind, Dynamic: true, HasTimeout: true,
			Timeout: netplan.StrangersSeconds * time.Second, Size: netplan.StrangersAtATime}, nil)
		addTo := func(chain *chainRules, exprs ...expr.Any) { chain.add(append(f.only(), exprs...)...) }
		add := func(exprs ...expr.Any) { addTo(chain, exprs...) }
		to := f.load(f.destination, unix.NFT_REG_1)
		accept := &expr.Verdict{Kind: expr.VerdictAccept}
		isKnown := &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: known}
		addTo(divert, to, isKnown, &expr.Verdict{Kind: expr.VerdictReturn})
		if s.Forwarded {
			add(to, isKnown, accept)
			add(to, &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: on, Invert: true}, accept)
		} else {
			addTo(divert, to, &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: on},
				&expr.Verdict{Kind: expr.VerdictGoto, Chain: s.Chain()})
		}
		add(to, &expr.Dynset{SrcRegKey: unix.NFT_REG_1, SetName: sought, Operation: unix.NFT_DYNSET_OP_UPDATE}, accept)
		add(&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
	}
}
