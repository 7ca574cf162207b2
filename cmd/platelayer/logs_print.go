package main

import (
	"fmt"
	"io"
	"strings"

	"platelayer/lifecycle"
)

// logPrinter prints records: stdout to stdout, stderr to stderr, and with
// several stations each line behind its station's name.
type logPrinter struct {
	out, err   logStream
	prefix     bool
	timestamps bool
	last       string // the stream whose unfinished line is the last thing printed, or ""
}

// logStream is where a stream of the stations' goes and what stands before
// its lines.
type logStream struct {
	w      io.Writer
	pad    int    // columns of the name
	mark   string // between name and text
	colour bool
}

func (p *logPrinter) emit(r lifecycle.Record) error {
	s := &p.out
	if r.Stream == "stderr" {
		s = &p.err
	}
	text, key := r.Text, r.Station+" "+r.Stream
	if p.last != key {
		text = p.before(s, r) + text
		if p.last != "" { // another stream's line is unfinished
			text = "\n" + text
		}
	}
	if p.last = key; !r.Partial {
		text += "\n"
		p.last = ""
	}
	_, err := io.WriteString(s.w, text)
	return err
}

// before is what stands before a line's text.
func (p *logPrinter) before(s *logStream, r lifecycle.Record) string {
	paint := func(c colour, text string) string {
		if !s.colour {
			return text
		}
		return c.paint(text)
	}
	var b strings.Builder
	if s.colour && (p.prefix || p.timestamps) {
		b.WriteString("\x1b[0m") // what the station left on
	}
	if p.prefix {
		mark := faint
		if r.Stream == "stderr" {
			mark = red
		}
		b.WriteString(paint(colourOf(r.Station), fmt.Sprintf("%-*s", s.pad, r.Station)) + " " + paint(mark, s.mark) + " ")
	}
	if p.timestamps {
		b.WriteString(paint(faint, r.Time.UTC().Format("2006-01-02T15:04:05.000000000Z07:00")) + " ")
	}
	return b.String()
}
