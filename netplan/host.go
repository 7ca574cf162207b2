package netplan

import (
	"slices"

	"platelayer/topology"
)

// host is the machine's bridge into a cluster.
func (b *builder) host(c *topology.Cluster) *HostBridge {
	if c.Switch != topology.SwitchHost {
		return nil
	}
	path := "host/" + c.Name
	// On the machine the topologies must differ in them; in the fabric copies
	// must not.
	return &HostBridge{
		Name:    b.names.fit("pl-", b.t.Name+"-"+c.Name),
		MAC:     b.names.mac("bridge/" + path),
		Wire:    b.names.fit("plw-", b.t.Name+"-"+c.Name),
		WireMAC: b.names.mac("inside/" + path),
		Port:    b.names.fit("host-", c.Name),
		PortMAC: b.names.mac("port/" + path),
		Attach:  c.Attach,
	}
}

// trunk has all VLANs of a switch pass a port, with their tags.
func trunk(port string, all []PortVLANs) PortVLANs {
	t := PortVLANs{Port: port, Untagged: DefaultVLAN}
	for _, p := range all {
		for _, id := range append(slices.Clone(p.Tagged), p.Untagged) {
			if id != 0 && id != DefaultVLAN && !slices.Contains(t.Tagged, id) {
				t.Tagged = append(t.Tagged, id)
			}
		}
	}
	slices.Sort(t.Tagged)
	return t
}
