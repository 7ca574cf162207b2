package main

import (
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

// liveArea redraws lines in place at the end of what a terminal shows. Between
// two frames the cursor stands visible at the start of the line below, so that
// whatever ends the program leaves the terminal in order.
type liveArea struct {
	out   io.Writer
	size  func() (width, height int)
	drawn []string // the lines of the last frame
}

// Control sequences: ECMA-48; the modes are DEC's (25, the cursor) and the
// synchronized output (2026) that most terminals know and others ignore.
const (
	beginFrame = "\x1b[?2026h\x1b[?25l"
	endFrame   = "\x1b[?25h\x1b[?2026l"
	eraseLine  = "\x1b[2K"
	cursorUp   = "\x1b[A"
)

// frame puts lines in the place of those before; above goes over them and
// stays. The lines must be no wider than the terminal and leave one line of it
// free.
func (l *liveArea) frame(above string, lines []string) {
	var b strings.Builder
	rows := l.rows()
	up := strings.Repeat(cursorUp, rows)
	b.WriteString(beginFrame + "\r" + up)
	// Line by line, not all below the cursor: at the top of the screen tmux
	// takes that for a clear, and keeps the frame in its history.
	if above != "" || rows != len(lines) {
		b.WriteString(strings.Repeat(eraseLine+"\n", rows) + eraseLine + up)
	}
	b.WriteString(above)
	for _, line := range lines {
		b.WriteString(eraseLine + line + "\n")
	}
	b.WriteString(eraseLine + endFrame)
	io.WriteString(l.out, b.String()) // a terminal that is gone is not missed
	l.drawn = lines
}

// rows is how many rows the last frame takes now: most terminals wrap their
// lines anew when they become narrower.
func (l *liveArea) rows() int {
	width, _ := l.size()
	rows := 0
	for _, line := range l.drawn {
		rows += max(1, (columns(line)+width-1)/width)
	}
	return rows
}

// forget leaves what is drawn where it is: the next frame goes below.
func (l *liveArea) forget() { l.drawn = nil }

// redraw has the next frame drawn again and again, until stop is closed.
func (l *liveArea) redraw(stop <-chan struct{}, draw func()) {
	resumed := make(chan os.Signal, 1)
	signal.Notify(resumed, syscall.SIGCONT)
	defer signal.Stop(resumed)
	ticks := time.NewTicker(redrawEvery)
	defer ticks.Stop()
	for {
		select {
		case <-stop:
			return
		case <-resumed: // the shell has written below the lines meanwhile
			l.forget()
		case <-ticks.C:
			draw()
		}
	}
}

// columns is how wide a line of ours is: each rune one column, colours none.
func columns(line string) int {
	n := 0
	for {
		start := strings.Index(line, "\x1b[")
		if start < 0 {
			return n + utf8.RuneCountInString(line)
		}
		n += utf8.RuneCountInString(line[:start])
		end := strings.IndexByte(line[start:], 'm')
		if end < 0 {
			return n
		}
		line = line[start+end+1:]
	}
}
