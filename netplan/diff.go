package netplan

import (
	"fmt"
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
	before, after := sections(old), sections(new)
	had := map[string]*section{}
	for i := range before {
		had[before[i].key] = &before[i]
	}
	var changes []Change
	has := map[string]bool{}
	for i := range after {
		s := &after[i]
		has[s.key] = true
		o := had[s.key]
		if o == nil {
			changes = append(changes, s.change(VerbCreate, signed("+ ", s.lines)))
		} else if lines := o.diff(s); len(lines) > 0 {
			changes = append(changes, s.change(VerbChange, lines))
		}
	}
	for i := range before {
		if s := &before[i]; !has[s.key] {
			changes = append(changes, s.change(VerbRemove, signed("- ", s.lines)))
		}
	}
	return changes
}

// section is the part of a plan that one Change is about.
type section struct {
	key       string
	netns     string
	station   string
	lines     []string
	addresses map[string][]string // by interface: the first is the source of what the kernel sends
}

func (s *section) change(verb string, lines []string) Change {
	return Change{NetNS: s.netns, Station: s.station, Verb: verb, Lines: lines}
}

func sections(p *Plan) []section {
	if p == nil {
		return nil
	}
	all := make([]section, 0, len(p.Nodes)+2)
	var w strings.Builder
	p.Fabric.text(&w)
	all = append(all, section{key: p.Fabric.NetNS, netns: p.Fabric.NetNS, lines: commands(w.String())})
	for i := range p.Nodes {
		n := &p.Nodes[i]
		w.Reset()
		n.text(&w, p.Fabric.NetNS)
		s := section{key: n.NetNS, netns: n.NetNS, lines: commands(w.String()), addresses: map[string][]string{}}
		if n.Station != "" {
			s.station = n.Cluster + "/" + n.Station
		}
		for _, f := range n.Interfaces {
			for _, a := range f.Addresses {
				s.addresses[f.Name] = append(s.addresses[f.Name], AddressText(f.Name, a, f.NoPrefixRoute))
			}
		}
		all = append(all, s)
		if n.Station == "" {
			all = append(all, section{key: n.NetNS + " dns", netns: n.NetNS, lines: p.DNS.lines()})
		}
	}
	return all
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
	return slices.Index([]string{"netns", "sysctl", "link", "address", "route", "rule", "dns"}, object)
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
	return lines
}
