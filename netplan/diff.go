package netplan

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// The verbs of a Change.
const (
	VerbCreate = "create"
	VerbChange = "change"
	VerbRemove = "remove"
)

// Change is what differs between two plans in one namespace.
type Change struct {
	NetNS   string `json:"netns"`
	Station string `json:"station,omitempty"` // "cluster/station"; "" for the fabric and the backbone
	Verb    string `json:"verb"`              // VerbCreate, VerbChange or VerbRemove
	// Lines are of the plan's text, each after "- " (of the old plan) or "+ "
	// (of the new one).
	Lines []string `json:"lines"`
}

// Diff lists what makes new of old, in the order of the new plan: the fabric,
// the backbone, what the backbone answers by DNS (a change of the backbone's
// namespace of its own), the stations, and at last what the new plan has no
// more. Nil stands for a plan of nothing, equal plans have no changes.
func Diff(old, new *Plan) []Change {
	if old == nil {
		old = &Plan{}
	}
	if new == nil {
		new = &Plan{}
	}
	before, after := parts(old), parts(new)
	had := map[string]part{}
	for _, p := range before {
		had[p.key] = p
	}
	var changes []Change
	has := map[string]bool{}
	for _, p := range after {
		has[p.key] = true
		o, ok := had[p.key]
		if !ok {
			changes = append(changes, p.change(VerbCreate, signed("+ ", p.section().lines)))
			continue
		}
		if reflect.DeepEqual(o.of, p.of) { // what is equal need not be put into words
			continue
		}
		if lines := o.section().diff(p.section()); len(lines) > 0 {
			changes = append(changes, p.change(VerbChange, lines))
		}
	}
	for _, p := range before {
		if !has[p.key] {
			changes = append(changes, p.change(VerbRemove, signed("- ", p.section().lines)))
		}
	}
	return changes
}

// part is what one Change is about: a *Fabric, *Node or *DNS.
type part struct {
	key     string
	netns   string
	station string
	fabric  string
	of      any
}

func parts(p *Plan) []part {
	if p.Fabric.NetNS == "" {
		return nil
	}
	all := make([]part, 0, len(p.Nodes)+2)
	all = append(all, part{key: p.Fabric.NetNS, netns: p.Fabric.NetNS, of: &p.Fabric})
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if n.Station != "" {
			all = append(all, part{key: n.NetNS, netns: n.NetNS, station: n.Cluster + "/" + n.Station, fabric: p.Fabric.NetNS, of: n})
			continue
		}
		all = append(all, part{key: n.NetNS, netns: n.NetNS, fabric: p.Fabric.NetNS, of: n},
			part{key: n.NetNS + " dns", netns: n.NetNS, of: &p.DNS})
	}
	return all
}

func (p part) change(verb string, lines []string) Change {
	return Change{NetNS: p.netns, Station: p.station, Verb: verb, Lines: lines}
}

// section is p in words.
func (p part) section() *section {
	var w strings.Builder
	switch of := p.of.(type) {
	case *Fabric:
		of.text(&w)
	case *DNS:
		return &section{lines: of.lines()}
	case *Node:
		of.text(&w, p.fabric)
		s := &section{lines: commands(w.String()), addresses: map[string][]string{}}
		for _, f := range of.Interfaces {
			if f.Linked() && !f.AddsLink {
				// The text has it at the other end alone; made anew it is new at both.
				s.lines = append(s.lines, f.linkText(of.NetNS))
			}
			for _, a := range f.Addresses {
				s.addresses[f.Name] = append(s.addresses[f.Name], AddressText(f.Name, a, f.NoPrefixRoute))
			}
		}
		return s
	}
	return &section{lines: commands(w.String())}
}

// section is the text of a part.
type section struct {
	lines     []string
	addresses map[string][]string // by interface: the first is the source of what the kernel sends
}

// commands are the lines of a text without its headings.
func commands(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// diff lists the lines that only one of both has, by kind of object, those of
// the old one first.
func (s *section) diff(to *section) []string {
	gone, come := missing(s.lines, to.lines), missing(to.lines, s.lines)
	for dev, was := range s.addresses {
		is := to.addresses[dev]
		stayed := missing(was, gone)
		if stays := missing(is, come); !slices.Equal(stayed, stays) {
			gone, come = append(gone, stayed...), append(come, stays...)
		}
	}
	// The order of the whole text, which the addresses above have left.
	gone, come = inOrder(s.lines, gone), inOrder(to.lines, come)
	lines := append(signed("- ", gone), signed("+ ", come)...)
	slices.SortStableFunc(lines, func(a, b string) int { return kind(a) - kind(b) })
	return lines
}

// missing are the lines of a that b lacks.
func missing(a, b []string) []string {
	in := map[string]bool{}
	for _, line := range b {
		in[line] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(line string) bool { return in[line] })
}

func inOrder(all, some []string) []string {
	in := map[string]bool{}
	for _, line := range some {
		in[line] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(line string) bool { return !in[line] })
}

func signed(sign string, lines []string) []string {
	all := make([]string, len(lines))
	for i, line := range lines {
		all[i] = sign + line
	}
	return all
}

// kind ranks a signed line by its object, in the order of the plan's text.
func kind(line string) int {
	_, rest, _ := strings.Cut(line, " ")
	object, _, _ := strings.Cut(rest, " ")
	return slices.Index([]string{"netns", "sysctl", "link", "address", "route", "rule", "nft", "dns"}, object)
}

// lines tell all that d answers. No tool has words for these.
func (d *DNS) lines() []string {
	var lines []string
	for _, a := range d.Listen {
		lines = append(lines, "dns listen "+a.String())
	}
	for _, c := range d.Clusters {
		for _, s := range c.Subnets {
			lines = append(lines, fmt.Sprintf("dns zone %s for %s of %s", c.Domain, s, c.Name))
		}
	}
	for _, h := range d.Hosts {
		for _, name := range append([]string{h.FQDN}, h.Aliases...) {
			for _, a := range h.Addresses {
				lines = append(lines, "dns "+name+" -> "+a.String())
			}
		}
	}
	for _, p := range d.Pointers {
		lines = append(lines, fmt.Sprintf("dns %s <- %s", p.FQDN, p.Address))
	}
	for _, s := range d.Links {
		lines = append(lines, "dns reverse zone "+s.String())
	}
	for _, r := range d.Records {
		lines = append(lines, "dns record "+r.String())
	}
	return lines
}
