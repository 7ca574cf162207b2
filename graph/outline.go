package graph

import (
	"fmt"
	"net/netip"
	"strings"

	"platelayer/topology"
)

// outline is a topology as nodes and lines, for those who lay it out.
type outline struct {
	t       *topology.Topology
	ids     map[string]string // of stations
	o       Options
	uplinks []uplink
	around  []string // passages between the machine and the backbone
}

// uplink joins a cluster's switch, or its inline gateway, and the backbone.
type uplink struct {
	id, label string
	isolated  bool
}

func outlineOf(t *topology.Topology, o Options) *outline {
	l := &outline{t: t, ids: map[string]string{}, o: o}
	for i := range t.Clusters {
		c := &t.Clusters[i]
		for j := range c.Stations {
			l.ids[c.Stations[j].ID()] = fmt.Sprintf("s%d_%d", i, j)
		}
		switch {
		case len(c.Transit) > 0:
			l.uplinks = append(l.uplinks, uplink{l.ids[c.Name+"/"+c.Gateway], joinPrefixes(c.Transit), c.Isolated})
		case len(c.BackboneAddresses) > 0:
			l.uplinks = append(l.uplinks, uplink{fmt.Sprintf("c%d", i), join(c.BackboneAddresses), c.Isolated})
		}
	}
	if len(l.uplinks) > 0 {
		for _, way := range passages(t, o) {
			l.around = append(l.around, way.text)
		}
	}
	return l
}

// label is what stands in a station's node, in lines.
func (l *outline) label(c *topology.Cluster, s *topology.Station) []string {
	lines := []string{s.Name}
	if role := roleOf(c, s); role != "" {
		lines = append(lines, role)
	}
	if len(s.Addresses) > 0 {
		lines = append(lines, join(s.Addresses))
	}
	for _, p := range publications(s.Ports) {
		lines = append(lines, "port "+p.text())
	}
	if state := l.o.States[s.ID()]; state.Word != "" {
		lines = append(lines, state.Word)
	}
	return lines
}

func (l *outline) cluster(name string) string {
	for i := range l.t.Clusters {
		if l.t.Clusters[i].Name == name {
			return fmt.Sprintf("c%d", i)
		}
	}
	return ""
}

func join(all []netip.Addr) string {
	texts := make([]string, len(all))
	for i, a := range all {
		texts[i] = a.String()
	}
	return strings.Join(texts, " ")
}

func joinPrefixes(all []netip.Prefix) string {
	texts := make([]string, len(all))
	for i, a := range all {
		texts[i] = a.String()
	}
	return strings.Join(texts, " ")
}

// Mermaid is the topology as a flowchart (https://mermaid.js.org).
func Mermaid(t *topology.Topology, o Options) string {
	l := outlineOf(t, o)
	var w strings.Builder
	if o.Dark {
		w.WriteString("%%{init: {\"theme\": \"dark\"}}%%\n")
	}
	w.WriteString("flowchart TB\n")
	if len(l.uplinks) > 0 {
		w.WriteString("  backbone([\"backbone\"])\n")
	}
	if len(l.around) > 0 {
		fmt.Fprintf(&w, "  machine[\"%s\"] -.- backbone\n", mermaid(append([]string{"the machine"}, l.around...)...))
	}
	for i := range t.Clusters {
		c := &t.Clusters[i]
		fmt.Fprintf(&w, "  subgraph g%d[\"%s\"]\n    c%d{{\"%s\"}}\n", i, mermaid(c.Name), i, mermaid(subnetsOf(c)))
		for j := range c.Stations {
			s := &c.Stations[j]
			fmt.Fprintf(&w, "    %s[\"%s\"]\n    c%d --- %s\n", l.ids[s.ID()], mermaid(l.label(c, s)...), i, l.ids[s.ID()])
		}
		w.WriteString("  end\n")
	}
	line := func(from, style, label, to string) {
		if label != "" {
			label = "|\"" + mermaid(label) + "\"|"
		}
		fmt.Fprintf(&w, "  %s %s%s %s\n", from, style, label, to)
	}
	for _, u := range l.uplinks {
		line("backbone", map[bool]string{true: "-.-", false: "---"}[u.isolated], u.label, u.id)
	}
	for _, s := range t.Stations() {
		for _, f := range s.Interfaces {
			line(l.ids[s.ID()], "---", join(f.Addresses), l.cluster(f.Cluster))
		}
	}
	for _, k := range t.Links {
		line(l.ids[k.Ends[0].Station], "===", joinPrefixes(k.Subnets), l.ids[k.Ends[1].Station])
	}
	return w.String()
}

func subnetsOf(c *topology.Cluster) string {
	if len(c.Subnets) == 0 {
		return "layer 2 only"
	}
	return joinPrefixes(c.Subnets)
}

// mermaid escapes what ends a quoted text.
func mermaid(lines ...string) string {
	text := strings.Join(lines, "<br/>")
	return strings.ReplaceAll(text, `"`, "#quot;")
}

// Dot is the topology in Graphviz's language.
func Dot(t *topology.Topology, o Options) string {
	l := outlineOf(t, o)
	ink, ground := "black", "white"
	if o.Dark {
		ink, ground = "white", "#15181d"
	}
	var w strings.Builder
	fmt.Fprintf(&w, "graph %q {\n", t.Name)
	fmt.Fprintf(&w, "  graph [bgcolor=%q fontcolor=%q color=%q fontname=\"sans-serif\"];\n", ground, ink, ink)
	fmt.Fprintf(&w, "  node [shape=box style=rounded fontname=\"sans-serif\" color=%q fontcolor=%q];\n", ink, ink)
	fmt.Fprintf(&w, "  edge [fontname=\"sans-serif\" fontsize=10 color=%q fontcolor=%q];\n", ink, ink)
	if len(l.uplinks) > 0 {
		w.WriteString("  backbone;\n")
	}
	if len(l.around) > 0 {
		fmt.Fprintf(&w, "  machine [label=%q];\n  machine -- backbone [style=\"dotted\"];\n", strings.Join(append([]string{"the machine"}, l.around...), "\n"))
	}
	for i := range t.Clusters {
		c := &t.Clusters[i]
		fmt.Fprintf(&w, "  subgraph cluster_%d {\n    label=%q;\n    c%d [shape=plaintext label=%q];\n", i, c.Name, i, subnetsOf(c))
		for j := range c.Stations {
			s := &c.Stations[j]
			fmt.Fprintf(&w, "    %s [label=%q];\n    c%d -- %s;\n", l.ids[s.ID()], strings.Join(l.label(c, s), "\n"), i, l.ids[s.ID()])
		}
		w.WriteString("  }\n")
	}
	line := func(from, to, label, style string) {
		fmt.Fprintf(&w, "  %s -- %s [label=%q style=%q];\n", from, to, label, style)
	}
	for _, u := range l.uplinks {
		line("backbone", u.id, u.label, map[bool]string{true: "dashed", false: "solid"}[u.isolated])
	}
	for _, s := range t.Stations() {
		for _, f := range s.Interfaces {
			line(l.ids[s.ID()], l.cluster(f.Cluster), join(f.Addresses), "solid")
		}
	}
	for _, k := range t.Links {
		line(l.ids[k.Ends[0].Station], l.ids[k.Ends[1].Station], joinPrefixes(k.Subnets), "bold")
	}
	w.WriteString("}\n")
	return w.String()
}
