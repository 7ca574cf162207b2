package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"platelayer/containers/image"
)

// transfers shows what commands that move images tell while they work: lines that are
// redrawn in place on a terminal, plain ones elsewhere. Its methods may be
// called by several goroutines.
type transfers struct {
	progressOptions
	mu      sync.Mutex
	view    *transferView
	above   strings.Builder // what the next frame puts over the lines
	area    *liveArea       // nil for plain lines, and at the end
	stop    chan struct{}
	stopped sync.WaitGroup
	once    sync.Once
}

const tellEvery = 10 * time.Second // how far it is, in plain lines

// newTransfers begins to show what verb ("pull") does, on stderr, as newProgress
// does. done must be called at the end.
func newTransfers(a *app, verb string) *transfers {
	o := progressOptions{out: a.stderr, quiet: a.quiet, verbose: a.verbose, colour: coloured(a.stderr)}
	if how := os.Getenv("PLATELAYER_PROGRESS"); how == "live" || how != "plain" && terminalOf(a.stderr) {
		o.live = func() (int, int) { return terminalSize(a.stderr) }
	}
	t := &transfers{progressOptions: o, view: newTransferView(verb, time.Now()), stop: make(chan struct{})}
	switch {
	case o.quiet:
	case o.live != nil:
		t.area = &liveArea{out: o.out, size: o.live}
		t.stopped.Go(func() { t.area.redraw(t.stop, t.draw) })
	default:
		t.stopped.Go(t.tellNowAndThen)
	}
	return t
}

// tell shows one thing that happened.
func (t *transfers) tell(p image.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := t.view.tell(p, time.Now(), t.verbose)
	if line != "" && t.area == nil {
		t.print(line)
	}
}

// notice tells what the user should know, quiet or not a failure.
func (t *transfers) notice(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.print("platelayer: " + harmless(text))
}

// finished tells that all of an image is done.
func (t *transfers) finished(name, short string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.print(t.view.summary(name, short, time.Now()))
}

// summed tells what was done in all.
func (t *transfers) summed(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var moved int64
	for _, i := range t.view.images {
		if i.name != "" { // what was read before it was known what it is
			moved += i.moved
		}
	}
	now := time.Now()
	t.print(harmless(fmt.Sprintf("%s in %s, %s", what, brief(now.Sub(t.view.began)), size(uint64(moved)))))
}

// print writes a line that stays.
func (t *transfers) print(line string) {
	switch {
	case t.quiet:
	case t.area != nil:
		t.above.WriteString(line + "\n")
	default:
		fmt.Fprintln(t.out, line)
	}
}

// done ends the view. Only the first call counts.
func (t *transfers) done() {
	t.once.Do(func() {
		close(t.stop)
		t.stopped.Wait()
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.area != nil {
			t.area.frame(t.above.String(), nil)
			t.area = nil
		}
	})
}

func (t *transfers) draw() {
	width, height := t.area.size()
	t.mu.Lock()
	above := t.above.String()
	t.above.Reset()
	lines := t.view.lines(width, height-1, time.Now(), t.colour)
	t.mu.Unlock()
	t.area.frame(above, lines)
}

func (t *transfers) tellNowAndThen() {
	ticks := time.NewTicker(tellEvery)
	defer ticks.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-ticks.C:
			t.mu.Lock()
			io.WriteString(t.out, t.view.headline(time.Now())+"\n")
			t.mu.Unlock()
		}
	}
}
