package netplan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Origin is whose packets the backbone itself takes by one of its interfaces: to
// its DNS, and to the outside. Stations can send under any address (CAP_NET_RAW),
// and what they may outside goes by it, so it has to be one of the networks
// that hang together with that leg: by other ways than the backbone, since a
// station in two clusters, or behind a gateway in two, may send by either.
type Origin struct {
	Dev  string         `json:"dev"`
	From []netip.Prefix `json:"from"` // sorted and without overlap
}

// Comes tells whether a packet from an address may come in there.
func (o *Origin) Comes(from netip.Addr) bool {
	return slices.ContainsFunc(o.From, func(p netip.Prefix) bool { return p.Contains(from) })
}

// origins plans them for the backbone, which is the first of the nodes.
func origins(nodes []Node) []Origin {
	of := map[string]string{} // a wire's name, to another that it hangs together with
	find := func(wire string) string {
		for of[wire] != "" {
			wire = of[wire]
		}
		return wire
	}
	for i := range nodes[1:] {
		n := &nodes[1+i]
		for j := range n.Interfaces {
			if a, b := find(wire(n, &n.Interfaces[0])), find(wire(n, &n.Interfaces[j])); a != b {
				of[a] = b
			}
		}
	}
	there := map[string][]netip.Prefix{}
	for i := range nodes {
		n := &nodes[i]
		for j := range n.Interfaces {
			f := &n.Interfaces[j]
			at := find(wire(n, f))
			for _, a := range f.Addresses {
				there[at] = append(there[at], a.Masked())
			}
			if i > 0 && j == 0 {
				for _, a := range n.Loopback {
					there[at] = append(there[at], netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
				}
			}
			for _, r := range n.Routes {
				if i == 0 && r.Dev == f.Name {
					there[at] = append(there[at], r.To.Masked())
				}
			}
		}
	}
	var all []Origin
	backbone := &nodes[0]
	for i := range backbone.Interfaces {
		f := &backbone.Interfaces[i]
		from := slices.Clone(there[find(wire(backbone, f))])
		if slices.ContainsFunc(from, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
			from = append(from, netip.MustParsePrefix("fe80::/10")) // neighbours
		}
		all = append(all, Origin{f.Name, apartPrefixes(from)})
	}
	return all
}

// wire names what an interface of a node is on: a cluster's switch or a link.
func wire(n *Node, f *Interface) string {
	if !f.Linked() {
		return "switch/" + f.Cluster
	}
	ends := []string{n.NetNS + "/" + f.Name, f.PeerNetNS + "/" + f.Peer}
	slices.Sort(ends)
	return "link/" + ends[0] + "/" + ends[1]
}

// Text is the origin as nft(8) takes it.
func (o Origin) Text() string {
	var w strings.Builder
	for _, p := range o.From {
		word := "ip"
		if p.Addr().Is6() {
			word = "ip6"
		}
		fmt.Fprintf(&w, "nft add element inet platelayer %s { %s . %s }\n", map[string]string{"ip": "origin4", "ip6": "origin6"}[word], o.Dev, p)
	}
	return w.String()
}
