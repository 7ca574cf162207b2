package kernel

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// Of linux/if_bridge.h and linux/rtnetlink.h.
const (
	bridgeVLANInfo  = 2 // IFLA_BRIDGE_VLAN_INFO
	vlanPVID        = 1 << 1
	vlanUntagged    = 1 << 2
	filterVLANs     = 1 << 1 // RTEXT_FILTER_BRVLAN
	featureVLANs    = "VLANs on bridges (CONFIG_BRIDGE_VLAN_FILTERING)"
	featureBridges  = "bridges"
	vlanDefaultPort = vlanPVID | vlanUntagged
)

// vlans are a port's, by number, with flags.
type vlans map[int]uint16

// untouched is what a new port has.
func untouched() vlans { return vlans{netplan.DefaultVLAN: vlanDefaultPort} }

func vlansFor(p netplan.PortVLANs) vlans {
	v := vlans{}
	for _, id := range p.Tagged {
		v[id] = 0
	}
	if p.Untagged != 0 {
		v[p.Untagged] = vlanDefaultPort
	}
	return v
}

// unsupportedBridges names the feature that a kernel lacks which refuses a
// bridge.
func (w *wiring) unsupportedBridges(err error) error {
	if slices.ContainsFunc(w.plan.Fabric.Bridges, func(br netplan.Bridge) bool { return len(br.VLANs) > 0 }) {
		return unsupported(featureVLANs, err)
	}
	return unsupported(featureBridges, err)
}

func addProbeVLANs(b *batch) error {
	return b.addBridge(netplan.Bridge{Name: "br-vlans", MAC: "02:00:00:00:00:04", MTU: 1500, VLANs: []netplan.PortVLANs{{}}}, firstBridge+1, "probe")
}

// vlansOf are the VLANs that the plan has for a port, nil for none.
func (w *wiring) vlansOf(port string) *netplan.PortVLANs {
	for i := range w.plan.Fabric.Bridges {
		all := w.plan.Fabric.Bridges[i].VLANs
		for j := range all {
			if all[j].Port == port {
				return &all[j]
			}
		}
	}
	return nil
}

// setVLANs adds before it deletes. A port has one VLAN without a tag at most:
// the last that is added as such.
func (b *batch) setVLANs(port int32, want netplan.PortVLANs, have vlans) {
	is := vlansFor(want)
	for _, id := range numbersOf(is) {
		if flags, there := have[id]; !there || flags != is[id] {
			b.vlan(unix.RTM_SETLINK, port, id, is[id], want.Port)
		}
	}
	for _, id := range numbersOf(have) {
		if _, stays := is[id]; !stays {
			b.vlan(unix.RTM_DELLINK, port, id, 0, want.Port)
		}
	}
}

func numbersOf(v vlans) []int {
	var all []int
	for id := range v {
		all = append(all, id)
	}
	slices.Sort(all)
	return all
}

// vlan adds a VLAN to a port, or deletes it.
func (b *batch) vlan(kind uint16, port int32, id int, flags uint16, name string) {
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = port
	info := make([]byte, 4) // struct bridge_vlan_info
	binary.NativeEndian.PutUint16(info, flags)
	binary.NativeEndian.PutUint16(info[2:], uint16(id))
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(bridgeVLANInfo, info)
	b.add(kind, 0, func() string { return fmt.Sprintf("set VLAN %d of port %s", id, name) }, msg, spec)
}

// portVLANs lists the VLANs of all ports in the socket's namespace, by index.
func (s *socket) portVLANs() (map[int32]vlans, error) {
	type port struct {
		index int32
		vlans vlans
	}
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	found, err := list(s, unix.RTM_GETLINK, "VLANs", func(entry []byte) (port, bool) {
		if len(entry) < unix.SizeofIfInfomsg {
			return port{}, false
		}
		p := port{nl.DeserializeIfInfomsg(entry).Index, vlans{}}
		eachAttribute(attributes(entry, unix.SizeofIfInfomsg)[unix.IFLA_AF_SPEC], 0, func(kind uint16, value []byte) {
			if kind == bridgeVLANInfo && len(value) == 4 {
				p.vlans[int(binary.NativeEndian.Uint16(value[2:]))] = binary.NativeEndian.Uint16(value) & vlanDefaultPort
			}
		})
		return p, true
	}, msg, attr(unix.IFLA_EXT_MASK, nl.Uint32Attr(filterVLANs)))
	all := map[int32]vlans{}
	for _, p := range found {
		all[p.index] = p.vlans
	}
	return all, err
}

// settleVLANs brings the ports of bridges that look at tags, or did, to what
// the plan says. g is of before.
func (w *wiring) settleVLANs(s *socket, g *ground) (int, error) {
	looks := map[int32]bool{}
	for _, br := range w.plan.Fabric.Bridges {
		if l := g.byName[br.Name]; len(br.VLANs) > 0 || l != nil && number(l.bridge[nl.IFLA_BR_VLAN_FILTERING]) != 0 {
			looks[w.bridges[br.Name]] = true
		}
	}
	if len(looks) == 0 {
		return 0, nil
	}
	have, err := s.portVLANs()
	if err != nil {
		return 0, err
	}
	links, err := s.links()
	if err != nil {
		return 0, err
	}
	var b batch
	for i := range links {
		l := &links[i]
		if !looks[l.master] {
			continue
		}
		want := w.vlansOf(l.name)
		if want == nil {
			want = &netplan.PortVLANs{Port: l.name, Untagged: netplan.DefaultVLAN}
		}
		b.setVLANs(l.index, *want, have[l.index])
	}
	return len(b.what), unsupported(featureVLANs, s.send(&b))
}
