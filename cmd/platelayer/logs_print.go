package main

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

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
	tame   bool // for a terminal: see tame
}

func (p *logPrinter) emit(r lifecycle.Record) error {
	s := &p.out
	if r.Stream == "stderr" {
		s = &p.err
	}
	text, key := r.Text, r.Station+" "+r.Stream
	if s.tame {
		if !r.Partial {
			text = strings.TrimSuffix(text, "\r") // of a line of a station's terminal
		}
		text = tame(text)
	}
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

// graphic is a control sequence that changes how text looks and nothing else
// (ECMA-48, select graphic rendition).
var graphic = regexp.MustCompile(`^\x1b\[[0-9;:]*m`)

// tame is a station's text for a terminal: colours and tabs as they are, all
// else that could steer it written as in Go. Bytes of no character that
// are controls of 8-bit terminals count as such.
func tame(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		if looks := graphic.FindString(text); looks != "" {
			n = len(looks)
			b.WriteString(looks)
		} else if r == utf8.RuneError && n == 1 && text[0] < 0xa0 {
			fmt.Fprintf(&b, `\x%02x`, text[0])
		} else if unicode.IsControl(r) && r != '\t' {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(text[:n])
		}
		text = text[n:]
	}
	return b.String()
}
