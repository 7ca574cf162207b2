package netplan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Why says why a packet does not arrive.
type Why string

// The reasons, each of the last node of a path.
const (
	NoRoute     Why = "no route"
	Blackhole   Why = "route of type blackhole"
	Unreachable Why = "route of type unreachable"
	Prohibited  Why = "route of type prohibit"
	NotForward  Why = "does not forward"
	Isolated    Why = "the clusters are kept apart"
	Nobody      Why = "nobody has the next hop"
	NoAddress   Why = "no address of that IP version"
	Loop        Why = "a loop"
	OwnAddress  Why = "the sender's address is its own"
	OtherVLAN   Why = "the next hop is in another VLAN"
	Filtered    Why = "rp_filter"
	// Outside is of what no node has: egress decides.
	Outside Why = "it is outside"
)

// Hop is a node that a packet passes.
type Hop struct {
	NetNS string `json:"netns"`
	Name  string `json:"name"`          // "cluster/station", or "backbone"
	In    string `json:"in,omitempty"`  // "" at the sender
	Out   string `json:"out,omitempty"` // "" where the path ends
	// Wire is what Out is on: the cluster, or "" for a link.
	Wire string     `json:"wire,omitempty"`
	Next netip.Addr `json:"next,omitzero"` // the address it is sent to there
}

// Path is the way of a packet, and of what answers it where it is the way back.
type Path struct {
	From netip.Addr `json:"from,omitzero"` // invalid where the sender has none
	To   netip.Addr `json:"to"`
	Hops []Hop      `json:"hops"`
	// Why is "" where the packet arrives.
	Why Why `json:"why,omitempty"`
}

// Reach is whether a node reaches an address: there and back.
type Reach struct {
	There Path  `json:"there"`
	Back  *Path `json:"back,omitempty"` // nil where nothing arrives, be it outside
}

// OK tells whether an answer comes back.
func (r *Reach) OK() bool { return r.There.Why == "" && r.Back != nil && r.Back.Why == "" }

// Leaves tells whether what is outside can answer, where egress lets it.
func (r *Reach) Leaves() bool { return r.There.Why == Outside && r.Back.Why == "" }

// Broken is the path that ends too early; nil where none does.
func (r *Reach) Broken() *Path {
	switch {
	case r.There.Why != "":
		return &r.There
	case r.Back.Why != "":
		return r.Back
	}
	return nil
}

// hopLimit is what the kernel gives a packet (RFC 1340, net.ipv4.ip_default_ttl).
const hopLimit = 64

// Reach follows what a node sends to an address, and the answer.
func (w *Network) Reach(netns string, to netip.Addr) Reach {
	from := w.nodes[netns]
	if from == nil {
		return Reach{There: Path{To: to, Hops: []Hop{}, Why: NoAddress}}
	}
	there, end := w.walk(from, netip.Addr{}, to)
	r := Reach{There: there}
	if there.Why == "" || there.Why == Outside {
		back, _ := w.walk(end, to, there.From)
		r.Back = &back
	}
	return r
}

// Elsewhere follows what a node sends to where no node is. The address stands
// for all others: the first of those tried that the plan has no place for and
// that is of an IP version of the node's.
func (w *Network) Elsewhere(netns string) Reach {
	for _, text := range []string{"198.18.0.1", "100.64.0.1", "203.0.113.1", "198.51.100.1", "3fff::1", "2001:db8::1", "fdff::1"} {
		to := netip.MustParseAddr(text)
		if slices.ContainsFunc(w.order, func(r *router) bool { return r.Station == "" && !r.diverts(to) }) {
			continue
		}
		if r := w.Reach(netns, to); r.There.Why != NoAddress {
			return r
		}
	}
	return Reach{There: Path{Why: NoRoute}}
}

// walk follows one packet, and returns where it ends. An invalid src is left to
// the sender's kernel.
func (w *Network) walk(at *router, src, dst netip.Addr) (Path, *router) {
	p := Path{From: src, To: dst}
	in := ""
	for range hopLimit {
		h := Hop{NetNS: at.NetNS, Name: at.name, In: in}
		stop := func(why Why) (Path, *router) {
			p.Hops, p.Why = append(p.Hops, h), why
			return p, at
		}
		switch {
		case in != "" && src.Is4() && at.own[src]:
			return stop(OwnAddress)
		case in != "" && !at.passes(in, src, dst):
			return stop(Filtered)
		case at.own[dst]:
			if in == "" && !src.IsValid() {
				p.From = dst
			}
			return stop("")
		case in != "" && !at.forwards[version(dst)]:
			return stop(NotForward)
		case in != "" && at.diverts(dst):
			return stop(Outside)
		}
		e, ok := at.lookup(src, dst)
		if !ok {
			return stop(NoRoute)
		}
		if e.Type != "" {
			return stop(whyOf(e.Type))
		}
		if !src.IsValid() {
			if src = at.source(e, dst); !src.IsValid() {
				return stop(NoAddress)
			}
			p.From = src
		}
		h.Out, h.Next = e.Dev, dst
		if e.Via.IsValid() {
			h.Next = e.Via
		}
		for _, f := range at.Interfaces {
			if f.Name == e.Dev {
				h.Wire = f.Cluster
			}
		}
		if at.apart[Pair{in, e.Dev}] {
			return stop(Isolated)
		}
		next := w.neighbour(at.wire[e.Dev], h.Next, at)
		switch {
		case next == nil && w.neighbour(at.bridge[e.Dev], h.Next, at) != nil:
			return stop(OtherVLAN)
		case next == nil:
			return stop(Nobody)
		}
		p.Hops = append(p.Hops, h)
		at, in = next.at, next.name
	}
	p.Why = Loop
	return p, at
}

func version(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

// Text is the path, a line for each node of it.
func (p *Path) Text() string {
	var w strings.Builder
	wide := 0
	hops := p.Hops
	const most = 8 // of a loop
	if p.Why == Loop {
		hops = hops[:min(most, len(hops))]
	}
	for _, h := range hops {
		wide = max(wide, len(h.Name))
	}
	for i, h := range hops {
		fmt.Fprintf(&w, "  %-*s", wide, h.Name)
		if h.In != "" {
			fmt.Fprintf(&w, "  in %s", h.In)
		}
		if h.Out != "" {
			on := "a link"
			if h.Wire != "" {
				on = h.Wire
			}
			fmt.Fprintf(&w, "  out %s to %s on %s", h.Out, h.Next, on)
		}
		if i == len(hops)-1 && p.Why != "" {
			fmt.Fprintf(&w, "  ends here: %s", p.Why)
		}
		fmt.Fprintln(&w)
	}
	return w.String()
}

// Text is both paths.
func (r *Reach) Text() string {
	text := fmt.Sprintf("%s %s\n%s", r.There.To, r.verdict(), r.There.Text())
	if r.Back != nil {
		text += fmt.Sprintf("and back to %s\n%s", r.Back.To, r.Back.Text())
	}
	return text
}

func (r *Reach) verdict() string {
	broken := r.Broken()
	switch {
	case broken == nil:
		return "is reached"
	case r.Leaves():
		return "is outside"
	case r.There.Why == Outside:
		return "is outside, but no answer comes back: " + string(r.Back.Why)
	case broken == &r.There:
		return "is not reached: " + string(broken.Why)
	}
	return "is reached, but no answer comes back: " + string(broken.Why)
}
