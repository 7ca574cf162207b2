package graph

import (
	"fmt"
	"strings"
)

// summary counts what is in the picture.
func (p *picture) summary() string {
	text := count(len(p.t.Stations()), "station") + ", " + count(len(p.t.Clusters), "cluster")
	if n := len(p.t.Links); n > 0 {
		text += ", " + count(n, "link")
	}
	return text
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// describe is the picture in words, for those who don't see it.
func (p *picture) describe() string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s.", p.summary())
	if len(p.passages) > 0 {
		var texts []string
		for _, way := range p.passages {
			texts = append(texts, way.text)
		}
		fmt.Fprintf(&w, " The machine: %s.", strings.Join(texts, "; "))
	}
	for _, b := range p.boxes {
		c := b.cluster
		fmt.Fprintf(&w, " Cluster %s", c.Name)
		for i, s := range c.Subnets {
			fmt.Fprintf(&w, "%s %s", map[bool]string{true: ",", false: " and"}[i == 0], s)
		}
		switch {
		case !c.Connected():
			w.WriteString(", without the backbone")
		case c.Isolated:
			w.WriteString(", isolated")
		}
		var names []string
		for _, r := range b.rows {
			for _, k := range r.cards {
				name := k.station.Name
				if role := roleOf(c, k.station); role != "" {
					name += " (" + role + ")"
				}
				if k.state.Word != "" {
					name += " (" + k.state.Word + ")"
				}
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			fmt.Fprintf(&w, ": %s", strings.Join(names, ", "))
		}
		w.WriteString(".")
	}
	for _, k := range p.wires {
		if k.link {
			fmt.Fprintf(&w, " A %s.", k.title)
		}
	}
	return w.String()
}
