package kernel

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// able tells whether the kernel has what p asks for that not every kernel has,
// before anything is changed: it tries that in a namespace of its own.
func able(p *netplan.Plan) error {
	vlans := slices.ContainsFunc(p.Fabric.Bridges, func(br netplan.Bridge) bool { return len(br.VLANs) > 0 })
	var settings []netplan.Sysctl
	var filters []netplan.Node
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if len(n.Apart) > 0 || n.Divert != nil && !n.Divert.Optional {
			filters = append(filters, netplan.Node{NetNS: n.NetNS, Apart: n.Apart, Divert: n.Divert})
		}
		for _, s := range n.Sysctls {
			if len(settings) == 0 && strings.HasPrefix(s.Key, "net.ipv6.") && !s.Optional {
				settings = append(settings, s)
			}
		}
	}
	if !vlans && len(filters) == 0 && len(settings) == 0 {
		return nil
	}
	return onOwnThread(func() error {
		ns, err := enterNewNetNS("probe", settings)
		if err != nil {
			return err
		}
		defer ns.Close()
		var errs []error
		if vlans && !attempt(featureVLANs, "", false, addProbeVLANs).OK {
			errs = append(errs, &Unsupported{Feature: featureVLANs, Err: unix.EOPNOTSUPP})
		}
		for i := range filters {
			_, err := settleFilter(&filters[i])
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}
