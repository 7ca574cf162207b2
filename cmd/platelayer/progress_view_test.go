package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"platelayer/lifecycle"
)

var viewBegin = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// told is a view after what was told, each thing some milliseconds after begin.
func told(at []int, all ...lifecycle.Progress) *view {
	v := newView("shop", "up", viewBegin)
	for i, p := range all {
		v.tell(p, viewBegin.Add(time.Duration(at[i])*time.Millisecond))
	}
	return v
}

// smallView has four stations of which one is in each state that matters.
func smallView() *view {
	return told([]int{0, 20, 30, 34, 35, 46, 50, 60, 3300},
		lifecycle.Progress{Stations: []string{"web/lb", "web/www1", "web/www2", "backend/database-primary-of-the-shop"}},
		lifecycle.Progress{Step: "network", Took: 20 * time.Millisecond},
		lifecycle.Progress{Station: "web/lb", Phase: lifecycle.PhasePreparing},
		lifecycle.Progress{Station: "web/lb", Phase: lifecycle.PhaseStarting, Took: 4 * time.Millisecond},
		lifecycle.Progress{Station: "web/www1", Phase: lifecycle.PhaseWaiting, Detail: "for backend/database-primary-of-the-shop to be healthy"},
		lifecycle.Progress{Station: "web/lb", Phase: lifecycle.PhaseRunning, Took: 12 * time.Millisecond},
		lifecycle.Progress{Station: "backend/database-primary-of-the-shop", Phase: lifecycle.PhaseStarting},
		lifecycle.Progress{Station: "web/www2", Phase: lifecycle.PhaseStarting},
		lifecycle.Progress{Station: "web/www2", Phase: lifecycle.PhaseFailed, Detail: "ended with code 1: \x1b[2Jno config"},
	)
}

// largeView has 500 stations in clusters of the size, in states of each kind.
func largeView(size int) *view {
	v := newView("shop", "up", viewBegin)
	var ids []string
	for i := range 500 {
		ids = append(ids, fmt.Sprintf("c%d/s%03d", i/size, i))
	}
	v.tell(lifecycle.Progress{Stations: ids}, viewBegin)
	for i, id := range ids {
		p := lifecycle.Progress{Station: id, Phase: lifecycle.PhaseRunning, Took: time.Duration(i) * 100 * time.Microsecond}
		switch {
		case i == 77:
			p.Phase, p.Detail = lifecycle.PhaseFailed, "ended with code 3"
		case i > 480:
			p.Phase = lifecycle.PhasePreparing
		case i > 460:
			p.Phase, p.Detail = lifecycle.PhaseWaiting, "for c0/s000 to be healthy"
		case i > 457:
			p.Phase = lifecycle.PhaseStarting
		case i < 3:
			p.Phase = lifecycle.PhaseHealthy
		case i >= 400 && i < 450:
			p.Phase = lifecycle.PhaseKept
		}
		v.tell(p, viewBegin.Add(time.Second))
	}
	return v
}

func TestViewGolden(t *testing.T) {
	update := os.Getenv("UPDATE_GOLDEN") != "" // rewrites them
	now := viewBegin.Add(62300 * time.Millisecond)
	for name, v := range map[string]*view{"4": smallView(), "500": largeView(50), "500-clusters": largeView(5), "none": told(nil)} {
		for _, width := range []int{40, 80, 200} {
			for _, height := range []int{10, 50} {
				lines := v.lines(width, height, now, false)
				checkView(t, lines, width, height)
				got := strings.Join(lines, "\n") + "\n"
				file := filepath.Join("testdata", "progress", fmt.Sprintf("%s-%dx%d.txt", name, width, height))
				if update {
					if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err, "; UPDATE_GOLDEN=1 writes it")
				}
				if diff := cmp.Diff(string(want), got); diff != "" {
					t.Errorf("differs from %s (-want +got):\n%s", file, diff)
				}
			}
		}
	}
}

func checkView(t *testing.T, lines []string, width, height int) {
	t.Helper()
	if len(lines) > max(height, 1) {
		t.Errorf("%d lines where %d fit", len(lines), height)
	}
	for _, line := range lines {
		if columns(line) > width {
			t.Errorf("%d columns where %d fit: %q", columns(line), width, line)
		}
	}
}

// TestViewAnySize: whatever the stations do and however small the terminal
// is, the view keeps within it, colours change nothing, and a station that
// failed is shown where there is room for any.
func TestViewAnySize(t *testing.T) {
	phases := []lifecycle.Phase{lifecycle.PhasePreparing, lifecycle.PhaseWaiting, lifecycle.PhaseStartup, lifecycle.PhaseStarting,
		lifecycle.PhaseRunning, lifecycle.PhaseHealthy, lifecycle.PhaseStopping, lifecycle.PhaseStopped, lifecycle.PhaseRemoved, lifecycle.PhaseKept}
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		v := newView("shop", "up", viewBegin)
		clusters := 1 + random.IntN(30)
		for i := range 1 + random.IntN(100) {
			id := fmt.Sprintf("c%d/s%d", random.IntN(clusters), i)
			v.tell(lifecycle.Progress{Station: id, Phase: phases[random.IntN(len(phases))], Detail: "for something\x1b[A\r\n"}, viewBegin)
		}
		v.tell(lifecycle.Progress{Station: "c0/broken", Phase: lifecycle.PhaseFailed}, viewBegin)
		width, height := 1+random.IntN(100), random.IntN(40)
		lines := v.lines(width, height, viewBegin.Add(time.Second), false)
		checkView(t, lines, width, height)
		text := strings.Join(lines, "\n")
		if strings.ContainsAny(text, "\x1b\r") {
			t.Errorf("steers the terminal: %q", text)
		}
		if height >= 4 && width >= 30 && !strings.Contains(text, "broken") {
			t.Errorf("a failed station is missing at height %d:\n%s", height, text)
		}
		painted := v.lines(width, height, viewBegin.Add(time.Second), true)
		if plain := withoutColours(strings.Join(painted, "\n")); plain != text {
			t.Errorf("colours change the text:\n%q\n%q", plain, text)
		}
	}
}

func withoutColours(text string) string {
	for {
		before, after, found := strings.Cut(text, "\x1b[")
		if !found {
			return text
		}
		_, after, _ = strings.Cut(after, "m")
		text = before + after
	}
}

func TestPlain(t *testing.T) {
	v := smallView()
	v.tell(lifecycle.Progress{Station: "web/www1", Phase: lifecycle.PhaseStarting}, viewBegin.Add(4*time.Second))
	v.tell(lifecycle.Progress{Station: "web/www1", Phase: lifecycle.PhaseHealthy, Took: 250 * time.Millisecond}, viewBegin.Add(5*time.Second))
	v.tell(lifecycle.Progress{Station: "web/same", Phase: lifecycle.PhaseKept}, viewBegin.Add(5*time.Second))
	for id, want := range map[string][2]string{
		"web/lb":                               {"", "web/lb: running (12 ms)"},
		"web/www1":                             {"web/www1: healthy (250 ms)", "web/www1: healthy (250 ms)"}, // it waited long
		"web/www2":                             {"web/www2: failed (3.2 s) ended with code 1: ?[2Jno config", "web/www2: failed (3.2 s) ended with code 1: ?[2Jno config"},
		"web/same":                             {"", ""},
		"backend/database-primary-of-the-shop": {"", ""},
	} {
		if got := [2]string{v.plain(id, false), v.plain(id, true)}; got != want {
			t.Errorf("%s: got %q, want %q", id, got, want)
		}
	}
}

// TestLast: a small tree stays, of a failure only what is not done, of a
// large one only what failed.
func TestLast(t *testing.T) {
	now := viewBegin.Add(4 * time.Second)
	names := func(lines []string) string {
		var all []string
		for _, line := range lines {
			all = append(all, strings.Fields(line)[0])
		}
		return strings.Join(all, " ")
	}
	for _, c := range []struct {
		view *view
		well bool
		want string
	}{
		{smallView(), true, "web lb www1 www2 backend database-primary-of-the…"},
		{smallView(), false, "web www1 www2 backend database-primary-of-the…"},
		{largeView(50), true, "c1 s077"},
		{largeView(50), false, "c1 s077"},
		{told(nil), true, ""},
		{told([]int{0, 0}, lifecycle.Progress{Stations: []string{"a/b", "a/c"}}, lifecycle.Progress{Station: "a/b", Phase: lifecycle.PhaseKept}), true, ""},
	} {
		if got := names(c.view.last(80, now, c.well, false)); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestSlow(t *testing.T) {
	v := told([]int{0, 0, 5000, 5100, 5100},
		lifecycle.Progress{Station: "a/waits", Phase: lifecycle.PhaseWaiting},
		lifecycle.Progress{Station: "a/works", Phase: lifecycle.PhasePreparing},
		lifecycle.Progress{Station: "a/waits", Phase: lifecycle.PhaseStarting},
		lifecycle.Progress{Station: "a/waits", Phase: lifecycle.PhaseRunning},
		lifecycle.Progress{Station: "a/works", Phase: lifecycle.PhaseRunning},
	)
	if got, want := v.slow(), "  slowest    a/works 5.1 s, a/waits 100 ms"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTimes(t *testing.T) {
	for d, want := range map[time.Duration]string{
		120 * time.Microsecond:    "0.1 ms",
		9960 * time.Microsecond:   "10 ms",
		340 * time.Millisecond:    "340 ms",
		999600 * time.Microsecond: "1.0 s",
		1250 * time.Millisecond:   "1.2 s",
		125 * time.Second:         "2 min 05 s",
	} {
		if got := brief(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
