package kernel

import (
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// strangersChain notes an address that is looked for, as long as there is room
// in the set. What goes to known ones passes after one look into a set, in the
// divert chain.
const strangersChain = "strangers"

// addStrangers adds its chain, and rules to the divert chain, which is empty.
func addStrangers(conn *nftables.Conn, table *nftables.Table, divert *nftables.Chain, s *netplan.Strangers) error {
	chain := &nftables.Chain{Name: strangersChain, Table: table}
	if s.Forwarded {
		chain.Type, chain.Hooknum, chain.Priority = nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter
	}
	conn.AddChain(chain)
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
		known := &nftables.Set{Table: table, Name: "known" + f.version, KeyType: f.kind}
		on := &nftables.Set{Table: table, Name: "links" + f.version, KeyType: f.kind, Interval: true}
		sought := &nftables.Set{Table: table, Name: "sought" + f.version, KeyType: f.kind, Dynamic: true, HasTimeout: true,
			Timeout: netplan.StrangersSeconds * time.Second, Size: netplan.StrangersAtATime}
		err := conn.AddSet(known, elements)
		if err == nil {
			err = conn.AddSet(on, intervals(links))
		}
		if err == nil {
			err = conn.AddSet(sought, nil)
		}
		if err != nil {
			return err
		}
		addTo := func(chain *nftables.Chain, exprs ...expr.Any) {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(f.only(), exprs...)})
		}
		add := func(exprs ...expr.Any) { addTo(chain, exprs...) }
		to := f.load(f.destination, unix.NFT_REG_1)
		accept := &expr.Verdict{Kind: expr.VerdictAccept}
		isKnown := &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: known.Name, SetID: known.ID}
		addTo(divert, to, isKnown, &expr.Verdict{Kind: expr.VerdictReturn})
		if s.Forwarded {
			add(to, isKnown, accept)
			add(to, &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: on.Name, SetID: on.ID, Invert: true}, accept)
		} else {
			addTo(divert, to, &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: on.Name, SetID: on.ID},
				&expr.Verdict{Kind: expr.VerdictGoto, Chain: strangersChain})
		}
		add(to, &expr.Dynset{SrcRegKey: unix.NFT_REG_1, SetName: sought.Name, SetID: sought.ID, Operation: unix.NFT_DYNSET_OP_UPDATE}, accept)
		add(&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
	}
	return nil
}

// strangersRules is how many addStrangers adds to the divert chain.
func strangersRules(s *netplan.Strangers) int {
	if s == nil {
		return 0
	}
	each, versions := 2, map[bool]bool{}
	if s.Forwarded {
		each = 1
	}
	for _, p := range s.Links {
		versions[p.Addr().Is4()] = true
	}
	return each * len(versions)
}
