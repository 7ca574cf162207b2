package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"

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
	table, err := conn.ListTableOfFamily(filterTable, nftables.TableFamilyINet)
	there := table != nil && err == nil
	if !there && len(n.Apart) == 0 && n.Divert == nil {
		return n, 0, nil // a kernel without nftables has no table either
	}
	if there && filters(conn, table, n.Apart) && diverts(conn, table, n.Divert) {
		return n, 0, nil
	}
	err = replaceFilter(conn, there, n.Apart, n.Divert)
	if other := (*Unsupported)(nil); errors.As(err, &other) && n.Divert != nil && n.Divert.Optional {
		n = n.Undiverted()
		if !there && len(n.Apart) == 0 {
			return n, 0, nil
		}
		err = replaceFilter(conn, there, n.Apart, nil)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("cannot filter in %s: %w", n.NetNS, err)
	}
	return n, 1, nil
}

// replaceFilter puts a table in the place of the one that is there. In one
// transaction, no packet sees neither.
func replaceFilter(conn *nftables.Conn, there bool, apart []netplan.Pair, divert *netplan.Divert) error {
	table := &nftables.Table{Name: filterTable, Family: nftables.TableFamilyINet}
	if there {
		conn.DelTable(table)
	}
	feature := "nftables"
	if len(apart) > 0 || divert != nil {
		conn.AddTable(table)
	}
	if len(apart) > 0 {
		if err := addFilter(conn, table, apart); err != nil {
			return err
		}
	}
	if divert != nil {
		feature = "transparent proxying by nftables (CONFIG_NFT_TPROXY, CONFIG_NFT_SOCKET, CONFIG_NFT_REJECT)"
		if divert.Hold {
			if err := packetSockets(); err != nil {
				return err
			}
		}
		if err := addDivert(conn, table, divert); err != nil {
			return err
		}
	}
	err := conn.Flush()
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist) {
		err = &Unsupported{Feature: feature, Err: err}
	}
	return err
}

// packetSockets tells whether a program can see what Divert.Hold drops.
func packetSockets() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return unsupported("packet sockets (CONFIG_PACKET)", err)
	}
	return unix.Close(fd)
}

func addFilter(conn *nftables.Conn, table *nftables.Table, apart []netplan.Pair) error {
	chain := conn.AddChain(&nftables.Chain{Name: filterChain, Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	kind, err := nftables.ConcatSetType(nftables.TypeIFName, nftables.TypeIFName)
	if err != nil {
		return err
	}
	set := &nftables.Set{Table: table, Name: filterSet, KeyType: kind, Concatenation: true}
	if err := conn.AddSet(set, elements(apart)); err != nil {
		return err
	}
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_2},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set.Name, SetID: set.ID},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	return nil
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

// filters tells whether a table is what addFilter makes for these pairs.
func filters(conn *nftables.Conn, table *nftables.Table, apart []netplan.Pair) bool {
	set, err := conn.GetSetByName(table, filterSet)
	if err != nil {
		return len(apart) == 0
	}
	have, err := conn.GetSetElements(set)
	if err != nil || len(have) != len(apart) {
		return false
	}
	for _, want := range elements(apart) {
		if !slices.ContainsFunc(have, func(e nftables.SetElement) bool { return bytes.Equal(e.Key, want.Key) }) {
			return false
		}
	}
	rules, err := conn.GetRules(table, &nftables.Chain{Name: filterChain, Table: table})
	return err == nil && len(rules) == 1
}
