package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
)

// transferView is what is known of the blobs that a command moves, of one image
// or several. What images share is shown once, with the first.
type transferView struct {
	verb   string
	began  time.Time
	images []*transferImage
	blobs  map[v1.Hash]*transferBlob
	rates  []transferRate // of the last seconds
}

type transferImage struct {
	name  string
	began time.Time
	own   []*transferBlob
	all   map[*transferBlob]bool
	moved int64 // bytes
}

type transferBlob struct {
	digest v1.Hash
	stage  image.Stage
	done   int64 // bytes of the stage
	total  int64
	seen   int64 // bytes when it was first told of: they came before
	moved  int64
	since  time.Time
}

type transferRate struct {
	at    time.Time
	moved int64
}

func newTransferView(verb string, now time.Time) *transferView {
	return &transferView{verb: verb, began: now, blobs: map[v1.Hash]*transferBlob{}}
}

// moving tells whether a blob's bytes pass in a stage, and atWork whether
// a blob in it has something done to it.
func moving(s image.Stage) bool {
	return slices.Contains([]image.Stage{image.StageFetching, image.StageSending, image.StageReading, image.StageSaving, image.StageChecking}, s)
}
func atWork(s image.Stage) bool {
	return moving(s) || s == image.StageUnpacking || s == image.StagePacking
}

// tell takes in what has happened, and gives a line about it where one is due
// when nothing is drawn.
func (v *transferView) tell(p image.Progress, now time.Time, verbose bool) string {
	i := v.image(p.Image, now)
	b := v.blobs[p.Digest]
	if b == nil {
		b = &transferBlob{digest: p.Digest, total: p.Total, since: now, seen: -1}
		v.blobs[p.Digest] = b
		i.own = append(i.own, b)
	}
	i.all[b] = true
	if p.Stage == image.StageWaiting && b.stage != "" || p.Stage == image.StageHere && b.moved > 0 {
		return "" // another image has it too
	}
	before := b.stage
	if p.Stage != before {
		b.stage = p.Stage
		if !(before == image.StageFetching && p.Stage == image.StageDone) {
			b.since = now
		}
	}
	b.done, b.total = p.Done, p.Total
	if moving(p.Stage) {
		if b.seen < 0 {
			b.seen = max(p.Done-1<<20, 0)
		}
		v.move(i, b, p.Done-b.seen, now)
	}
	if p.Stage == image.StageDone && (moving(before) || before == image.StageWaiting) {
		v.move(i, b, p.Total-max(b.seen, 0), now)
		if took := now.Sub(b.since); verbose || took >= longWait {
			return strings.TrimPrefix(fmt.Sprintf("%s: %s, %s (%s)", printable(p.Image), cmp.Or(short(b.digest), "tar"), size(uint64(b.total)), brief(took)), ": ")
		}
	}
	return ""
}

func (v *transferView) move(i *transferImage, b *transferBlob, to int64, now time.Time) {
	more := to - b.moved
	if more <= 0 {
		return
	}
	b.moved = to
	i.moved += more
	const window = 5 * time.Second
	v.rates = append(v.rates, transferRate{now, more})
	for len(v.rates) > 1 && now.Sub(v.rates[0].at) > window {
		v.rates = v.rates[1:]
	}
}

func (v *transferView) image(name string, now time.Time) *transferImage {
	for _, i := range v.images {
		if i.name == name {
			return i
		}
	}
	i := &transferImage{name: name, began: now, all: map[*transferBlob]bool{}}
	v.images = append(v.images, i)
	return i
}

// moved tells whether anything of an image came or went.
func (v *transferView) moved(name string) bool {
	return slices.ContainsFunc(v.images, func(i *transferImage) bool { return i.name == name && i.moved > 0 })
}

// short is as much of a digest as is shown.
func short(h v1.Hash) string { return h.Hex[:min(len(h.Hex), 12)] }

// rate is bytes per second of late.
func (v *transferView) rate(now time.Time) uint64 {
	if len(v.rates) == 0 {
		return 0
	}
	var sum int64
	for _, r := range v.rates[1:] {
		sum += r.moved
	}
	if took := now.Sub(v.rates[0].at).Seconds(); took > 0.5 {
		return uint64(float64(sum) / took)
	}
	return 0
}

// headline is "pull  3.2 s  10.0 MiB of 50.0 MiB, 8.0 MiB/s, 2 of 5 done".
func (v *transferView) headline(now time.Time) string {
	var moved, total int64
	done := 0
	for _, b := range v.blobs {
		if b.stage == image.StageDone || b.stage == image.StageHere || b.stage == image.StageMounted {
			done++
		}
		if b.stage != image.StageHere && b.stage != image.StageMounted && b.stage != image.StagePacking {
			moved, total = moved+b.moved, total+b.total-max(b.seen, 0)
		}
	}
	text := fmt.Sprintf("%s  %s", v.verb, counting(now.Sub(v.began)))
	if total > 0 {
		text += fmt.Sprintf("  %s of %s", size(uint64(moved)), size(uint64(total)))
		if rate := v.rate(now); rate > 0 && moved < total {
			text += ", " + size(rate) + "/s"
		}
	}
	if len(v.blobs) > 0 {
		text += fmt.Sprintf(", %d of %d done", done, len(v.blobs))
	}
	return text
}

// lines draws the present state in at most height lines of at most width
// columns: in fewer than there are blobs, those at work come first, and the
// others are counted.
func (v *transferView) lines(width, height int, now time.Time, colour bool) []string {
	c := canvas{width: width, colour: colour, now: now}
	c.line("", span{v.headline(now), bold})
	need := 1 + len(v.images) + len(v.blobs)
	room := height - 1 - len(v.images) - 1
	hidden := 0
	for _, i := range v.images {
		if len(v.images) < height-1 && i.name != "" {
			c.line("", span{"  " + printable(i.name), ""})
		}
		for _, b := range i.own {
			if need > height && (!atWork(b.stage) || room <= 0) {
				hidden++
				continue
			}
			room--
			c.blob(b)
		}
	}
	if hidden > 0 {
		c.line("", span{fmt.Sprintf("  and %d more", hidden), faint})
	}
	return c.lines[:min(len(c.lines), max(height, 1))]
}

const barWidth = 20

// blob adds a blob's line: its digest, what is done with it, and how far that
// is.
func (c *canvas) blob(b *transferBlob) {
	shade := yellow
	switch b.stage {
	case image.StageDone, image.StageHere, image.StageMounted:
		shade = green
	case image.StageWaiting:
		shade = faint
	}
	detail := size(uint64(max(b.total, b.done)))
	if b.total > 0 && (moving(b.stage) || b.stage == image.StagePacking) {
		full := int(b.done * barWidth / max(b.total, 1))
		bar := strings.Repeat("=", min(full, barWidth))
		detail = fmt.Sprintf("[%-*s] %s of %s", barWidth, bar, size(uint64(b.done)), detail)
	}
	c.line("", span{fmt.Sprintf("    %-12s  ", cmp.Or(short(b.digest), "tar")), ""}, span{fmt.Sprintf("%-9s ", cmp.Or(b.stage, image.StageWaiting)), shade}, span{" " + detail, ""})
}

// summary is what is said of an image at the end.
func (v *transferView) summary(name, shown string, now time.Time) string {
	i := v.image(name, now)
	done := cmp.Or(map[string]string{"push": "pushed", "load": "loaded"}[v.verb], "pulled")
	if i.moved == 0 {
		return fmt.Sprintf("%s: %s already", printable(shown), cmp.Or(map[string]string{"push": "there"}[v.verb], "here"))
	}
	return fmt.Sprintf("%s: %s in %s, %s", printable(shown), done, brief(now.Sub(i.began)), size(uint64(i.moved)))
}
