package graph

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"platelayer/topology"
)

// passage is a way between the machine and the backbone.
type passage struct {
	text    string
	outward bool // from stations
}

const widest = 4 * longest // runes of a passage in one line

// passages are what leads from the machine, and what is beyond it, to stations
// and back.
func passages(t *topology.Topology, o Options) []passage {
	var all []passage
	if names, every := reached(t, o.Routed); every {
		all = append(all, passage{text: "reaches the stations at their addresses"})
	} else if len(names) > 0 {
		all = append(all, passage{text: "reaches the stations of " + listed(names, 8) + " at their addresses"})
	}
	var ports []string
	for _, s := range t.Stations() {
		for _, p := range publications(s.Ports) {
			ports = append(ports, p.outside())
		}
	}
	if len(ports) > 0 {
		all = append(all, passage{text: map[bool]string{true: "publishes port ", false: "publishes ports "}[len(ports) == 1] + listed(ports, 8)})
	}
	switch e := t.EgressOf(nil, nil); {
	case e == topology.EgressAllow:
		all = append(all, passage{"stations reach what is outside", true})
	case e != topology.EgressNone:
		all = append(all, passage{"stations reach " + destinations(e) + " outside", true})
	case t.LetsOut():
		all = append(all, passage{"some stations reach what is outside", true})
	}
	if t.Backbone.HostAccess {
		all = append(all, passage{"stations reach the machine itself", true})
	}
	return all
}

// reached are the clusters with a subnet that the machine has a route to; every
// is whether these are all that the backbone leads into.
func reached(t *topology.Topology, routed []netip.Prefix) (names []string, every bool) {
	every = true
	for i := range t.Clusters {
		c := &t.Clusters[i]
		switch {
		case slices.ContainsFunc(c.Subnets, func(s netip.Prefix) bool { return slices.Contains(routed, s.Masked()) }):
			names = append(names, c.Name)
		case c.Connected():
			every = false
		}
	}
	return names, every && len(names) > 0
}

// egressNote says how a cluster's or a station's egress differs from what is
// said of all.
func egressNote(own, others string) string {
	switch {
	case own == "" || own == others:
		return ""
	case own == topology.EgressNone:
		return "reaches nothing outside"
	case own == topology.EgressAllow:
		return "reaches what is outside"
	}
	return "reaches " + destinations(own) + " outside"
}

func destinations(egress string) string { return listed(strings.Fields(egress), 4) }

// listed are the first of all, and how many more there are.
func listed(all []string, most int) string {
	if len(all) <= most+1 {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}

// publication is published ports of one station that follow one another.
type publication struct {
	topology.Port
	more uint16 // behind the first
}

// publications are ports in few words.
func publications(ports []topology.Port) []publication {
	var all []publication
	for _, p := range ports {
		p.Name, p.AppProtocol = "", ""
		if n := len(all) - 1; n >= 0 && all[n].Published != 0 {
			next := all[n].Port
			next.Published += all[n].more + 1
			next.Target += all[n].more + 1
			if next == p {
				all[n].more++
				continue
			}
		}
		all = append(all, publication{Port: p})
	}
	return all
}

// outside is where the machine listens, tcp unsaid.
func (p publication) outside() string {
	text := "any"
	switch {
	case p.Last != 0: // one of them
		text = fmt.Sprintf("%d-%d", p.Published, p.Last)
	case p.Published != 0:
		text = span(p.Published, p.more)
	}
	if p.HostIP.Is6() {
		text = "[" + p.HostIP.String() + "]:" + text
	} else if p.HostIP.IsValid() {
		text = p.HostIP.String() + ":" + text
	}
	if p.Protocol != "tcp" {
		text += "/" + p.Protocol
	}
	return text
}

// text is the port as compose has it.
func (p publication) text() string {
	where, protocol, other := strings.Cut(p.outside(), "/")
	text := where + ":" + span(p.Target, p.more)
	if other {
		text += "/" + protocol
	}
	return text
}

func span(first, more uint16) string {
	if more == 0 {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, first+more)
}
