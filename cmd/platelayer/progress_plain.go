package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"platelayer/lifecycle"
)

// plain is the line that tells what a station has come to, "web/lb: running
// (12 ms)", or nothing: while it goes on, where there was nothing to do, and,
// unless all is wanted, where it was soon done.
func (v *view) plain(id string, all bool) string {
	s := v.stations[id]
	switch {
	case rank(s.phase) != rankDone && s.phase != lifecycle.PhaseFailed,
		s.phase == lifecycle.PhaseKept,
		!all && s.ready < longWait:
		return ""
	}
	line := fmt.Sprintf("%s: %s", s.id, s.phase)
	if s.took > 0 {
		line += " (" + brief(s.took) + ")"
	}
	if s.detail != "" {
		line += " " + s.detail
	}
	return line
}

// last is what stays of the tree: all of a small one; of a larger one, or
// after a failure, the stations that did not come to a good end.
func (v *view) last(width int, now time.Time, well, colour bool) []string {
	changed := func(s *viewStation) bool { return s.phase != "" && s.phase != lifecycle.PhaseKept }
	if well && len(v.stations) <= treeMost {
		if !slices.ContainsFunc(v.all(), changed) {
			return nil
		}
		return v.lines(width, 1<<20, now, colour)[1:]
	}
	least := rankDone
	if len(v.stations) > treeMost {
		least = 1
	}
	c := canvas{width: width, colour: colour, now: now, names: v.names(width)}
	for _, cluster := range v.clusters {
		titled := false
		for _, s := range cluster.stations {
			if rank(s.phase) >= least {
				continue
			}
			if !titled {
				c.cluster(cluster.name)
				titled = true
			}
			c.station(s)
		}
	}
	return c.lines
}

// slow names the stations that took longest, or is empty where a single one
// could be named.
func (v *view) slow() string {
	slowest := v.slowest(slowestMost)
	if len(slowest) < 2 {
		return ""
	}
	parts := make([]string, len(slowest))
	for i, s := range slowest {
		parts[i] = s.id + " " + brief(s.active)
	}
	return fmt.Sprintf("  %-10s %s", "slowest", strings.Join(parts, ", "))
}
