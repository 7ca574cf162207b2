package netplan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Place is where an address is, for a matrix: a cluster's name, or one of
// these, which no cluster can be called.
const (
	OnLinks    = "(links)"
	OnLoopback = "(loopback)"
)

// Target is an address of a station.
type Target struct {
	NetNS   string     `json:"netns"`
	Name    string     `json:"name"` // "cluster/station"
	Address netip.Addr `json:"address"`
	Place   string     `json:"place"`
}

// Probe is a station, and an address of another that it sends to.
type Probe struct {
	NetNS   string `json:"netns"`
	Name    string `json:"name"`
	Cluster string `json:"cluster"`
	Target  Target `json:"target"`
}

// Targets lists the addresses of all stations.
func (w *Network) Targets() []Target {
	var all []Target
	for _, r := range w.order {
		if r.Station == "" {
			continue
		}
		for _, f := range r.Interfaces {
			place := cmp.Or(f.Cluster, OnLinks)
			for _, a := range f.Addresses {
				all = append(all, Target{r.NetNS, r.name, a.Addr(), place})
			}
		}
		for _, a := range r.Loopback {
			all = append(all, Target{r.NetNS, r.name, a.Addr(), OnLoopback})
		}
	}
	return all
}

// Probes lists every station with every address of the others that is of an IP
// version which it has itself.
func (w *Network) Probes() []Probe {
	targets := w.Targets()
	var all []Probe
	for _, r := range w.order {
		if r.Station == "" {
			continue
		}
		var has [2]bool
		for a := range r.own {
			has[version(a)] = true
		}
		for _, t := range targets {
			if has[version(t.Address)] && !r.own[t.Address] {
				all = append(all, Probe{r.NetNS, r.name, r.Cluster, t})
			}
		}
	}
	return all
}

// Way is what the stations of one cluster have in common that send to one
// place: through whom, or why not.
type Way struct {
	From string `json:"from"` // a cluster
	To   string `json:"to"`   // a place
	// Through are the nodes between.
	Through []string `json:"through"`
	OK      bool     `json:"ok"`
	Why     Why      `json:"why,omitempty"`
	At      string   `json:"at,omitempty"`   // the node where it ends too early
	Back    bool     `json:"back,omitempty"` // what ends there is the answer
	Pairs   int      `json:"pairs"`          // of a station and an address
	Example Probe    `json:"example"`
}

// Matrix is who reaches whom, by clusters.
type Matrix struct {
	From []string `json:"from"`
	To   []string `json:"to"`
	// Cells has for each of From and To how many of all pairs of a station and
	// an address reach each other.
	Cells [][]Cell `json:"cells"`
	Ways  []Way    `json:"ways"`
}

// Cell counts pairs.
type Cell struct {
	Reached int `json:"reached"`
	Pairs   int `json:"pairs"`
}

// Matrix follows every probe.
func (w *Network) Matrix() *Matrix {
	m := &Matrix{From: []string{}, To: []string{}, Ways: []Way{}}
	add := func(list *[]string, name string) {
		if !slices.Contains(*list, name) {
			*list = append(*list, name)
		}
	}
	targets := w.Targets()
	for _, r := range w.order {
		if r.Station != "" {
			add(&m.From, r.Cluster)
			add(&m.To, r.Cluster)
		}
	}
	for _, last := range []string{OnLinks, OnLoopback} {
		if slices.ContainsFunc(targets, func(t Target) bool { return t.Place == last }) {
			add(&m.To, last)
		}
	}
	for _, t := range targets { // a cluster may have visitors alone
		add(&m.To, t.Place)
	}
	row, column := index(m.From), index(m.To)
	for range m.From {
		m.Cells = append(m.Cells, make([]Cell, len(m.To)))
	}
	ways := map[string]int{}
	for _, p := range w.Probes() {
		r := w.Reach(p.NetNS, p.Target.Address)
		way := wayOf(p, r)
		cell := &m.Cells[row[p.Cluster]][column[p.Target.Place]]
		cell.Pairs++
		if way.OK {
			cell.Reached++
		}
		id := fmt.Sprint(way.From, way.To, way.Through, way.Why, way.At, way.Back)
		i, seen := ways[id]
		if !seen {
			i = len(m.Ways)
			ways[id] = i
			m.Ways = append(m.Ways, way)
		}
		m.Ways[i].Pairs++
	}
	slices.SortStableFunc(m.Ways, func(a, b Way) int {
		return cmp.Or(cmp.Compare(row[a.From], row[b.From]), cmp.Compare(column[a.To], column[b.To]))
	})
	return m
}

func index(names []string) map[string]int {
	at := map[string]int{}
	for i, n := range names {
		at[n] = i
	}
	return at
}

func wayOf(p Probe, r Reach) Way {
	way := Way{From: p.Cluster, To: p.Target.Place, Through: []string{}, OK: r.OK(), Example: p}
	for _, h := range r.There.Hops[min(1, len(r.There.Hops)):] {
		if h.NetNS != p.Target.NetNS {
			way.Through = append(way.Through, h.Name)
		}
	}
	if broken := r.Broken(); broken != nil {
		way.Why, way.Back = broken.Why, broken != &r.There
		switch {
		case broken.Why == Loop:
			way.Through = way.Through[:min(2, len(way.Through))]
		case !way.Back:
			way.Through = []string{}
		}
		// One that only the station itself differs in is no way of its own.
		if last := broken.Hops[len(broken.Hops)-1]; last.NetNS != p.NetNS && last.NetNS != p.Target.NetNS && broken.Why != Loop {
			way.At = last.Name
		}
	}
	return way
}

// Text is the matrix as a table, and the ways.
func (m *Matrix) Text() string {
	var w strings.Builder
	cells := [][]string{append([]string{"FROM"}, m.To...)}
	for i, from := range m.From {
		line := []string{from}
		for j := range m.To {
			line = append(line, m.Cells[i][j].text())
		}
		cells = append(cells, line)
	}
	table(&w, cells)
	if len(m.Ways) == 0 {
		return w.String()
	}
	fmt.Fprintln(&w)
	cells = [][]string{{"FROM", "TO", "PAIRS", "WAY"}}
	for _, way := range m.Ways {
		cells = append(cells, []string{way.From, way.To, fmt.Sprint(way.Pairs), way.text()})
	}
	table(&w, cells)
	return w.String()
}

func (c Cell) text() string {
	switch {
	case c.Pairs == 0:
		return "-"
	case c.Reached == 0:
		return "no"
	case c.Reached == c.Pairs:
		return "yes"
	}
	return fmt.Sprintf("%d/%d", c.Reached, c.Pairs)
}

func (y *Way) text() string {
	through := "direct"
	if len(y.Through) > 0 {
		through = "through " + strings.Join(y.Through, ", ")
	}
	switch {
	case y.OK:
		return through
	case y.Why == Loop:
		return "no: a loop " + through
	case y.Back && y.At != "":
		return fmt.Sprintf("no: there %s, back: %s, at %s", through, y.Why, y.At)
	case y.Back:
		return fmt.Sprintf("no: there %s, back: %s", through, y.Why)
	case y.At != "":
		return fmt.Sprintf("no: %s, at %s", y.Why, y.At)
	}
	return fmt.Sprintf("no: %s", y.Why)
}

// table writes columns as wide as what is in them.
func table(w *strings.Builder, cells [][]string) {
	var wide []int
	for _, line := range cells {
		for i, text := range line {
			if i == len(wide) {
				wide = append(wide, 0)
			}
			wide[i] = max(wide[i], len(text))
		}
	}
	for _, line := range cells {
		for i, text := range line {
			if i == len(line)-1 {
				fmt.Fprintln(w, text)
			} else {
				fmt.Fprintf(w, "%-*s  ", wide[i], text)
			}
		}
	}
}
