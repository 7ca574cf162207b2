package main

import (
	"hash/fnv"
	"io"
	"os"

	"golang.org/x/term"
)

// colour is what goes between ESC [ and m (ECMA-48, select graphic rendition).
type colour string

const (
	bold   colour = "1"
	faint  colour = "2"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
)

// paint gives the text in a colour.
func (c colour) paint(text string) string {
	if c == "" || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// colourOf gives a name its colour, the same one everywhere and always. Red
// and yellow are left to what they mean.
func colourOf(name string) colour {
	colours := [...]colour{"36", "32", "35", "34", "96", "92", "95", "94", "38;5;173", "38;5;107", "38;5;66", "38;5;139"}
	h := fnv.New32a()
	io.WriteString(h, name)
	return colours[h.Sum32()%uint32(len(colours))]
}

// terminalOf is whether f is a terminal that understands cursor movements.
func terminalOf(f *os.File) bool {
	if kind := os.Getenv("TERM"); kind == "" || kind == "dumb" {
		return false
	}
	return term.IsTerminal(int(f.Fd()))
}

// coloured is whether what is written to f may have colours: only on a
// terminal, and not where NO_COLOR has any value (https://no-color.org).
func coloured(f *os.File) bool { return os.Getenv("NO_COLOR") == "" && terminalOf(f) }
