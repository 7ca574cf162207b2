package lifecycle

import (
	"strconv"
	"strings"
	"unicode"
)

// OneLine shows words of a station's on one line: what could steer a terminal,
// or pass for a line of ours, is written as in Go.
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

// Shortened is what fits into a message of what a station said, on one line;
// inspect and `events --json` have more.
func Shortened(text string) string {
	const most = 300 // characters
	if runes := []rune(text); len(runes) > most {
		return OneLine(string(runes[:most])) + " ..."
	}
	return OneLine(text)
}

// lastWords is a line of a log as an error shows it: of a long one the end.
func lastWords(line string) string {
	const most = 1000 // characters
	line = strings.ReplaceAll(strings.TrimRight(line, "\r"), "\t", "    ")
	if runes := []rune(line); len(runes) > most {
		return "... " + OneLine(string(runes[len(runes)-most:]))
	}
	return OneLine(line)
}
