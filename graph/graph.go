// Package graph draws a topology: as SVG with a layout of its own, and as text
// for Mermaid and Graphviz. It is pure and deterministic.
package graph

import (
	"net/netip"

	"platelayer/topology"
)

// Options say how to draw.
type Options struct {
	Dark bool
	// States has what is known of stations that run, by "cluster/station".
	States map[string]State
	// Routed are the subnets that the machine gets routes to.
	Routed []netip.Prefix
}

// State is a word beside a station's name, in a colour.
type State struct {
	Word string
	Tone Tone
}

// Tone is what a state's colour says.
type Tone int

// The tones.
const (
	Idle Tone = iota
	Good
	Busy
	Bad
)

// SVG draws a topology: the backbone at the top, below what leads to it from the
// machine, with its line down the left side, a box for each cluster with its switch as a line, below which its
// stations hang, and what joins stations across clusters on the right side.
func SVG(t *topology.Topology, o Options) string {
	p := place(t, o)
	return p.svg(paletteOf(o.Dark))
}
