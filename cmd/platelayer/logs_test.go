package main

import (
	"strings"
	"testing"

	"platelayer/lifecycle"
)

// TestLogPrinter: an unfinished line of one station is ended before another
// station's, and is named again when it goes on.
func TestLogPrinter(t *testing.T) {
	var out strings.Builder
	p := &logPrinter{out: &out, err: &out, prefix: true}
	for _, r := range []lifecycle.Record{
		{Station: "a", Stream: "stdout", Text: "prompt> ", Partial: true},
		{Station: "a", Stream: "stdout", Text: "yes", Partial: true},
		{Station: "b", Stream: "stdout", Text: "line"},
		{Station: "a", Stream: "stdout", Text: "done"},
		{Station: "a", Stream: "stderr", Text: "oops"},
	} {
		if err := p.emit(r); err != nil {
			t.Fatal(err)
		}
	}
	want := "a | prompt> yes\nb | line\na | done\na | oops\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
