package graph

import (
	"fmt"
	"math"
	"strings"
)

// drawing writes SVG elements.
type drawing struct {
	strings.Builder
	palette
}

const (
	plainFamily = "system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
	monoFamily  = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
)

// svg draws what has its place: boxes first, then lines, then what is written.
func (p *picture) svg(c palette) string {
	d := &drawing{palette: c}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" width="%s" height="%s" viewBox="0 0 %s %s" role="img" aria-labelledby="title desc" font-family="%s">`+"\n",
		num(p.w), num(p.h), num(p.w), num(p.h), escape(plainFamily))
	fmt.Fprintf(d, "<title id=\"title\">The network of %s</title>\n<desc id=\"desc\">%s</desc>\n", escape(p.t.Name), escape(p.describe()))
	fmt.Fprintf(d, "<rect width=\"%s\" height=\"%s\" fill=\"%s\"/>\n", num(p.w), num(p.h), c.ground)
	d.text(margin, margin+18, p.t.Name, titleFont, c.text)
	d.text(margin+titleFont.width(p.t.Name)+16, margin+18, p.summary(), plainFont, c.muted)
	for _, b := range p.boxes {
		d.rect(b.rect, 10, c.box, c.edge, 1)
	}
	d.machine(p)
	d.backbone(p)
	for _, b := range p.boxes {
		d.wiring(b)
	}
	for _, b := range p.boxes {
		d.box(b)
	}
	for _, w := range p.wires {
		d.wire(w)
	}
	d.WriteString("</svg>\n")
	return d.String()
}

// machine is what is around the topology: a line leads from it to the backbone.
func (d *drawing) machine(p *picture) {
	if p.machine.h == 0 {
		return
	}
	d.line(3, d.spine, "3 4", [2]float64{spineX, p.machine.bottom()}, [2]float64{spineX, p.backbone.y})
	d.rect(p.machine, 10, d.ground, d.edge, 1)
	d.text(p.machine.x+16, p.machine.y+24, "the machine", headFont, d.palette.text)
	for i, l := range p.passageLines() {
		x, y := p.machine.x+16, p.machine.y+43+lineHeight*float64(i)
		if l.first {
			d.arrow(x+5, y-9, y+1, l.outward)
		}
		d.text(x+arrowRoom, y, l.text, plainFont, d.muted)
	}
}

// arrow points down, or up.
func (d *drawing) arrow(x, top, bottom float64, up bool) {
	tip, wing := bottom, bottom-4
	if up {
		tip, wing = top, top+4
	}
	fmt.Fprintf(d, "<path d=\"M%s %sL%s %sM%s %sL%s %sL%s %s\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" stroke-linecap=\"round\" stroke-linejoin=\"round\"/>\n",
		num(x), num(top), num(x), num(bottom), num(x-4), num(wing), num(x), num(tip), num(x+4), num(wing), d.spine)
}

func (d *drawing) backbone(p *picture) {
	if !p.leads {
		return
	}
	if p.spine > 0 {
		d.line(5, d.spine, "", [2]float64{spineX, p.backbone.bottom() - 4}, [2]float64{spineX, p.spine})
	}
	for _, b := range p.boxes {
		if !b.cluster.Connected() {
			continue
		}
		dash := ""
		if b.cluster.Isolated {
			dash = "5 5"
		}
		y := b.inlet()
		to := b.x + boxPad - 8
		if b.inline() {
			to = b.rows[0].cards[0].x
		}
		d.line(3, d.spine, dash, [2]float64{spineX, y}, [2]float64{to, y})
		d.dot(spineX, y, 5, d.spine)
	}
	d.rect(p.backbone, 10, d.card, d.spine, 2)
	d.text(p.backbone.x+16, p.backbone.y+24, "backbone", headFont, d.palette.text)
	d.text(p.backbone.x+16, p.backbone.y+44, p.said, plainFont, d.muted)
}

// wiring is a cluster's switch: a line above each row of cards. The rows are
// joined on the left side, or on the right one where an inline gateway has the
// left for itself.
func (d *drawing) wiring(b *box) {
	hue := d.hue(b.hue)
	side := b.x + boxPad - 8
	if b.inline() {
		side = b.rows[0].cards[len(b.rows[0].cards)-1].right() + 8
	}
	for i, r := range b.rows {
		from, to := r.cards[0].middle(), r.cards[len(r.cards)-1].middle()
		if len(b.rows) > 1 || b.cluster.Connected() && !b.inline() {
			from, to = min(from, side), max(to, side)
		}
		d.line(4, hue, "", [2]float64{from, r.bus}, [2]float64{to, r.bus})
		for _, k := range r.cards {
			d.line(2, hue, "", [2]float64{k.middle(), r.bus}, [2]float64{k.middle(), k.y})
		}
		if i > 0 {
			d.line(4, hue, "", [2]float64{side, b.rows[i-1].bus}, [2]float64{side, r.bus})
		}
	}
	if len(b.rows) == 0 {
		y := b.bottom() - boxPad - 10
		d.line(4, hue, "", [2]float64{side, y}, [2]float64{b.right() - boxPad, y})
	}
}

func (d *drawing) wire(w *wire) {
	colour, dash := d.hue(w.hue), ""
	if w.link {
		colour, dash = d.link(w.hue), "7 3"
	}
	fmt.Fprintf(d, "<g><title>%s</title>\n", escape(w.title))
	d.line(2, colour, dash, w.points...)
	ends := [][2]float64{w.points[0], w.points[len(w.points)-1]}
	for _, e := range ends {
		d.dot(e[0], e[1], 3.5, colour)
	}
	d.WriteString("</g>\n")
}

func (d *drawing) box(b *box) {
	hue := d.hue(b.hue)
	fmt.Fprintf(d, "<g><title>cluster %s</title>\n", escape(b.cluster.Name))
	y := b.y + boxPad - 4
	for _, text := range b.name {
		d.text(b.x+boxPad, y+14, text, headFont, hue)
		y += 20
	}
	for _, items := range b.about {
		x := b.x + boxPad
		for _, l := range items {
			d.item(x, y+12, l, hue)
			x += l.width() + itemGap
		}
		y += lineHeight
	}
	for _, r := range b.rows {
		for _, k := range r.cards {
			d.station(k, hue)
		}
	}
	d.WriteString("</g>\n")
}

func (d *drawing) item(x, y float64, l line, hue string) {
	colour := map[role]string{strong: d.palette.text, muted: d.muted, tinted: hue}[l.role]
	if l.left != "" {
		d.text(x, y, l.left, l.font, colour)
		x += l.font.width(l.left) + 6
	}
	if l.right != "" {
		d.text(x, y, l.right, addressFont, d.palette.text)
	}
}

func (d *drawing) station(k *card, hue string) {
	fmt.Fprintf(d, "<g><title>%s</title>\n", escape(k.station.ID()+" "+k.state.Word))
	edge, width := d.edge, 1.0
	if k.gateway {
		edge, width = hue, 2
	}
	d.rect(k.rect, 7, d.card, edge, width)
	for i, l := range k.lines {
		y := k.y + 8 + lineHeight*float64(i) + 13
		colour := map[role]string{strong: d.palette.text, muted: d.muted, tinted: hue}[l.role]
		d.text(k.x+12, y, l.left, l.font, colour)
		switch {
		case l.close:
			d.text(k.x+12+l.font.width(l.left)+6, y, l.right, addressFont, d.palette.text)
		case l.right != "" && l.left == "" && k.plain():
			d.text(k.x+12, y, l.right, addressFont, d.palette.text)
		case l.right != "":
			d.ends(k.right()-12, y, l.right, addressFont, d.palette.text)
		}
	}
	if k.state.Word != "" {
		tone := d.tones[k.state.Tone]
		y := k.y + 8 + 13
		d.ends(k.right()-12, y, k.state.Word, plainFont, tone)
	}
	d.WriteString("</g>\n")
}

// plain tells whether the card's addresses have no names before them.
func (k *card) plain() bool {
	for _, l := range k.lines {
		if l.right != "" && l.left != "" && !l.close {
			return false
		}
	}
	return true
}

func (d *drawing) rect(r rect, radius float64, fill, stroke string, width float64) {
	fmt.Fprintf(d, "<rect x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\" rx=\"%s\" fill=\"%s\" stroke=\"%s\" stroke-width=\"%s\"/>\n",
		num(r.x), num(r.y), num(r.w), num(r.h), num(radius), fill, stroke, num(width))
}

func (d *drawing) dot(x, y, radius float64, fill string) {
	fmt.Fprintf(d, "<circle cx=\"%s\" cy=\"%s\" r=\"%s\" fill=\"%s\"/>\n", num(x), num(y), num(radius), fill)
}

// line has round corners.
func (d *drawing) line(width float64, stroke, dash string, points ...[2]float64) {
	var path strings.Builder
	fmt.Fprintf(&path, "M%s %s", num(points[0][0]), num(points[0][1]))
	for i := 1; i < len(points); i++ {
		at := points[i]
		if i == len(points)-1 {
			fmt.Fprintf(&path, "L%s %s", num(at[0]), num(at[1]))
			break
		}
		before, behind := towards(at, points[i-1]), towards(at, points[i+1])
		fmt.Fprintf(&path, "L%s %sQ%s %s %s %s", num(before[0]), num(before[1]), num(at[0]), num(at[1]), num(behind[0]), num(behind[1]))
	}
	if dash != "" {
		dash = fmt.Sprintf(" stroke-dasharray=%q", dash)
	}
	fmt.Fprintf(d, "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"%s\" stroke-linecap=\"round\"%s/>\n", path.String(), stroke, num(width), dash)
}

// towards is the point on the way from a corner to another where its rounding
// begins.
func towards(at, other [2]float64) [2]float64 {
	const radius = 7
	dx, dy := other[0]-at[0], other[1]-at[1]
	length := math.Hypot(dx, dy)
	if length == 0 {
		return at
	}
	r := min(radius, length/2)
	return [2]float64{at[0] + dx/length*r, at[1] + dy/length*r}
}

func (d *drawing) text(x, y float64, text string, f font, fill string) {
	d.write(x, y, text, f, fill, "")
}

// ends is a text that ends at x.
func (d *drawing) ends(x, y float64, text string, f font, fill string) {
	d.write(x, y, text, f, fill, ` text-anchor="end"`)
}

func (d *drawing) write(x, y float64, text string, f font, fill, more string) {
	if text == "" {
		return
	}
	if f.mono {
		more += fmt.Sprintf(` font-family="%s"`, escape(monoFamily))
	}
	if f.bold {
		more += ` font-weight="600"`
	}
	fmt.Fprintf(d, "<text x=\"%s\" y=\"%s\" font-size=\"%s\" fill=\"%s\"%s>%s</text>\n", num(x), num(y), num(f.size), fill, more, escape(text))
}

// num is a length with at most one decimal.
func num(v float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
}

func escape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(text)
}
