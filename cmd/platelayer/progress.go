package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"platelayer/lifecycle"
)

const (
	redrawEvery = 80 * time.Millisecond
	longWait    = time.Second // what plain lines tell of without --verbose
	treeMost    = 20          // stations of a tree that stays when all is done
	slowestMost = 5
)

// progress shows what up, down and their kind tell while they work: a tree
// that is redrawn in place on a terminal, plain lines elsewhere, and nothing
// where nothing is wanted. Its methods may be called by several goroutines.
type progress struct {
	progressOptions
	mu      sync.Mutex
	view    *view
	images  *transferView   // what comes of images; nil before and after
	telling *time.Timer     // of tellImages
	above   strings.Builder // what the next frame puts over the tree
	area    *liveArea       // nil for plain lines, and at the end
	stop    chan struct{}
	stopped sync.WaitGroup
	once    sync.Once
}

type progressOptions struct {
	out     io.Writer
	quiet   bool
	verbose bool
	colour  bool
	live    func() (width, height int) // the terminal's size, nil for plain lines
}

// newProgress begins to show what verb ("up") does to a topology, on stderr.
// done must be called at the end. PLATELAYER_PROGRESS, plain or live, overrules
// what stderr is.
func newProgress(a *app, topology, verb string) *progress {
	o := progressOptions{out: a.stderr, quiet: a.quiet, verbose: a.verbose, colour: coloured(a.stderr)}
	if how := os.Getenv("PLATELAYER_PROGRESS"); how == "live" || how != "plain" && terminalOf(a.stderr) {
		o.live = func() (int, int) { return terminalSize(a.stderr) }
	}
	return startProgress(o, topology, verb)
}

// terminalSize is f's size in columns and lines, or the usual one where f does
// not know.
func terminalSize(f *os.File) (width, height int) {
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

func startProgress(o progressOptions, topology, verb string) *progress {
	p := &progress{progressOptions: o, view: newView(topology, verb, time.Now())}
	if o.live != nil && !o.quiet {
		p.area = &liveArea{out: o.out, size: o.live}
		p.stop = make(chan struct{})
		p.stopped.Go(func() { p.area.redraw(p.stop, p.draw) })
	}
	return p
}

// tell shows one thing that happened.
func (p *progress) tell(t lifecycle.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.view.tell(t, time.Now())
	if t.Step != "" || t.Station != "" || len(t.Stations) > 0 {
		p.imagesOver()
	}
	if p.quiet {
		return
	}
	if t.Notice != "" {
		p.print("platelayer: " + harmless(t.Notice))
	}
	if t.Step != "" && p.verbose {
		p.print(fmt.Sprintf("  %-10s %s", t.Step, round(t.Took)))
	}
	if t.Station != "" && p.area == nil {
		if line := p.view.plain(t.Station, p.verbose); line != "" {
			p.print(line)
		}
	}
}

// print writes a line that stays.
func (p *progress) print(line string) {
	if p.area != nil {
		p.above.WriteString(line + "\n")
		return
	}
	fmt.Fprintln(p.out, line)
}

// done ends the view and prints the summary, "hello: 4 stations up in 74ms";
// without one the work has failed, and what is not done stays. Only the first
// call counts.
func (p *progress) done(summary string) {
	p.once.Do(func() {
		if p.area != nil {
			close(p.stop)
			p.stopped.Wait()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.imagesOver()
		if !p.quiet {
			p.finish(summary)
		}
		p.area = nil
	})
}

func (p *progress) finish(summary string) {
	var last strings.Builder
	if p.area != nil {
		width, _ := p.area.size()
		for _, line := range p.view.last(width, time.Now(), summary != "", p.colour) {
			last.WriteString(line + "\n")
		}
	}
	if slow := p.view.slow(); p.verbose && slow != "" {
		last.WriteString(slow + "\n")
	}
	if summary != "" {
		last.WriteString(summary + "\n")
	}
	if p.area != nil {
		p.area.frame(p.above.String()+last.String(), nil)
		return
	}
	io.WriteString(p.out, last.String())
}

func (p *progress) draw() {
	width, height := p.area.size()
	p.mu.Lock()
	above := p.above.String()
	p.above.Reset()
	lines := p.view.lines(width, height-1, time.Now(), p.colour)
	if room := height - 1 - len(lines); p.images != nil && room > 0 {
		lines = append(lines, p.images.lines(width, room, time.Now(), p.colour)...)
	}
	p.mu.Unlock()
	p.area.frame(above, lines)
}
