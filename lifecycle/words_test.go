package lifecycle

import (
	"strings"
	"testing"

	"platelayer/topology"
)

// TestWords: what a station says can't end the line that shows it, steer the
// terminal, or fill it.
func TestWords(t *testing.T) {
	const hostile = "no\r\nhint: \x1b[2Jyes\u202e\u009b\x7f é"
	const shown = `no\r\nhint: \x1b[2Jyes\u202e\u009b\x7f é`
	if got := topology.OneLine(hostile); got != shown {
		t.Errorf("got %s, want %s", got, shown)
	}
	if got := Shortened(hostile); got != shown {
		t.Errorf("shortened: got %s, want %s", got, shown)
	}
	long := strings.Repeat("\x1b", 5000)
	if got, want := Shortened(long), strings.Repeat(`\x1b`, 300)+" ..."; got != want {
		t.Errorf("shortened: got %s", got)
	}
	e := &StationError{Container: "a.b.c", Log: []string{hostile + "\r", "\tat", long + "end"}}
	want := "station \"a.b.c\" ended\n  its last lines:\n  | " + shown + "\n  |     at\n  | ... " + strings.Repeat(`\x1b`, 997) + "end"
	if got := e.Error(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
