package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"platelayer/lifecycle"
	"platelayer/topology"
)

// TestLogPrinter: an unfinished line of one station is ended before another
// station's, and is named again when it goes on.
func TestLogPrinter(t *testing.T) {
	var out strings.Builder
	stream := logStream{w: &out, mark: "|"}
	p := &logPrinter{out: stream, err: stream, prefix: true}
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

func TestLogStyle(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 6000, time.FixedZone("", 3600))
	records := []lifecycle.Record{
		{Station: "db", Stream: "stdout", Time: at, Text: "one"},
		{Station: "backend/www", Stream: "stderr", Time: at, Text: "two"},
	}
	const stamp = "2030-01-02T02:04:05.000006000Z"
	for name, c := range map[string]struct {
		printer logPrinter
		want    string
	}{
		"plain":    {logPrinter{prefix: true}, "db | one\nbackend/www | two\n"},
		"bare":     {logPrinter{}, "one\ntwo\n"},
		"stamped":  {logPrinter{timestamps: true}, stamp + " one\n" + stamp + " two\n"},
		"terminal": {logPrinter{prefix: true, timestamps: true, err: logStream{pad: 11, mark: "!"}, out: logStream{pad: 11}}, "db          | " + stamp + " one\nbackend/www ! " + stamp + " two\n"},
		"coloured": {logPrinter{prefix: true, out: logStream{pad: 4, colour: true}, err: logStream{colour: true}},
			"\x1b[0m" + colourOf("db").paint("db  ") + " \x1b[2m|\x1b[0m one\n\x1b[0m" + colourOf("backend/www").paint("backend/www") + " \x1b[31m|\x1b[0m two\n"},
		"one station in colour": {logPrinter{out: logStream{colour: true}, err: logStream{colour: true}}, "one\ntwo\n"},
	} {
		var out strings.Builder
		p := c.printer
		for _, s := range []*logStream{&p.out, &p.err} {
			s.w = &out
			if s.mark == "" {
				s.mark = "|"
			}
		}
		for _, r := range records {
			if err := p.emit(r); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != c.want {
			t.Errorf("%s: got %q, want %q", name, out.String(), c.want)
		}
	}
}

// TestColourOf: a name keeps its colour over releases, and names differ.
func TestColourOf(t *testing.T) {
	if got := colourOf("www1"); got != colourOf("www1") || got == "" {
		t.Errorf("www1 is %q, then %q", got, colourOf("www1"))
	}
	seen := map[colour]bool{}
	for _, name := range []string{"lb", "www1", "www2", "www3", "db", "cache", "mail", "dns"} {
		seen[colourOf(name)] = true
	}
	if len(seen) < 4 {
		t.Errorf("8 names have %d colours", len(seen))
	}
}

func TestLongestName(t *testing.T) {
	top := &topology.Topology{Clusters: []topology.Cluster{
		{Name: "web", Stations: []topology.Station{{Cluster: "web", Name: "a"}, {Cluster: "web", Name: "proxy"}}},
		{Name: "backend", Stations: []topology.Station{{Cluster: "backend", Name: "a"}}},
	}}
	same, alone := &top.Clusters[0].Stations[0], &top.Clusters[0].Stations[1]
	for _, c := range []struct {
		which []*topology.Station
		want  int
	}{
		{nil, len("backend/a")},
		{[]*topology.Station{alone}, len("proxy")},
		{[]*topology.Station{same}, len("web/a")},
	} {
		if got := longestName(top, c.which); got != c.want {
			t.Errorf("got %d, want %d", got, c.want)
		}
	}
}

func TestParseTail(t *testing.T) {
	for text, want := range map[string]int{"all": -1, "-1": -1, "0": 0, "25": 25} {
		if got, err := parseTail(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-2", "some", "1.5", "99999999999999999999"} {
		if got, err := parseTail(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestParseMoment(t *testing.T) {
	zone := time.FixedZone("here", 2*3600)
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, zone)
	for text, want := range map[string]string{
		"10m":                            "2030-01-02T00:54:05Z",
		"1h30m0.5s":                      "2030-01-01T23:34:04.5Z",
		"0s":                             "2030-01-02T01:04:05Z",
		"2030-01-01T10:00:00Z":           "2030-01-01T10:00:00Z",
		"2030-01-01T10:00:00.123456789Z": "2030-01-01T10:00:00.123456789Z",
		"2030-01-01T10:00:00-03:00":      "2030-01-01T13:00:00Z",
		"2030-01-01T10:00+01:00":         "2030-01-01T09:00:00Z",
		"2030-01-01Z":                    "2030-01-01T00:00:00Z",
		"2030-01-01T10:00:00":            "2030-01-01T08:00:00Z",
		"2030-01-01T10:00:00.25":         "2030-01-01T08:00:00.25Z",
		"2030-01-01 10:00":               "2030-01-01T08:00:00Z",
		"2030-01-01":                     "2029-12-31T22:00:00Z",
		"0":                              "1970-01-01T00:00:00Z",
		"1136073600":                     "2006-01-01T00:00:00Z",
		"1136073600.000000001":           "2006-01-01T00:00:00.000000001Z",
		"1136073600.5":                   "2006-01-01T00:00:00.5Z",
	} {
		got, err := parseMoment(text, now)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := got.UTC().Format(time.RFC3339Nano); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
	if got, err := parseMoment("", now); err != nil || !got.IsZero() {
		t.Errorf("empty: got %v, %v", got, err)
	}
	for _, text := range []string{"-10m", "soon", "2030-13-01", "2030-01-01T25:00", "1.1234567890", "1.x", "-5", "1e5", "99999999999"} {
		if got, err := parseMoment(text, now); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

// TestTame: words of a station's steer no terminal, as an event or within JSON,
// and JSON means the same.
func TestTame(t *testing.T) {
	const hostile = "no\n\x1b[2J\u009b2J\x7f\u202e é"
	line := eventLine(lifecycle.Event{Kind: lifecycle.EventUnhealthy, Detail: hostile + strings.Repeat("x", 5000)})
	if !strings.Contains(line, `  no \x1b[2J\u009b2J\x7f\u202e éxxx`) || !strings.HasSuffix(line, "x ...") || len(line) > 500 {
		t.Errorf("the event is %s", line)
	}
	var out strings.Builder
	if err := json.NewEncoder(tameJSON{&out}).Encode(hostile); err != nil {
		t.Fatal(err)
	}
	if want := `"no\n\u001b[2J\u009b2J\u007f\u202e é"` + "\n"; out.String() != want {
		t.Errorf("the JSON is %s, want %s", out.String(), want)
	}
	var back string
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || back != hostile {
		t.Errorf("the JSON means %q (%v)", back, err)
	}
}

// TestLogsToATerminal: a station's colours get there, what steers a terminal
// does not.
func TestLogsToATerminal(t *testing.T) {
	for text, want := range map[string]string{
		"\x1b[1;31mred\x1b[0m\tand \x1b[38:5:1mmore\x1b[m": "\x1b[1;31mred\x1b[0m\tand \x1b[38:5:1mmore\x1b[m",
		"\x1b[2J\x1b]0;title\a\x1b[>4m\x1b[31":             `\x1b[2J\x1b]0;title\a\x1b[>4m\x1b[31`,
		"a\rb\bc\r":                                        `a\rb\bc`,
		"\u009b2J\x9b2J\x7f é\xe9 \u200d":                  `\u009b2J\x9b2J\x7f é` + "\xe9 \u200d",
	} {
		var out strings.Builder
		p := &logPrinter{out: logStream{w: &out, tame: true}}
		if err := p.emit(lifecycle.Record{Stream: "stdout", Text: text}); err != nil {
			t.Fatal(err)
		}
		if out.String() != want+"\n" {
			t.Errorf("%q is shown as %q, want %q", text, out.String(), want)
		}
	}
}
