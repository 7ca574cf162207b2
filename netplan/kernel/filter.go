package kernel

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// A node's filter is one table of nftables: a chain at the forward hook, with a
// set of the pairs of interfaces between which nothing passes, so that its cost
// does not grow with their number, and the chains of divert.go.
const (
	filterTable = "platelayer"
	filterChain = "forward"
	filterSet   = "apart"
)

// settleFilter brings the calling thread's namespace to the filter that the
// plan says, in one transaction, and tells how many of them it sent. It returns
// the node as the kernel can have it.
func settleFilter(n *netplan.Node) (*netplan.Node, int, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, 0, fmt.Errorf("cannot filter in %s: %w", n.NetNS, err)
	}
	have, err := conn.ListTableOfFamily(filterTable, nftables.TableFamilyINet)
	if err != nil {
		have = nil
	}
	if have == nil && len(n.Apart) == 0 && n.Divert == nil {
		return n, 0, nil // a kernel without nftables has no table either
	}
	changed, err := changeFilter(have, n.Apart, n.Divert)
	if other := (*Unsupported)(nil); errors.As(err, &other) && n.Divert != nil && n.Divert.Optional {
		n = n.Undiverted()
		if have == nil && len(n.Apart) == 0 {
			return n, 0, nil
		}
		changed, err = changeFilter(have, n.Apart, nil)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("cannot filter in %s: %w", n.NetNS, err)
	}
	if !changed {
		return n, 0, nil
	}
	return n, 1, nil
}

// changeFilter brings the table to what filters and diverts so, and tells
// whether it was not.
func changeFilter(have *nftables.Table, apart []netplan.Pair, divert *netplan.Divert) (changed bool, err error) {
	rules, feature := newRuleset(filterTable), "nftables"
	if len(apart) > 0 {
		rules.addFilter(apart)
	}
	if divert != nil {
		feature = "transparent proxying by nftables (CONFIG_NFT_TPROXY, CONFIG_NFT_SOCKET, CONFIG_NFT_REJECT)"
		if divert.Hold {
			if err := packetSockets(); err != nil {
				return false, err
			}
		}
		rules.addDivert(divert)
	}
	changed, err = rules.settle(have)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist) {
		err = &Unsupported{Feature: feature, Err: err}
	}
	return changed, err
}

// packetSockets tells whether a program can see what Divert.Hold drops.
func packetSockets() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return unsupported("packet sockets (CONFIG_PACKET)", err)
	}
	return unix.Close(fd)
}

func (r *ruleset) addFilter(apart []netplan.Pair) {
	chain := r.chain(nftables.Chain{Name: filterChain, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	kind := r.concatenated(nftables.TypeIFName, nftables.TypeIFName)
	r.set(nftables.Set{Name: filterSet, KeyType: kind, Concatenation: true}, elements(apart))
	chain.add(
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_2},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: filterSet},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	)
}

func elements(apart []netplan.Pair) []nftables.SetElement {
	var all []nftables.SetElement
	for _, p := range apart {
		key := make([]byte, 2*unix.IFNAMSIZ)
		copy(key, p.In)
		copy(key[unix.IFNAMSIZ:], p.Out)
		all = append(all, nftables.SetElement{Key: key})
	}
	return all
}
