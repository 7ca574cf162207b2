package main

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"platelayer/containers/image"
	"platelayer/lifecycle"
)

const (
	pulledName = "docker.io/shop/web:1"
	hereName   = "docker.io/shop/db:1"
)

// toldImages is what up hears when one image is pulled, another is here and a third
// can't be had.
func toldImages(p *progress) {
	p.imageMoved(image.Progress{Image: hereName, Digest: blobOf(1), Done: 5, Total: 5, Stage: image.StageHere})
	p.imageMoved(image.Progress{Image: pulledName, Digest: blobOf(2), Total: 2 << 20, Stage: image.StageWaiting})
	p.imageMoved(image.Progress{Image: pulledName, Digest: blobOf(2), Done: 1 << 20, Total: 2 << 20, Stage: image.StageFetching})
}

func endImages(p *progress) {
	p.imageMoved(image.Progress{Image: pulledName, Digest: blobOf(2), Done: 2 << 20, Total: 2 << 20, Stage: image.StageDone})
	p.imageDone("shop/web:1", nil)
	p.imageDone("shop/db:1", nil)
	p.imageDone("shop/none", errors.New("not there"))
	p.tell(lifecycle.Progress{Stations: []string{"web/lb"}})
}

func TestProgressOfImages(t *testing.T) {
	for name, c := range map[string]struct {
		options progressOptions
		want    string
	}{
		"usual":   {progressOptions{}, "shop/web:1: pulled in T, 2.0 MiB\nsum\n"},
		"verbose": {progressOptions{verbose: true}, pulledName + ": " + short(blobOf(2)) + ", 2.0 MiB (T)\nshop/web:1: pulled in T, 2.0 MiB\nshop/db:1: here already\nsum\n"},
		"quiet":   {progressOptions{quiet: true}, ""},
	} {
		var out strings.Builder
		c.options.out = &out
		p := startProgress(c.options, "shop", "up")
		toldImages(p)
		if !c.options.quiet {
			p.tellImages()
			if got := out.String(); !strings.Contains(got, "1.0 MiB of 2.0 MiB") {
				t.Errorf("%s: no word of how far it is: %q", name, got)
			}
			out.Reset()
		}
		endImages(p)
		if p.images != nil {
			t.Errorf("%s: the images are not over", name)
		}
		p.done("sum")
		if got := regexp.MustCompile(`[0-9.]+ .?s\b`).ReplaceAllString(out.String(), "T"); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

// On a terminal each layer is shown until stations are prepared.
func TestProgressOfImagesOnTerminal(t *testing.T) {
	s := newScreen(t, 60, 12)
	p := startProgress(progressOptions{out: s, live: func() (int, int) { return 60, 12 }}, "shop", "up")
	toldImages(p)
	layer := short(blobOf(2)) + "  fetching"
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(s.text(), layer); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no layer appears:\n%s", s.text())
		}
	}
	endImages(p)
	p.done("sum")
	if got := s.text(); strings.Contains(got, "fetching") || !strings.Contains(got, "shop/web:1: pulled in ") || !strings.HasSuffix(got, "sum\n") {
		t.Errorf("at the end\n%s", got)
	}
}

// TestOneRegistry: what one command asks of registries shares connections,
// sign-ins and what is known of mirrors.
func TestOneRegistry(t *testing.T) {
	o := (&app{}).imageOptions(nil)
	first, err := o.Registry()
	if err != nil {
		t.Fatal(err)
	}
	if second, err := o.Registry(); err != nil || second != first {
		t.Errorf("got another, %v", err)
	}
}
