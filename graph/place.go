package graph

import (
	"slices"

	"platelayer/topology"
)

// All lengths are in pixels of the picture.
const (
	margin     = 24
	spineX     = margin + 18
	boxX       = spineX + 44
	boxGap     = 22
	boxPad     = 18
	cardGap    = 16
	rowMost    = 1240 // a row of cards is wider only where one card is
	rowCards   = 8
	lineHeight = 17
	laneGap    = 9
	busDrop    = 20 // from a switch's line to its cards
)

type rect struct{ x, y, w, h float64 }

func (r rect) right() float64  { return r.x + r.w }
func (r rect) bottom() float64 { return r.y + r.h }
func (r rect) middle() float64 { return r.x + r.w/2 }

// box is a cluster.
type box struct {
	rect
	cluster *topology.Cluster
	hue     int
	name    []string
	about   [][]line // in rows
	rows    []*row
}

// row is a line of a switch with cards below it, and lanes below those.
type row struct {
	cards []*card
	bus   float64 // y
	lanes int
	used  int
	under float64          // y of the first lane
	share map[*box]float64 // the lanes of wires to a switch, by the switch's box
}

// picture is all that is drawn, each thing with its place.
type picture struct {
	t        *topology.Topology
	machine  rect
	passages []passage
	leads    bool // the backbone, somewhere
	backbone rect
	said     string // in the backbone
	boxes    []*box
	wires    []*wire
	spine    float64 // y where the backbone's line ends
	w, h     float64
}

func place(t *topology.Topology, o Options) *picture {
	p := &picture{t: t, said: "routes between the clusters, answers DNS"}
	if !t.LetsOut() {
		p.said += "; nothing leaves the machine"
	}
	p.leads = slices.ContainsFunc(t.Clusters, func(c topology.Cluster) bool { return c.Connected() })
	if p.leads {
		p.passages = passages(t, o)
	}
	cards := map[string]*card{}
	for i := range t.Clusters {
		c := &t.Clusters[i]
		b := &box{cluster: c, hue: i}
		var all []*card
		for _, s := range ordered(c) {
			k := cardOf(t, c, s, o)
			k.size()
			cards[s.ID()] = k
			all = append(all, k)
		}
		b.fill(t, all)
		p.boxes = append(p.boxes, b)
	}
	p.join(cards)
	p.stack()
	p.route()
	return p
}

// fill sorts cards into rows: those of a box are of one width, so that they
// stand in columns.
func (b *box) fill(t *topology.Topology, all []*card) {
	wide := 0.0
	for _, k := range all {
		wide = max(wide, k.w)
	}
	for _, k := range all {
		k.w = wide
	}
	columns := max(1, min(rowCards, int((rowMost+cardGap)/(wide+cardGap))))
	if n := len(all); n > 0 {
		rows := (n + columns - 1) / columns
		columns = (n + rows - 1) / rows
	}
	for part := range slices.Chunk(all, columns) {
		r := &row{cards: part, share: map[*box]float64{}}
		tall := 0.0
		for _, k := range part {
			tall = max(tall, k.h)
		}
		for _, k := range part {
			k.h = tall
		}
		b.rows = append(b.rows, r)
	}
	name, about := heading(t, b.cluster)
	b.name = name
	b.w = 2*boxPad + float64(min(columns, len(all)))*(wide+cardGap) - cardGap
	for _, text := range name {
		b.w = max(b.w, 2*boxPad+headFont.width(text))
	}
	most := max(b.w-2*boxPad, 600)
	used := most
	for _, l := range about {
		if used+itemGap+l.width() > most {
			b.about = append(b.about, nil)
			used = -itemGap
		}
		used += itemGap + l.width()
		last := &b.about[len(b.about)-1]
		*last = append(*last, l)
		b.w = max(b.w, 2*boxPad+used)
	}
}

const itemGap = 18

func (l line) width() float64 {
	w := 0.0
	if l.left != "" {
		w = l.font.width(l.left)
	}
	if l.right != "" {
		if w > 0 {
			w += 6
		}
		w += addressFont.width(l.right)
	}
	return w
}

// stack gives the boxes their places, one below the other.
func (p *picture) stack() {
	y := float64(46 + margin - 6)
	p.machine, p.backbone = rect{x: margin, y: y}, rect{x: margin, y: y}
	if lines := p.passageLines(); len(lines) > 0 {
		p.machine.w, p.machine.h = 2*16+headFont.width("the machine"), 41+lineHeight*float64(len(lines))
		for _, l := range lines {
			p.machine.w = max(p.machine.w, 2*16+arrowRoom+plainFont.width(l.text))
		}
		y = p.machine.bottom() + boxGap
	}
	if p.leads {
		p.backbone = rect{margin, y, 2*16 + max(headFont.width("backbone"), plainFont.width(p.said)), 58}
		y = p.backbone.bottom() + boxGap
	}
	for _, b := range p.boxes {
		b.x, b.y = boxX, y
		if !p.leads {
			b.x = margin
		}
		y += boxPad - 4 + 20*float64(len(b.name)) + lineHeight*float64(len(b.about))
		for _, r := range b.rows {
			r.bus = y + 16
			x := b.x + boxPad
			for _, k := range r.cards {
				k.x, k.y = x, r.bus+busDrop
				x += k.w + cardGap
			}
			r.under = r.cards[0].bottom() + 12
			y = r.cards[0].bottom()
			if r.lanes > 0 {
				y = r.under + laneGap*float64(r.lanes)
			}
		}
		if len(b.rows) == 0 {
			y += 26
		}
		b.h = y + boxPad - b.y
		y = b.bottom() + boxGap
		p.w = max(p.w, b.right())
		if b.cluster.Connected() {
			p.spine = b.inlet()
		}
	}
	p.w = max(p.w, p.machine.right(), p.backbone.right())
	p.machine.w, p.backbone.w = p.w-p.machine.x, p.w-p.backbone.x
	for _, b := range p.boxes { // of one width
		b.w = p.w - b.x
	}
	p.w = max(p.w+margin, 2*margin+titleFont.width(p.t.Name)+plainFont.width(p.summary())+20)
	p.h = y - boxGap + margin
}

// passageLine is a line of text in the machine's box; one that begins a passage
// has an arrow before it.
type passageLine struct {
	passage
	first bool
}

const arrowRoom = 20

func (p *picture) passageLines() []passageLine {
	var all []passageLine
	for _, way := range p.passages {
		for i, text := range wrap(way.text, widest) {
			all = append(all, passageLine{passage{text, way.outward}, i == 0})
		}
	}
	return all
}

// inline tells whether the cluster's gateway stands between it and the backbone.
func (b *box) inline() bool { return len(b.rows) > 0 && b.rows[0].cards[0].inline }

// inlet is the y at which the backbone's line enters the box: at the switch, or
// at the card of an inline gateway.
func (b *box) inlet() float64 {
	if len(b.rows) == 0 {
		return b.bottom() - boxPad - 10
	}
	if b.inline() {
		return b.rows[0].cards[0].y + b.rows[0].cards[0].h/2
	}
	return b.rows[0].bus
}
