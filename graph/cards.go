package graph

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"platelayer/topology"
)

// line is a text on a card or in a box.
type line struct {
	left  string // in plain letters
	right string // an address, in letters of one width
	close bool   // right follows left
	font  font   // of left
	role  role
}

// role gives a text its colour.
type role int

const (
	strong role = iota
	muted
	tinted // in the cluster's colour
)

// card is a station.
type card struct {
	station *topology.Station
	lines   []line
	state   State
	inline  bool
	gateway bool
	rect
	drops int // ends of lines at its lower edge
	used  int
}

const longest = 28 // runes of a name in one line

// cardOf is what is written on a station's card.
func cardOf(t *topology.Topology, c *topology.Cluster, s *topology.Station, o Options) *card {
	k := &card{station: s, state: o.States[s.ID()]}
	for _, text := range wrap(s.Name, longest) {
		k.lines = append(k.lines, line{left: text, font: nameFont})
	}
	if role := roleOf(c, s); role != "" {
		k.gateway = true
		k.inline = role == "inline gateway"
		k.lines = append(k.lines, line{left: role, font: plainFont, role: tinted})
	}
	add := func(name string, addresses []netip.Addr) {
		label := name
		if len(addresses) == 0 {
			k.lines = append(k.lines, line{left: label, font: plainFont, role: muted})
		}
		for _, a := range addresses {
			k.lines = append(k.lines, line{left: label, right: a.String(), font: plainFont, role: muted})
			label = ""
		}
	}
	first := cmp.Or(s.InterfaceName, "eth0") + tagsOf(s.VLANs)
	if first == "eth0" && len(s.Interfaces) == 0 && len(linksOf(t, s)) == 0 && len(s.Loopback) == 0 {
		first = ""
	}
	add(first, s.Addresses)
	for i, f := range s.Interfaces {
		add(cmp.Or(f.Name, fmt.Sprintf("eth%d", i+1))+" "+f.Cluster+tagsOf(f.VLANs), f.Addresses)
	}
	for _, l := range linksOf(t, s) {
		to := l.own.Name + " to " + l.remote
		if len(to) > longest {
			to = l.own.Name + " link"
		}
		add(to, l.own.Addresses)
	}
	if len(s.Loopback) > 0 {
		add("lo", s.Loopback)
	}
	k.publish(s.Ports)
	if s.TLS != nil {
		k.note("TLS certificate")
	}
	for _, text := range wrap(egressNote(s.Egress, t.EgressOf(c, nil)), longest) {
		k.note(text)
	}
	return k
}

// publish adds the ports of the machine that lead to the station.
func (k *card) publish(ports []topology.Port) {
	const most = 6
	all := publications(ports)
	for i, p := range all {
		if i == most && len(all) > most+1 {
			k.note(fmt.Sprintf("and %d more ports", len(all)-most))
			return
		}
		k.lines = append(k.lines, line{left: "port", right: p.text(), font: plainFont, role: muted, close: true})
	}
}

func (k *card) note(text string) {
	if text != "" {
		k.lines = append(k.lines, line{left: text, font: plainFont, role: muted})
	}
}

// tagsOf are an interface's VLANs.
func tagsOf(v topology.VLANs) string {
	text := ""
	if v.Untagged != 0 {
		text = fmt.Sprintf(" vlan %d", v.Untagged)
	}
	if len(v.Tagged) > 0 {
		var ids []string
		for _, id := range v.Tagged {
			ids = append(ids, fmt.Sprint(id))
		}
		text += " tagged " + listed(ids, 4)
	}
	return text
}

// roleOf is how a station leads out of its cluster.
func roleOf(c *topology.Cluster, s *topology.Station) string {
	switch {
	case c.Gateway == s.Name && len(c.Transit) > 0:
		return "inline gateway"
	case c.Gateway == s.Name:
		return "gateway"
	}
	for _, g := range c.Standby {
		if g.Station == s.Name {
			return "gateway, stands by"
		}
	}
	return ""
}

// end is a station's end of a link.
type end struct {
	own    *topology.LinkEnd
	remote string // a station's name
}

func linksOf(t *topology.Topology, s *topology.Station) []end {
	var all []end
	for i := range t.Links {
		for j := range t.Links[i].Ends {
			if e := &t.Links[i].Ends[j]; e.Station == s.ID() {
				_, remote, _ := strings.Cut(t.Links[i].Ends[1-j].Station, "/")
				all = append(all, end{e, remote})
			}
		}
	}
	return all
}

// size gives the card the room that its texts need.
func (k *card) size() {
	const pad, gap = 12, 10
	for i, l := range k.lines {
		w := 2*pad + l.font.width(l.left)
		if l.right != "" {
			w += addressFont.width(l.right)
			if l.left != "" {
				w += gap
			}
		}
		if i == 0 && k.state.Word != "" {
			w += 26 + plainFont.width(k.state.Word)
		}
		k.w = max(k.w, w)
	}
	k.w = max(k.w, 128)
	k.h = 2*8 + lineHeight*float64(len(k.lines))
}

// ordered are a cluster's stations with those that lead out first.
func ordered(c *topology.Cluster) []*topology.Station {
	all := make([]*topology.Station, len(c.Stations))
	for i := range c.Stations {
		all[i] = &c.Stations[i]
	}
	rank := func(s *topology.Station) int {
		switch {
		case c.Gateway == s.Name:
			return 0
		case roleOf(c, s) != "":
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b *topology.Station) int { return rank(a) - rank(b) })
	return all
}

// heading is what stands at the top of a cluster's box: its name, and then
// what is known of it.
func heading(t *topology.Topology, c *topology.Cluster) (name []string, about []line) {
	name = wrap(c.Name, 2*longest)
	for _, s := range c.Subnets {
		about = append(about, line{right: s.String()})
	}
	if len(c.Subnets) == 0 {
		about = append(about, line{left: "layer 2 only", font: plainFont, role: muted})
	}
	for _, text := range wrap(c.Domain, 3*longest) {
		if text != "" {
			about = append(about, line{left: text, font: plainFont, role: muted})
		}
	}
	say := func(format string, args ...any) {
		about = append(about, line{left: fmt.Sprintf(format, args...), font: plainFont, role: tinted})
	}
	for _, a := range c.BackboneAddresses {
		about = append(about, line{left: "backbone", right: a.String(), font: plainFont, role: muted})
	}
	for _, s := range c.Transit {
		about = append(about, line{left: "transit", right: s.String(), font: plainFont, role: muted})
	}
	switch {
	case !c.Connected():
		say("no backbone")
	case c.Isolated:
		say("isolated")
	case c.Allow != nil:
		for _, text := range wrap("meets only "+strings.Join(c.Allow, ", "), 3*longest) {
			say("%s", text)
		}
	}
	if c.Connected() {
		if text := egressNote(c.Egress, t.EgressOf(nil, nil)); text != "" {
			say("%s", text)
		}
	}
	switch {
	case len(c.Attach) > 0:
		say("joined by the machine's %s", listed(c.Attach, 8))
	case c.Switch == topology.SwitchHost:
		say("open to the machine's interfaces")
	}
	return name, about
}
