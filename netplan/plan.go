// Package netplan turns a topology into what Linux needs for it: namespaces,
// bridges, veths, addresses, routes, sysctls and DNS zones. It is pure and
// deterministic: the same topology gives the same plan, byte for byte.
package netplan

import (
	"net/netip"

	"platelayer/topology"
)

// Plan is the network of one topology.
type Plan struct {
	Topology string `json:"topology"`
	Fabric   Fabric `json:"fabric"`
	// Nodes are the containers' namespaces: the backbone first, then the
	// stations in the order of the file.
	Nodes []Node `json:"nodes"`
	DNS   DNS    `json:"dns"`
}

// Fabric is the namespace that holds the bridges.
type Fabric struct {
	NetNS   string   `json:"netns"`
	Sysctls []Sysctl `json:"sysctls,omitempty"`
	Bridges []Bridge `json:"bridges"`
}

// MaxMACs bounds what one bridge learns, as a switch's table does: a station can
// send under any (CAP_NET_RAW), and each takes memory of the kernel's for five
// minutes. Beyond, frames go to all ports.
const MaxMACs = 16384

// Bridge is the switch of one cluster.
type Bridge struct {
	Name    string `json:"name"` // at most 15 bytes
	Cluster string `json:"cluster"`
	MAC     string `json:"mac"`
	MTU     int    `json:"mtu"`
	// VLANs are those of the ports that are not in VLAN 1 without a tag alone. Where
	// there are any the bridge looks at tags (vlan_filtering).
	VLANs []PortVLANs `json:"vlans,omitempty"`
	// Host is the machine's own bridge into the cluster, nil for none.
	Host *HostBridge `json:"host,omitempty"`
}

// HostBridge is a bridge in the machine's own namespace, joined by a veth to one
// in the fabric. It has no address.
type HostBridge struct {
	Name    string   `json:"name"` // on the machine, at most 15 bytes
	MAC     string   `json:"mac"`
	Wire    string   `json:"wire"` // the veth's end on the machine
	WireMAC string   `json:"wire_mac"`
	Port    string   `json:"port"` // its end in the fabric
	PortMAC string   `json:"port_mac"`
	Attach  []string `json:"attach,omitempty"` // the machine's interfaces
}

// DefaultVLAN is that of a bridge's ports unless the plan says otherwise.
const DefaultVLAN = topology.DefaultVLAN

// PortVLANs are the VLANs of a bridge's port.
type PortVLANs struct {
	Port     string `json:"port"`
	Untagged int    `json:"untagged,omitempty"` // 0 is none
	Tagged   []int  `json:"tagged,omitempty"`
}

// Node is one container's network namespace and all that is in it.
type Node struct {
	NetNS      string      `json:"netns"` // also the container's name
	Cluster    string      `json:"cluster,omitempty"`
	Station    string      `json:"station,omitempty"` // "" for the backbone
	Sysctls    []Sysctl    `json:"sysctls,omitempty"` // set before the interfaces exist
	Interfaces []Interface `json:"interfaces"`
	// Loopback are further addresses of lo.
	Loopback []netip.Prefix `json:"loopback,omitempty"`
	Routes   []Route        `json:"routes,omitempty"`
	Rules    []Rule         `json:"rules,omitempty"`
	// Apart are the pairs of interfaces between which nothing is forwarded.
	Apart []Pair `json:"apart,omitempty"`
	// Divert is the backbone's: what the topology has not comes to a socket there.
	Divert *Divert `json:"divert,omitempty"`
}

// Pair is two interfaces, one way: what comes in by In and would go out by Out.
type Pair struct {
	In  string `json:"in"`
	Out string `json:"out"`
}

// Sysctl is a file below /proc/sys, with dots for slashes.
type Sysctl struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	// Optional marks a setting that a kernel may lack.
	Optional bool `json:"optional,omitempty"`
}

// Interface is a veth whose other end, Peer, is a port of Bridge in the fabric,
// or with PeerNetNS an interface of another node: a link.
type Interface struct {
	Name    string `json:"name"`
	MAC     string `json:"mac"`
	Peer    string `json:"peer"` // at most 15 bytes
	PeerMAC string `json:"peer_mac"`
	// PeerNetNS is the other node of a link; of its two nodes the later one in
	// the plan has AddsLink and the interface of the other comes with its own.
	PeerNetNS string         `json:"peer_netns,omitempty"`
	AddsLink  bool           `json:"adds_link,omitempty"`
	Bridge    string         `json:"bridge,omitempty"`
	Cluster   string         `json:"cluster,omitempty"`
	MTU       int            `json:"mtu"`
	Addresses []netip.Prefix `json:"addresses"`
	// NoPrefixRoute keeps the kernel from adding the subnet's own route
	// (IFA_F_NOPREFIXROUTE).
	NoPrefixRoute bool `json:"no_prefix_route,omitempty"`
}

// Types of a Route that lead nowhere (ip-route(8)).
const (
	RouteBlackhole   = topology.RouteBlackhole
	RouteUnreachable = topology.RouteUnreachable
	RouteProhibit    = topology.RouteProhibit
)

// Route is a unicast route, or has a type: one that leads nowhere and so has no
// Dev, or RouteLocal. Via is invalid for a destination on the link.
type Route struct {
	Type   string       `json:"type,omitempty"` // of ip-route(8); "" is unicast
	To     netip.Prefix `json:"to"`
	Via    netip.Addr   `json:"via,omitzero"`
	Dev    string       `json:"dev,omitempty"`
	Metric uint32       `json:"metric,omitempty"`
	Table  uint32       `json:"table,omitempty"` // 0 is main
}

// Rule is a routing policy rule: packets From to To that carry Mark, if it is
// not 0, look up Table. From or To tells the IP version.
type Rule struct {
	Priority uint32       `json:"priority"`
	From     netip.Prefix `json:"from,omitzero"`
	To       netip.Prefix `json:"to,omitzero"`
	Mark     uint32       `json:"mark,omitempty"`
	Table    uint32       `json:"table"`
}

// DNS is what the backbone's server answers from.
type DNS struct {
	Clusters []DNSCluster `json:"clusters"`
	Hosts    []DNSHost    `json:"hosts"`
	// Pointers name the addresses that are in no cluster, and Links are the
	// subnets that such addresses are from.
	Pointers []DNSPointer      `json:"pointers,omitempty"`
	Links    []netip.Prefix    `json:"links,omitempty"`
	Records  []topology.Record `json:"records,omitempty"`
	// Listen holds the backbone's own addresses.
	Listen []netip.Addr `json:"listen"`
}

// DNSCluster tells to which cluster an asker belongs and which zone is its own.
type DNSCluster struct {
	Name    string         `json:"name"`
	Domain  string         `json:"domain"`
	Subnets []netip.Prefix `json:"subnets"`
}

// DNSHost is one station as DNS sees it from one cluster: its addresses there.
type DNSHost struct {
	Cluster   string       `json:"cluster"`
	Station   string       `json:"station"` // "cluster/station"
	Name      string       `json:"name"`    // short name
	FQDN      string       `json:"fqdn"`    // without a trailing dot
	Aliases   []string     `json:"aliases,omitempty"`
	Addresses []netip.Addr `json:"addresses"`
}

// DNSPointer is the name of an address of a station's loopback, of a link or of
// the way from an inline gateway to the backbone. The cluster is the station's.
type DNSPointer struct {
	Address netip.Addr `json:"address"`
	Cluster string     `json:"cluster"`
	FQDN    string     `json:"fqdn"` // without a trailing dot
}

// Linked tells whether the interface is one end of a link, not on a switch.
func (f *Interface) Linked() bool { return f.PeerNetNS != "" }

// NetNSNames lists every namespace of the plan, the fabric first.
func (p *Plan) NetNSNames() []string {
	names := make([]string, 0, len(p.Nodes)+1)
	names = append(names, p.Fabric.NetNS)
	for i := range p.Nodes {
		names = append(names, p.Nodes[i].NetNS)
	}
	return names
}
