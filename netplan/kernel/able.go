package kernel

import (
	"errors"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// able tells whether the kernel has what p asks for that not every kernel has,
// before anything is changed. It tries in a namespace of its own what none of p's
// has yet.
func able(p *netplan.Plan, o Options) error {
	vlans := slices.ContainsFunc(p.Fabric.Bridges, func(br netplan.Bridge) bool { return len(br.VLANs) > 0 })
	six := slices.ContainsFunc(p.Nodes, func(n netplan.Node) bool {
		return slices.ContainsFunc(n.Sysctls, func(s netplan.Sysctl) bool { return strings.HasPrefix(s.Key, "net.ipv6.") && !s.Optional })
	})
	var filters []netplan.Node
	for i := range p.Nodes {
		if n := &p.Nodes[i]; len(n.Apart) > 0 || n.Divert != nil && !n.Divert.Optional {
			filters = append(filters, netplan.Node{NetNS: n.NetNS, Apart: n.Apart, Divert: n.Divert})
		}
	}
	if !vlans && !six && len(filters) == 0 {
		return nil
	}
	return onOwnThread(func() error {
		if six {
			if _, err := getSysctl("net.ipv6.conf.all.disable_ipv6"); err != nil {
				return &Unsupported{Feature: "IPv6", Err: err}
			}
		}
		filters = slices.DeleteFunc(filters, func(n netplan.Node) bool { return filtersAlready(&n, o) })
		if !vlans && len(filters) == 0 {
			return nil
		}
		ns, err := enterNewNetNS("probe", nil)
		if err != nil {
			return err
		}
		defer ns.Close()
		var errs []error
		if vlans && !attempt(featureVLANs, "", false, addProbeVLANs).OK {
			errs = append(errs, &Unsupported{Feature: featureVLANs, Err: unix.EOPNOTSUPP})
		}
		for i := range filters {
			_, _, err := settleFilter(&filters[i])
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// filtersAlready tells whether n has tables such as it needs, and leaves the
// calling thread there.
func filtersAlready(n *netplan.Node, o Options) bool {
	ns, err := openPin(o, n.NetNS)
	if err != nil {
		return false // it is new
	}
	defer ns.Close()
	if err := enter(ns); err != nil {
		return false
	}
	conn, err := nftables.New()
	if err != nil {
		return false
	}
	table, err := conn.ListTableOfFamily(filterTable, nftables.TableFamilyINet)
	if err != nil || table == nil || n.Divert == nil || n.Divert.Optional {
		return err == nil && table != nil
	}
	rules, err := conn.GetRules(table, &nftables.Chain{Name: divertChain, Table: table})
	return err == nil && len(rules) > 0
}
