package topology

import (
	"fmt"
	"slices"
	"strconv"
)

// The VLANs that 802.1Q has; a bridge's ports are in the first one unless told
// otherwise.
const (
	DefaultVLAN = 1
	lastVLAN    = 4094
)

// vlans reads the VLANs of a station's interface in a cluster.
func (l *loader) vlans(body *node) VLANs {
	var v VLANs
	one, more := body.get("vlan"), body.get("vlans")
	if one != nil {
		v.Untagged = l.vlan(one)
	}
	if more != nil && len(more.items) == 0 {
		l.spoil(more, "vlans lists nothing", "remove it, or list the tags of a trunk")
	}
	for _, n := range more.good() {
		id := l.vlan(n)
		switch {
		case n.bad:
		case id == v.Untagged || slices.Contains(v.Tagged, id):
			l.spoil(n, fmt.Sprintf("VLAN %d is given twice", id), "a VLAN passes an interface with a tag or without: remove one")
		default:
			v.Tagged = append(v.Tagged, id)
		}
	}
	slices.Sort(v.Tagged)
	if v.Untagged == DefaultVLAN && v.Tagged == nil {
		return VLANs{}
	}
	return v
}

func (l *loader) vlan(n *node) int {
	id, err := strconv.Atoi(n.text)
	if err != nil || id < 1 || id > lastVLAN {
		l.spoil(n, fmt.Sprintf("%s is not a VLAN", quoted(n.text)), fmt.Sprintf("a number from 1 to %d", lastVLAN))
	}
	return id
}
