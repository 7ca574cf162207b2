package topology

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Problem is one mistake in a file and where it stands. Line and column count
// from 1.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what to do about it
}

// String is "file:line:column: message", which editors can jump to.
func (p Problem) String() string {
	return OneLine(fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message))
}

// OneLine shows words that others have written on one line: what could steer a
// terminal, or pass for a line of ours, is written as in Go.
func OneLine(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// Problems holds every mistake found in one run, sorted by position.
type Problems []Problem

// Error prints a line for each problem and below it, indented, its hint.
func (ps Problems) Error() string {
	var b strings.Builder
	for i, p := range ps {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
		if p.Hint != "" {
			b.WriteString("\n  hint: " + OneLine(p.Hint))
		}
	}
	return b.String()
}

// sorted orders problems by position and drops the copies that an alias used
// twice leaves behind.
func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			strings.Compare(a.Message, b.Message))
	})
	return slices.Compact(ps)
}
