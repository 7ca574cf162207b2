package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// block gives the fenced block behind a marker of the README.
func block(t *testing.T, readme, marker string) string {
	t.Helper()
	_, rest, found := strings.Cut(readme, marker)
	_, rest, fenced := strings.Cut(rest, "\n```")
	_, rest, _ = strings.Cut(rest, "\n")
	text, _, closed := strings.Cut(rest, "\n```")
	if !found || !fenced || !closed {
		t.Fatalf("README.md has no block behind %q", marker)
	}
	return text
}

// TestReadme runs the commands that the README shows, in order, and compares
// what they print, apart from times and process ids.
func TestReadme(t *testing.T) {
	needsRoot(t)
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(data)
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	program, root := build(t), t.TempDir()
	t.Setenv("PLATELAYER_ROOT", root)
	t.Setenv("PATH", filepath.Dir(program)+":"+os.Getenv("PATH"))
	t.Cleanup(func() { downAll(t, program, root) })
	run := func(command string) string {
		c := exec.Command("sh", "-c", command)
		c.Dir = repo
		text, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, text)
		}
		return string(text)
	}

	first := block(t, readme, "## Two commands")
	if text := run(first); !strings.Contains(text, "hello: 4 stations up in ") {
		t.Errorf("%s: %s", first, text)
	}
	run("platelayer down hello")

	want := block(t, readme, "<!-- tour -->")
	var got strings.Builder
	for line := range strings.Lines(want + "\n") {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			got.WriteString(line)
			got.WriteString(run(strings.TrimSpace(command)))
		}
	}
	if d := cmp.Diff(plain(want), plain(strings.ReplaceAll(got.String(), repo, "/home/you/platelayer"))); d != "" {
		t.Errorf("README.md shows other output (-README +now):\n%s", d)
	}
	smallest := filepath.Join(t.TempDir(), "platelayer.yaml")
	if err := os.WriteFile(smallest, []byte(block(t, readme, "## The smallest file")), 0o644); err != nil {
		t.Fatal(err)
	}
	run("platelayer check " + smallest)
}

// plain leaves out what differs from run to run.
func plain(text string) []string {
	duration := regexp.MustCompile(`\b[0-9.]+(ms|µs|s)\b`)
	pid := regexp.MustCompile(`[0-9]+ +T`)
	column := regexp.MustCompile(` {2,}`)
	var lines []string
	for line := range strings.Lines(text) {
		line = duration.ReplaceAllString(strings.TrimSpace(line), "T")
		line = column.ReplaceAllString(line, "  ")
		lines = append(lines, pid.ReplaceAllString(line, "PID T"))
	}
	return lines
}
