package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"platelayer/lifecycle"
)

// screen is a small terminal: it knows what liveArea sends, and fails at
// anything else.
type screen struct {
	t             *testing.T
	mu            sync.Mutex
	width, height int
	rows          [][]rune // all that was ever shown; the last height of them are on the screen
	row, column   int
	hidden        bool
	rest          string // of a sequence that is not complete
}

func newScreen(t *testing.T, width, height int) *screen {
	return &screen{t: t, width: width, height: height, rows: [][]rune{nil}}
}

func (s *screen) Write(data []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.rest + string(data)
	for text != "" {
		if text[0] != '\x1b' {
			r := []rune(text)[0]
			if r == '\ufffd' && len(text) < 3 { // a rune that is not complete
				break
			}
			s.put(r)
			text = text[len(string(r)):]
			continue
		}
		end := strings.IndexFunc(text, func(r rune) bool { return r >= 'A' && r != '[' })
		if end < 0 {
			break
		}
		s.control(text[1 : end+1])
		text = text[end+1:]
	}
	s.rest = text
	return len(data), nil
}

func (s *screen) put(r rune) {
	switch r {
	case '\r':
		s.column = 0
		return
	case '\n':
		s.down()
		s.column = 0
		return
	}
	if s.column == s.width {
		s.down()
		s.column = 0
	}
	for len(s.rows[s.row]) <= s.column {
		s.rows[s.row] = append(s.rows[s.row], ' ')
	}
	s.rows[s.row][s.column] = r
	s.column++
}

func (s *screen) down() {
	if s.row++; s.row == len(s.rows) {
		s.rows = append(s.rows, nil)
	}
}

func (s *screen) control(sequence string) {
	switch sequence {
	case "[A":
		s.row = max(s.row-1, len(s.rows)-s.height, 0)
		s.column = min(s.column, s.width-1)
	case "[2K":
		s.rows[s.row] = nil
	case "[?25l":
		s.hidden = true
	case "[?25h":
		s.hidden = false
	case "[?2026h", "[?2026l":
	default:
		if !strings.HasSuffix(sequence, "m") {
			s.t.Errorf("sends %q", sequence)
		}
	}
}

// narrow makes the terminal narrower as most do: what is too wide wraps.
func (s *screen) narrow(width int) {
	var rows [][]rune
	for i, row := range s.rows {
		if i == s.row {
			s.row = len(rows)
		}
		for len(row) > width {
			rows = append(rows, row[:width:width])
			row = row[width:]
		}
		rows = append(rows, row)
	}
	s.rows, s.width = rows, width
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, row := range s.rows {
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}

// TestLiveArea: whatever was drawn before, the screen shows what stood there,
// what was put above, and the last frame.
func TestLiveArea(t *testing.T) {
	s := newScreen(t, 40, 12)
	fmt.Fprint(s, "$ platelayer up\n")
	area := &liveArea{out: s, size: func() (int, int) { return s.width, s.height }}
	v := largeView(50)
	want := "$ platelayer up\n"
	for i := range 60 {
		above := ""
		if i%7 == 0 {
			above = fmt.Sprintf("platelayer: notice %02d is longer than the terminal is wide\n", i)
			want += above[:s.width] + "\n" + above[s.width:]
		}
		lines := v.lines(s.width, 1+(i*5)%(s.height-1), viewBegin.Add(time.Duration(i)*time.Second), true)
		area.frame(above, lines)
		if got, want := s.text(), want+withoutColours(strings.Join(lines, "\n"))+"\n"; got != want {
			t.Fatalf("frame %d: got\n%s\nwant\n%s", i, got, want)
		}
		if s.hidden {
			t.Fatal("the cursor is hidden between frames")
		}
	}
}

// TestLiveAreaNarrowed: nothing of the wider frame remains.
func TestLiveAreaNarrowed(t *testing.T) {
	s := newScreen(t, 80, 40)
	fmt.Fprint(s, "$\n")
	area := &liveArea{out: s, size: func() (int, int) { return s.width, s.height }}
	v := smallView()
	area.frame("", v.lines(s.width, s.height-1, viewBegin, true))
	s.narrow(30)
	lines := v.lines(s.width, s.height-1, viewBegin, true)
	area.frame("", lines)
	if got, want := s.text(), "$\n"+withoutColours(strings.Join(lines, "\n"))+"\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestProgressOnTerminal feeds the whole view from several goroutines, with a
// pseudo terminal as stderr.
func TestProgressOnTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	t.Setenv("PLATELAYER_PROGRESS", "")
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := pty.Setsize(master, &pty.Winsize{Cols: 60, Rows: 12}); err != nil {
		t.Fatal(err)
	}
	s := newScreen(t, 60, 12)
	var reader sync.WaitGroup
	reader.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			if err != nil {
				return // EIO: the other end is closed
			}
			s.Write(buffer[:n])
		}
	})

	p := newProgress(&app{stderr: tty}, "shop", "up")
	p.tell(lifecycle.Progress{Stations: []string{"web/lb", "web/www1", "backend/db"}})
	p.tell(lifecycle.Progress{Station: "web/www1", Phase: lifecycle.PhaseWaiting, Detail: "for backend/db to be healthy"})
	p.tell(lifecycle.Progress{Notice: "the first notice"})
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(s.text(), "www1  waiting for backend/db to be healthy"); {
		if time.Now().After(deadline) {
			t.Fatalf("no tree appears:\n%s", s.text())
		}
		time.Sleep(10 * time.Millisecond)
	}
	var tellers sync.WaitGroup
	for _, id := range []string{"web/lb", "web/www1", "backend/db"} {
		tellers.Go(func() {
			p.tell(lifecycle.Progress{Station: id, Phase: lifecycle.PhaseStarting})
			p.tell(lifecycle.Progress{Station: id, Phase: lifecycle.PhaseRunning, Took: 12 * time.Millisecond})
		})
	}
	tellers.Wait()
	p.tell(lifecycle.Progress{Notice: "the \x1b[31msecond notice"})
	p.done("shop: 3 stations up in 74ms")
	p.done("")
	tty.Close()
	reader.Wait()
	want := `platelayer: the first notice
platelayer: the \x1b[31msecond notice
  web
    lb    running 12 ms
    www1  running 12 ms
  backend
    db    running 12 ms
shop: 3 stations up in 74ms
`
	if got := s.text(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestProgressElsewhere: without a terminal there are plain lines, and --quiet
// means quiet.
func TestProgressElsewhere(t *testing.T) {
	t.Setenv("PLATELAYER_PROGRESS", "")
	all := []lifecycle.Progress{
		{Stations: []string{"web/lb", "web/www1"}},
		{Step: "network", Took: 20 * time.Millisecond},
		{Station: "web/lb", Phase: lifecycle.PhaseStarting},
		{Station: "web/lb", Phase: lifecycle.PhaseRunning, Took: 12 * time.Millisecond},
		{Notice: "no host routes"},
		{Station: "web/www1", Phase: lifecycle.PhaseStartup},
		{Station: "web/www1", Phase: lifecycle.PhaseHealthy, Took: 2300 * time.Millisecond},
	}
	for name, c := range map[string]struct {
		options progressOptions
		want    string
	}{
		"usual": {progressOptions{}, "platelayer: no host routes\nweb/www1: healthy (2.3 s)\nsum\n"},
		"verbose": {progressOptions{verbose: true}, "  network    20ms\nweb/lb: running (12 ms)\nplatelayer: no host routes\n" +
			"web/www1: healthy (2.3 s)\n  slowest    web/www1 2.3 s, web/lb 12 ms\nsum\n"},
		"quiet": {progressOptions{quiet: true, verbose: true}, ""},
	} {
		var out strings.Builder
		c.options.out = &out
		p := startProgress(c.options, "shop", "up")
		for _, told := range all {
			p.tell(told)
		}
		p.done("sum")
		if out.String() != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, out.String(), c.want)
		}
	}
}

// TestTerminalOf: a file is none, and neither is a terminal that can't move
// its cursor.
func TestTerminalOf(t *testing.T) {
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer tty.Close()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, c := range []struct {
		file             *os.File
		term, noColour   string
		terminal, colour bool
	}{
		{tty, "xterm", "", true, true},
		{tty, "xterm", "0", true, false},
		{tty, "dumb", "", false, false},
		{file, "xterm", "", false, false},
	} {
		t.Setenv("TERM", c.term)
		t.Setenv("NO_COLOR", c.noColour)
		if terminalOf(c.file) != c.terminal || coloured(c.file) != c.colour {
			t.Errorf("%+v: terminal %v, coloured %v", c, terminalOf(c.file), coloured(c.file))
		}
	}
}
