package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"platelayer/lifecycle"
	"platelayer/topology"
)

// view is what is known of the stations that a command works on. It is told
// everything, and shows it as lines of text.
type view struct {
	topology, verb string
	began          time.Time
	clusters       []*viewCluster
	stations       map[string]*viewStation
	steps          []lifecycle.Progress
}

type viewCluster struct {
	name     string
	stations []*viewStation
}

type viewStation struct {
	id, name string
	phase    lifecycle.Phase
	detail   string
	since    time.Time     // when the phase began
	took     time.Duration // the phase before this one
	active   time.Duration // all phases but waiting
	ready    time.Duration // all phases after preparing
}

func newView(topology, verb string, now time.Time) *view {
	return &view{topology: topology, verb: verb, began: now, stations: map[string]*viewStation{}}
}

// tell takes in what has happened; notices are not the view's.
func (v *view) tell(p lifecycle.Progress, now time.Time) {
	for _, id := range p.Stations {
		v.station(id, now)
	}
	if p.Step != "" {
		v.steps = append(v.steps, p)
	}
	if p.Station != "" {
		v.station(p.Station, now).turn(p, now)
	}
}

// station finds a station or adds it.
func (v *view) station(id string, now time.Time) *viewStation {
	if s := v.stations[id]; s != nil {
		return s
	}
	cluster, name, ok := strings.Cut(id, "/")
	if !ok { // the backbone is in none
		cluster, name = v.topology, id
	}
	s := &viewStation{id: id, name: name, since: now}
	v.stations[id] = s
	for _, c := range v.clusters {
		if c.name == cluster {
			c.stations = append(c.stations, s)
			return s
		}
	}
	v.clusters = append(v.clusters, &viewCluster{cluster, []*viewStation{s}})
	return s
}

// turn begins the station's next phase.
func (s *viewStation) turn(p lifecycle.Progress, now time.Time) {
	s.detail = printable(p.Detail)
	if s.phase == p.Phase { // only what it waits for is another
		return
	}
	took := p.Took
	if took == 0 && s.phase != "" {
		took = now.Sub(s.since)
	}
	if s.phase != lifecycle.PhaseWaiting {
		s.active += took
	}
	if s.phase != lifecycle.PhasePreparing {
		s.ready += took
	}
	s.phase, s.since, s.took = p.Phase, now, took
}

// rank orders phases by how much they have to tell: failed, at work, waiting,
// preparing, at an end.
func rank(p lifecycle.Phase) int {
	switch p {
	case lifecycle.PhaseFailed:
		return 0
	case lifecycle.PhaseStartup, lifecycle.PhaseStarting, lifecycle.PhaseStopping:
		return 1
	case lifecycle.PhaseWaiting:
		return 2
	case lifecycle.PhasePreparing, "":
		return 3
	}
	return rankDone
}

const rankDone = 4 // running, healthy, stopped, removed or unchanged

// lines shows the present state in at most height lines of at most width
// columns each. Where the tree is taller, see folded.
func (v *view) lines(width, height int, now time.Time, colour bool) []string {
	c := canvas{width: width, colour: colour, now: now, names: v.names(width)}
	c.line("", span{v.verb + " " + v.topology, bold}, span{"  " + counting(now.Sub(v.began)) + "  ", faint}, span{v.summary(), ""})
	if 1+len(v.clusters)+len(v.stations) > height {
		v.fold(&c, height-1)
	} else {
		for _, cluster := range v.clusters {
			c.cluster(cluster.name)
			for _, s := range cluster.stations {
				c.station(s)
			}
		}
	}
	return c.lines[:min(len(c.lines), max(height, 1))]
}

// names is the width of the stations' names.
func (v *view) names(width int) int {
	names, most := 0, max(min(24, width/3), 1)
	for _, s := range v.stations {
		names = max(names, min(len(s.name), most))
	}
	return names
}

// summary counts the stations: "2 of 4 done, 1 failed, 1 waiting".
func (v *view) summary() string {
	all := v.all()
	if len(all) == 0 {
		return ""
	}
	done := count(all, func(s *viewStation) bool { return rank(s.phase) == rankDone })
	return fmt.Sprintf("%d of %d done", done, len(all)) + others(all)
}

// all gives the stations in the order of the tree.
func (v *view) all() []*viewStation {
	var all []*viewStation
	for _, c := range v.clusters {
		all = append(all, c.stations...)
	}
	return all
}

// others counts what is not at a good end: ", 1 failed, 3 waiting".
func others(all []*viewStation) string {
	text := ""
	for _, p := range []lifecycle.Phase{lifecycle.PhaseFailed, lifecycle.PhaseStartup, lifecycle.PhaseStarting,
		lifecycle.PhaseStopping, lifecycle.PhaseWaiting, lifecycle.PhasePreparing} {
		if n := count(all, func(s *viewStation) bool { return s.phase == p }); n > 0 {
			text += fmt.Sprintf(", %d %s", n, p)
		}
	}
	return text
}

func count(all []*viewStation, is func(*viewStation) bool) int {
	n := 0
	for _, s := range all {
		if is(s) {
			n++
		}
	}
	return n
}

// slowest gives the stations that took longest, without their waiting for
// others.
func (v *view) slowest(most int) []*viewStation {
	all := slices.DeleteFunc(v.all(), func(s *viewStation) bool { return s.active == 0 })
	slices.SortStableFunc(all, func(a, b *viewStation) int { return cmp.Compare(b.active, a.active) })
	return all[:min(len(all), most)]
}

// canvas collects lines and keeps them within its width.
type canvas struct {
	width  int
	names  int // columns for the stations' names
	colour bool
	now    time.Time
	lines  []string
}

// span is text in one colour.
type span struct {
	text   string
	colour colour
}

// line adds a line, cut where it is too long; the end is kept whole or, where
// little else would be left, goes.
func (c *canvas) line(end string, spans ...span) {
	if c.width-len(end) < 16 {
		end = ""
	}
	room := max(c.width-len(end), 1)
	total := 0
	for i, s := range spans {
		if !c.colour {
			spans[i].colour = ""
		}
		total += len([]rune(s.text))
	}
	text := ""
	for _, s := range spans {
		runes := []rune(s.text)
		if total > room && len(runes) >= room {
			// What follows may be blank, but what is cut must show.
			text += s.colour.paint(string(runes[:room-1])) + "…"
			room = 0
			break
		}
		text += s.colour.paint(s.text)
		room -= len(runes)
		total -= len(runes)
	}
	if c.colour {
		end = faint.paint(end)
	}
	c.lines = append(c.lines, strings.TrimRight(text, " ")+end)
}

func (c *canvas) cluster(text string) { c.line("", span{"  " + text, ""}) }

// station adds a station's line: its name, what it does and for how long, or
// how long what it did last took.
func (c *canvas) station(s *viewStation) {
	end := ""
	switch took := s.took; {
	case rank(s.phase) != rankDone && s.phase != lifecycle.PhaseFailed:
		end = " " + counting(c.now.Sub(s.since))
	case took > 0:
		end = " " + brief(took)
	}
	what := string(s.phase)
	if what == "" {
		end = ""
	}
	detail := ""
	if s.detail != "" {
		detail = " " + s.detail
	}
	name := s.name
	if len(name) > c.names {
		name = name[:c.names-1] + "…"
	}
	c.line(end, span{fmt.Sprintf("    %-*s  ", c.names, name), ""}, span{what, phaseColour(s.phase)}, span{detail, ""})
}

func phaseColour(p lifecycle.Phase) colour {
	switch rank(p) {
	case 0:
		return red
	case rankDone:
		return green
	}
	return yellow
}

// counting is a time that still runs; it changes only every tenth of a second.
func counting(d time.Duration) string {
	if d >= time.Minute {
		return brief(d)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// brief is a time with two or three digits: 0.4 ms, 12 ms, 1.2 s, 2 min 05 s.
func brief(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 9.95:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 999.5:
		return fmt.Sprintf("%.0f ms", ms)
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	d = d.Truncate(time.Second)
	return fmt.Sprintf("%d min %02d s", d/time.Minute, d%time.Minute/time.Second)
}

// harmless writes what could steer a terminal as in Go, but for the ends of
// lines: a text may quote what a station said.
func harmless(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = topology.OneLine(line)
	}
	return strings.Join(lines, "\n")
}

// printable gives text of which each rune is one column.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || unicode.IsMark(r) || r >= 0x1100 {
			return '?'
		}
		return r
	}, text)
}
