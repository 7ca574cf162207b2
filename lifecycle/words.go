package lifecycle

import (
	"strings"

	"platelayer/topology"
)

// Shortened is what fits into a message of what a station said, on one line;
// inspect and `events --json` have more.
func Shortened(text string) string {
	const most = 300 // characters
	if runes := []rune(text); len(runes) > most {
		return topology.OneLine(string(runes[:most])) + " ..."
	}
	return topology.OneLine(text)
}

// lastWords is a line of a log as an error shows it: of a long one the end.
func lastWords(line string) string {
	const most = 1000 // characters
	line = strings.ReplaceAll(strings.TrimRight(line, "\r"), "\t", "    ")
	if runes := []rune(line); len(runes) > most {
		return "... " + topology.OneLine(string(runes[len(runes)-most:]))
	}
	return topology.OneLine(line)
}
