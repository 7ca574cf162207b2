package graph

import (
	"cmp"
	"slices"
)

// wire joins a card and a switch or another card.
type wire struct {
	from, to *card // to is nil for a switch
	box      *box  // the switch's
	hue      int
	link     bool
	title    string
	points   [][2]float64
}

// join collects what leads from one card to another or to another's switch,
// and counts the room that it needs.
func (p *picture) join(cards map[string]*card) {
	boxOf := map[string]*box{}
	for _, b := range p.boxes {
		boxOf[b.cluster.Name] = b
	}
	for _, b := range p.boxes {
		for _, r := range b.rows {
			for _, k := range r.cards {
				for _, f := range k.station.Interfaces {
					if to := boxOf[f.Cluster]; to != nil {
						p.wires = append(p.wires, &wire{from: k, box: to, hue: to.hue, title: k.station.ID() + " in " + f.Cluster})
					}
				}
			}
		}
	}
	for i := range p.t.Links {
		l := &p.t.Links[i]
		from, to := cards[l.Ends[0].Station], cards[l.Ends[1].Station]
		if from != nil && to != nil {
			p.wires = append(p.wires, &wire{from: from, to: to, link: true, title: "link " + from.station.ID() + " to " + to.station.ID()})
		}
	}
	for _, w := range p.wires {
		w.from.drops++
		from := p.rowOf(w.from)
		if w.to != nil {
			from.lanes++
			w.to.drops++
			if r := p.rowOf(w.to); r != from {
				r.lanes++
			}
		} else if _, has := from.share[w.box]; !has {
			from.share[w.box] = 0
			from.lanes++
		}
	}
}

func (p *picture) rowOf(k *card) *row {
	for _, b := range p.boxes {
		for _, r := range b.rows {
			if slices.Contains(r.cards, k) {
				return r
			}
		}
	}
	return nil
}

// bundle is wires that run down the right side as one: those to one switch. A
// link runs alone.
type bundle struct {
	wires       []*wire
	top, bottom float64
}

func (b *bundle) meets(o *bundle) bool {
	const lanes = 300 // below a card
	return b.top <= o.bottom+lanes && o.top <= b.bottom+lanes
}

func (p *picture) bundles() []*bundle {
	var all []*bundle
	to := map[*box]*bundle{}
	for _, w := range p.wires {
		if w.to != nil {
			all = append(all, &bundle{[]*wire{w}, min(w.from.y, w.to.y), max(w.from.y, w.to.y)})
			continue
		}
		b := to[w.box]
		if b == nil {
			b = &bundle{top: w.box.y, bottom: w.box.y}
			to[w.box] = b
			all = append(all, b)
		}
		b.wires = append(b.wires, w)
		b.top, b.bottom = min(b.top, w.from.y), max(b.bottom, w.from.y)
	}
	slices.SortStableFunc(all, func(a, b *bundle) int { return cmp.Compare(a.bottom-a.top, b.bottom-b.top) })
	return all
}

// route leads wires below their cards and down the right side, the short ones
// next to the boxes.
func (p *picture) route() {
	edge := 0.0
	for _, b := range p.boxes {
		edge = max(edge, b.right())
	}
	var channels [][]*bundle // each of some that do not meet
	hues := 0
	for _, b := range p.bundles() {
		if w := b.wires[0]; w.link {
			w.hue = hues
			hues++
			if p.rowOf(w.to) == p.rowOf(w.from) {
				x1, y := p.leave(w.from, nil)
				x2, _ := w.to.drop()
				w.points = [][2]float64{{x1, w.from.bottom()}, {x1, y}, {x2, y}, {x2, w.to.bottom()}}
				continue
			}
		}
		at := slices.IndexFunc(channels, func(all []*bundle) bool { return !slices.ContainsFunc(all, b.meets) })
		if at < 0 {
			at = len(channels)
			channels = append(channels, nil)
		}
		channels[at] = append(channels[at], b)
		x := edge + 14 + 10*float64(at)
		p.w = max(p.w, x+margin)
		for _, w := range b.wires {
			p.lead(w, x)
		}
	}
}

// lead draws a wire by way of x.
func (p *picture) lead(w *wire, x float64) {
	x1, y1 := p.leave(w.from, w.box)
	w.points = [][2]float64{{x1, w.from.bottom()}, {x1, y1}, {x, y1}}
	if w.to != nil {
		x2, y2 := p.leave(w.to, nil)
		w.points = append(w.points, [2]float64{x, y2}, [2]float64{x2, y2}, [2]float64{x2, w.to.bottom()})
		return
	}
	y, end := w.box.bottom()-boxPad-10, w.box.x+boxPad
	if len(w.box.rows) > 0 {
		r := w.box.rows[0]
		y, end = r.bus, r.cards[len(r.cards)-1].middle()
	}
	w.points = append(w.points, [2]float64{x, y}, [2]float64{end, y})
}

// leave is where the next wire of a card leaves it, and its lane: those of a row
// to one switch have one.
func (p *picture) leave(k *card, to *box) (x, lane float64) {
	x, _ = k.drop()
	r := p.rowOf(k)
	if lane = r.share[to]; lane > 0 {
		return x, lane
	}
	lane = r.under + laneGap*float64(r.used)
	r.used++
	if to != nil {
		r.share[to] = lane
	}
	return x, lane
}

// drop is the next place at a card's lower edge.
func (k *card) drop() (x, y float64) {
	gap := min(14, (k.w-20)/float64(max(1, k.drops)))
	x = k.middle() + gap*(float64(k.used)-float64(k.drops-1)/2)
	k.used++
	return x, k.bottom()
}
