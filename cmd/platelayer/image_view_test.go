package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
)

func blobOf(n int) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat(fmt.Sprintf("%x", n), 64)}
}

// toldTransfers is a view of a pull of two images that share a layer.
func toldTransfers() (*transferView, []string) {
	const mib = 1 << 20
	v := newTransferView("pull", viewBegin)
	var lines []string
	tell := func(at int, name string, n int, stage image.Stage, done int64) {
		line := v.tell(image.Progress{Image: name, Digest: blobOf(n), Stage: stage, Done: done * mib, Total: 10 * mib},
			viewBegin.Add(time.Duration(at)*time.Millisecond), false)
		if line != "" {
			lines = append(lines, line)
		}
	}
	for n := range 5 {
		tell(0, "docker.io/library/web:1", n, image.StageWaiting, 0)
	}
	for _, n := range []int{1, 6} {
		tell(10, "docker.io/library/db:1", n, image.StageWaiting, 0)
	}
	tell(20, "docker.io/library/web:1", 0, image.StageHere, 10)
	tell(100, "docker.io/library/web:1", 1, image.StageFetching, 1)
	tell(600, "docker.io/library/web:1", 1, image.StageFetching, 9)
	tell(900, "docker.io/library/web:1", 1, image.StageDone, 10)
	tell(910, "docker.io/library/db:1", 1, image.StageHere, 10)
	tell(1000, "docker.io/library/web:1", 2, image.StageFetching, 6) // five came before
	tell(1100, "docker.io/library/web:1", 2, image.StageFetching, 7)
	tell(1200, "docker.io/library/web:1", 3, image.StageFetching, 1)
	tell(2400, "docker.io/library/web:1", 3, image.StageDone, 10)
	tell(2500, "docker.io/library/web:1", 3, image.StageUnpacking, 0)
	return v, lines
}

func TestTransferView(t *testing.T) {
	v, lines := toldTransfers()
	now := viewBegin.Add(3 * time.Second)
	for _, test := range []struct {
		height int
		want   string
	}{
		{24, `
pull  3.0 s  22.0 MiB of 45.0 MiB, 7.2 MiB/s, 2 of 6 done
  docker.io/library/web:1
    000000000000  here       10.0 MiB
    111111111111  done       10.0 MiB
    222222222222  fetching   [==============      ] 7.0 MiB of 10.0 MiB
    333333333333  unpacking  10.0 MiB
    444444444444  waiting    10.0 MiB
  docker.io/library/db:1
    666666666666  waiting    10.0 MiB
`},
		{7, `
pull  3.0 s  22.0 MiB of 45.0 MiB, 7.2 MiB/s, 2 of 6 done
  docker.io/library/web:1
    222222222222  fetching   [==============      ] 7.0 MiB of 10.0 MiB
    333333333333  unpacking  10.0 MiB
  docker.io/library/db:1
  and 4 more
`},
		{2, `
pull  3.0 s  22.0 MiB of 45.0 MiB, 7.2 MiB/s, 2 of 6 done
  and 6 more
`},
	} {
		got := "\n" + strings.Join(v.lines(80, test.height, now, false), "\n") + "\n"
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("height %d (-want +got):\n%s", test.height, d)
		}
	}
	if d := cmp.Diff([]string{"docker.io/library/web:1: 333333333333, 10.0 MiB (1.2 s)"}, lines); d != "" {
		t.Errorf("plain lines (-want +got):\n%s", d)
	}
	if got, want := v.summary("docker.io/library/web:1", "web:1", now), "web:1: pulled in 3.0 s, 22.0 MiB"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := v.summary("docker.io/library/db:1", "db:1", now), "db:1: here already"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for width := 1; width < 80; width++ {
		for _, line := range v.lines(width, 24, now, false) {
			if columns(line) > width {
				t.Fatalf("width %d: %q", width, line)
			}
		}
	}
}

// TestTransfersLive leaves of the lines only what is to stay.
func TestTransfersLive(t *testing.T) {
	t.Setenv("PLATELAYER_PROGRESS", "live")
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p := newTransfers(&app{stderr: out}, "pull")
	p.tell(image.Progress{Image: "web", Digest: blobOf(1), Stage: image.StageFetching, Done: 5, Total: 10})
	p.draw()
	p.notice("a \x1b[31mnotice")
	p.tell(image.Progress{Image: "web", Digest: blobOf(1), Stage: image.StageDone, Done: 10, Total: 10})
	p.finished("web", "web")
	p.done()
	p.done()
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	frames := strings.Split(string(text), beginFrame)
	last := strings.ReplaceAll(frames[len(frames)-1], eraseLine, "")
	if !strings.Contains(string(text), "111111111111  fetching") || strings.Contains(last, "111111111111") ||
		!strings.Contains(string(text), "platelayer: a \\x1b[31mnotice\n") || !strings.Contains(string(text), "web: pulled in ") {
		t.Errorf("got %q", text)
	}
}
