package main

import (
	"fmt"
	"slices"

	"platelayer/lifecycle"
)

// folding chooses what of a tree is shown in fewer lines than it has: a count
// for each cluster, and only the stations that are not done. What does not fit
// any more is counted.
type folding struct {
	left   int // lines
	closed int // clusters not shown
	open   map[*viewCluster]bool
	shown  map[*viewStation]bool
}

// fold draws the tree in height lines. Stations that failed or are at work
// come first, then those that wait, then the clusters that are done.
func (v *view) fold(c *canvas, height int) {
	f := folding{left: height, closed: len(v.clusters), open: map[*viewCluster]bool{}, shown: map[*viewStation]bool{}}
	for least := range rankDone {
		if least == rank(lifecycle.PhaseWaiting) {
			f.clusters(v.clusters, func(c *viewCluster) bool { return c.rank() < rankDone })
		}
		for _, cluster := range v.clusters {
			for _, s := range cluster.stations {
				if rank(s.phase) == least {
					f.station(cluster, s)
				}
			}
		}
	}
	f.clusters(v.clusters, func(*viewCluster) bool { return true })

	rest := "more"
	for _, cluster := range v.clusters {
		if !f.open[cluster] {
			if cluster.rank() < rankDone {
				rest = "more, not all done"
			}
			continue
		}
		c.cluster(cluster.count(f.shown))
		for _, s := range cluster.stations {
			if f.shown[s] {
				c.station(s)
			}
		}
	}
	if f.closed > 0 {
		c.line("", span{fmt.Sprintf("  and %s %s", plural(f.closed, "cluster"), rest), faint})
	}
}

func (f *folding) clusters(all []*viewCluster, which func(*viewCluster) bool) {
	for _, c := range all {
		if !f.open[c] && which(c) && f.fits(1, 1) {
			f.show(c)
		}
	}
}

func (f *folding) station(c *viewCluster, s *viewStation) {
	switch {
	case f.open[c] && f.fits(1, 0):
	case !f.open[c] && f.fits(2, 1):
		f.show(c)
	default:
		return
	}
	f.shown[s] = true
	f.left--
}

func (f *folding) show(c *viewCluster) {
	f.open[c] = true
	f.closed--
	f.left--
}

// fits is whether there is room for more lines, of which some open a cluster;
// the last line is kept for the count of those that stay closed.
func (f *folding) fits(lines, opening int) bool {
	if f.closed > opening {
		lines++
	}
	return lines <= f.left
}

// rank is that of the cluster's most telling station.
func (c *viewCluster) rank() int {
	least := rankDone
	for _, s := range c.stations {
		least = min(least, rank(s.phase))
	}
	return least
}

// count is "web: 48 of 50 running", and which of its others are not shown.
func (c *viewCluster) count(shown map[*viewStation]bool) string {
	hidden := slices.DeleteFunc(slices.Clone(c.stations), func(s *viewStation) bool { return shown[s] })
	ends := map[lifecycle.Phase]int{}
	done := 0
	for _, s := range c.stations {
		if rank(s.phase) < rankDone {
			continue
		}
		done++
		if s.phase == lifecycle.PhaseHealthy { // it runs, too
			ends[lifecycle.PhaseRunning]++
		} else {
			ends[s.phase]++
		}
	}
	end := "done"
	if len(ends) == 1 {
		for p := range ends {
			end = string(p)
		}
	}
	return fmt.Sprintf("%s: %d of %d %s", c.name, done, len(c.stations), end) + others(hidden)
}
