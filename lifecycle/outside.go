package lifecycle

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"platelayer/netplan"
	"platelayer/netplan/kernel"
	"platelayer/topology"
)

// outside is the seam to the machine's own namespaces: all that a topology has
// there is made and taken away here.
type outside struct{ layout Layout }

// connect makes the machine's way to the stations, and tells what of it there
// is not.
func (o outside) connect(t *topology.Topology) (u *netplan.Uplink, notices []string, err error) {
	const tries = 5 // others may add routes at the same time
	for range tries {
		if u, notices, err = o.connectOnce(t); !errors.Is(err, syscall.EEXIST) {
			break
		}
	}
	if err != nil && t.Backbone.HostRoutes == "" && !t.Backbone.HostAccess {
		return nil, append(notices, fmt.Sprintf("the machine has no routes to the stations: %s", strings.ReplaceAll(err.Error(), "\n", "; "))), nil
	}
	return u, notices, err
}

func (o outside) connectOnce(t *topology.Topology) (*netplan.Uplink, []string, error) {
	u, notices, err := PlanUplink(t)
	if err != nil {
		return nil, nil, err
	}
	if u == nil {
		return nil, notices, kernel.Disconnect(t.Name)
	}
	err = kernel.Connect(o.layout.kernelOptions(t.Name), t.Name, backboneName(t), u)
	if err != nil {
		err = errors.Join(err, kernel.Disconnect(t.Name))
	}
	return u, notices, err
}

// PlanUplink tells which way the machine would have to the stations of a
// topology, nil for none, and in words why not to some. Who asks needs no rights.
func PlanUplink(t *topology.Topology) (*netplan.Uplink, []string, error) {
	name, _ := netplan.UplinkID(t.Name)
	machine, err := kernel.Survey(name)
	if err != nil {
		return nil, nil, err
	}
	var taken []netip.Prefix
	taken = append(taken, machine.Connected...)
	for p := range machine.Routed {
		taken = append(taken, p)
	}
	u, left := netplan.BuildUplink(t, slices.DeleteFunc(taken, func(p netip.Prefix) bool { return p.Bits() < 16 }))
	var notices []string
	for _, s := range left {
		notices = append(notices, fmt.Sprintf("the machine has no route to %s: it is somebody's on the internet; with host_routes: true in the backbone "+
			"the machine reaches your stations there, and not the real ones meanwhile", s))
	}
	others := map[string]bool{}
	u.Addresses = slices.DeleteFunc(u.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() && !machine.IPv6 })
	resolvers := machineResolvers()
	u.Routes = slices.DeleteFunc(u.Routes, func(s netip.Prefix) bool {
		if i := slices.IndexFunc(resolvers, func(r netip.AddrPort) bool { return s.Contains(r.Addr()) }); i >= 0 && t.Backbone.HostRoutes == "" {
			notices = append(notices, fmt.Sprintf("the machine has no route to %s: its resolver is %s; with host_routes: true in the backbone the machine "+
				"reaches your stations there, and not its resolver meanwhile", s, resolvers[i].Addr()))
			return true
		}
		if s.Addr().Is6() && !machine.IPv6 {
			notices = append(notices, fmt.Sprintf("the machine has no route to %s: IPv6 is off there (net.ipv6.conf.default.disable_ipv6)", s))
			return true
		}
		if i := slices.IndexFunc(machine.Connected, s.Overlaps); i >= 0 {
			notices = append(notices, fmt.Sprintf("the machine has no route to %s: it is connected to %s itself", s, machine.Connected[i]))
			return true
		}
		for p, owner := range machine.Routed {
			switch {
			case owner != "" && p.Overlaps(s):
				others[owner] = true
				return true
			case p == s:
				notices = append(notices, fmt.Sprintf("the machine has no route to %s: it has one there already", s))
				return true
			}
		}
		return false
	})
	for owner := range others {
		notices = append(notices, fmt.Sprintf("the machine's routes lead to the stations of %q, which has the same addresses: reach this one's by exec", owner))
	}
	slices.Sort(notices)
	if !u.Needed() {
		return nil, notices, nil
	}
	return &u, notices, nil
}

// clear takes everything of a topology out of the machine's namespaces.
func (o outside) clear(name string) error {
	return errors.Join(o.unname(name), kernel.Disconnect(name))
}

// reach makes the machine's way to the stations what the intent says.
func (k *keeper) reach() error {
	k.mu.Lock()
	t := k.intent.Topology
	k.mu.Unlock()
	o := outside{k.layout}
	u, notices, err := o.connect(t)
	if err == nil && o.named(t.Name) {
		notices = append(notices, o.resolve(t, u)...)
	}
	for _, n := range notices {
		k.tell(Progress{Notice: n})
	}
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.state.Uplink = u
	k.mu.Unlock()
	k.touch()
	return nil
}

// reachAgain is reach at another topology's end.
func (k *keeper) reachAgain() error {
	k.operating.Lock()
	defer k.operating.Unlock()
	k.mu.Lock()
	goes := k.state.Retired || k.state.Status != StatusUp
	k.mu.Unlock()
	if goes {
		return nil
	}
	return errors.Join(k.reach(), k.flush())
}

// inherit has the keepers of other topologies with these subnets take the
// machine's routes there, which nobody has any more.
func inherit(l Layout, left []netip.Prefix) {
	all, _ := names(l)
	for _, name := range all {
		i, err := readIntent(l, name)
		if err == nil && slices.ContainsFunc(i.Topology.Clusters, func(c topology.Cluster) bool {
			return slices.ContainsFunc(c.Subnets, func(s netip.Prefix) bool { return slices.ContainsFunc(left, s.Overlaps) })
		}) {
			tellKeeper(l, name, opReach)
		}
	}
}
