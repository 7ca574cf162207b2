package netplan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Text is the plan in iproute2's words, in the order in which a reader would
// type it.
func (p *Plan) Text() string {
	var w strings.Builder
	p.Fabric.text(&w)
	for i := range p.Nodes {
		p.Nodes[i].text(&w, p.Fabric.NetNS)
	}
	return w.String()
}

func (f *Fabric) text(w *strings.Builder) {
	fmt.Fprintf(w, "# fabric %s\n", f.NetNS)
	fmt.Fprintf(w, "netns add %s\n", f.NetNS)
	sysctlText(w, f.Sysctls)
	fmt.Fprintln(w, "link set lo up")
	for _, b := range f.Bridges {
		fmt.Fprintf(w, "link add %s netns %s type bridge mtu %d address %s stp_state 0 forward_delay 0 mcast_snooping 0 fdb_max_learned %d%s up\n",
			b.Name, f.NetNS, b.MTU, b.MAC, MaxMACs, filtering(b))
		if h := b.Host; h != nil {
			h.text(w, b, f.NetNS)
		}
		for _, v := range b.VLANs {
			v.text(w)
		}
	}
}

// text's commands are the machine's, but for a netns that they name.
func (h *HostBridge) text(w *strings.Builder, b Bridge, fabric string) {
	fmt.Fprintf(w, "link add %s type bridge mtu %d address %s stp_state 0 forward_delay 0 mcast_snooping 0 fdb_max_learned %d up\n", h.Name, b.MTU, h.MAC, MaxMACs)
	fmt.Fprintf(w, "link add %s address %s mtu %d master %s up type veth peer name %s netns %s address %s mtu %d master %s up\n",
		h.Wire, h.WireMAC, b.MTU, h.Name, h.Port, fabric, h.PortMAC, b.MTU, b.Name)
	for _, name := range h.Attach {
		fmt.Fprintf(w, "link set %s master %s up\n", name, h.Name)
	}
}

func filtering(b Bridge) string {
	if len(b.VLANs) == 0 {
		return ""
	}
	return " vlan_filtering 1"
}

func (v *PortVLANs) text(w *strings.Builder) {
	if v.Untagged != DefaultVLAN && !slices.Contains(v.Tagged, DefaultVLAN) {
		fmt.Fprintf(w, "bridge vlan del dev %s vid %d\n", v.Port, DefaultVLAN)
	}
	if v.Untagged != 0 {
		fmt.Fprintf(w, "bridge vlan add dev %s vid %d pvid untagged\n", v.Port, v.Untagged)
	}
	for _, id := range v.Tagged {
		fmt.Fprintf(w, "bridge vlan add dev %s vid %d\n", v.Port, id)
	}
}

func (n *Node) text(w *strings.Builder, fabric string) {
	kind := "station"
	if n.Station == "" {
		kind = "backbone"
	}
	fmt.Fprintf(w, "\n# %s %s\n", kind, n.NetNS)
	fmt.Fprintf(w, "netns add %s\n", n.NetNS)
	sysctlText(w, n.Sysctls)
	fmt.Fprintln(w, "link set lo up")
	for _, a := range n.Loopback {
		fmt.Fprintln(w, AddressText("lo", a, false))
	}
	for _, i := range n.Interfaces {
		switch {
		case i.AddsLink:
			fmt.Fprintln(w, i.linkText(n.NetNS))
		case !i.Linked():
			fmt.Fprintf(w, "link add %s netns %s address %s mtu %d type veth peer name %s netns %s address %s mtu %d master %s up\n",
				i.Name, n.NetNS, i.MAC, i.MTU, i.Peer, fabric, i.PeerMAC, i.MTU, i.Bridge)
		}
		fmt.Fprintf(w, "link set %s up\n", i.Name)
		for _, a := range i.Addresses {
			fmt.Fprintln(w, AddressText(i.Name, a, i.NoPrefixRoute))
		}
	}
	for _, r := range n.Routes {
		fmt.Fprintln(w, r.Text())
	}
	for _, r := range n.Rules {
		fmt.Fprintln(w, r.Text())
	}
	for _, p := range n.Apart {
		fmt.Fprintln(w, p.Text())
	}
	if n.Divert != nil {
		fmt.Fprint(w, n.Divert.Text())
	}
}

// linkText adds the link that the interface of a node is one end of.
func (f *Interface) linkText(netns string) string {
	return fmt.Sprintf("link add %s netns %s address %s mtu %d type veth peer name %s netns %s address %s mtu %d",
		f.Name, netns, f.MAC, f.MTU, f.Peer, f.PeerNetNS, f.PeerMAC, f.MTU)
}

// Text is the pair as nft(8) takes it.
func (p Pair) Text() string {
	return fmt.Sprintf("nft add rule inet platelayer forward iifname %s oifname %s drop", p.In, p.Out)
}

func sysctlText(w *strings.Builder, all []Sysctl) {
	for _, s := range all {
		fmt.Fprintln(w, s.Text())
	}
}

// Text is the setting as sysctl -w takes it; a "-" before it marks one that
// the kernel may lack, as in sysctl.conf.
func (s Sysctl) Text() string {
	dash, value := "", s.Value
	if s.Optional {
		dash = "-"
	}
	if strings.Contains(value, " ") {
		value = `"` + value + `"`
	}
	return "sysctl " + dash + s.Key + "=" + value
}

// AddressText is an address of dev in iproute2's words.
func AddressText(dev string, a netip.Prefix, noPrefixRoute bool) string {
	s := "address add " + a.String() + " dev " + dev
	if a.Addr().Is6() {
		s += " nodad"
	}
	if noPrefixRoute {
		s += " noprefixroute"
	}
	return s
}

// Text is the route in iproute2's words.
func (r Route) Text() string {
	to := r.To.String()
	if r.To.Bits() == 0 {
		to = "default"
		if r.To.Addr().Is6() && !r.Via.IsValid() {
			to = "::/0"
		}
	}
	s := "route add "
	if r.Type != "" {
		s += r.Type + " "
	}
	s += to
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	if r.Dev != "" {
		s += " dev " + r.Dev
	}
	if r.Metric != 0 {
		s += fmt.Sprintf(" metric %d", r.Metric)
	}
	if r.Table != 0 {
		s += fmt.Sprintf(" table %d", r.Table)
	}
	return s
}

// Text is the rule in iproute2's words.
func (r Rule) Text() string {
	s := fmt.Sprintf("rule add priority %d", r.Priority)
	if r.From.IsValid() {
		s += " from " + r.From.String()
	}
	if r.To.IsValid() {
		s += " to " + r.To.String()
	}
	if r.Mark != 0 {
		s += fmt.Sprintf(" fwmark %d", r.Mark)
	}
	return s + fmt.Sprintf(" table %d", r.Table)
}
