package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"platelayer/topology"
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
// what they print, apart from times and process ids. They run beside a copy of
// the examples: one of them edits a file.
func TestReadme(t *testing.T) {
	needsRoot(t)
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(data)
	program, root, home := build(t), t.TempDir(), t.TempDir()
	if err := os.CopyFS(filepath.Join(home, "examples"), os.DirFS("../../examples")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PLATELAYER_ROOT", root)
	t.Setenv("PATH", filepath.Dir(program)+":"+os.Getenv("PATH"))
	t.Cleanup(func() { downAll(t, program, root) })
	run := func(dir, command string) string {
		c := exec.Command("sh", "-c", command)
		c.Dir = dir
		text, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, text)
		}
		return string(text)
	}

	first := block(t, readme, "## Two commands")
	if text := run("../..", first); !strings.Contains(text, "hello: 4 stations up in ") {
		t.Errorf("%s: %s", first, text)
	}
	run(home, "platelayer down hello")

	for _, shown := range strings.Split(block(t, readme, "<!-- tour -->"), "$ ")[1:] {
		command, want, _ := strings.Cut(shown, "\n")
		var d string
		for deadline := time.Now().Add(awaitAtMost); ; time.Sleep(50 * time.Millisecond) {
			got := strings.ReplaceAll(run(home, command), home, "/home/you/platelayer")
			// A repair takes a moment: what only looks may look again.
			if d = cmp.Diff(plain(want), plain(got)); d == "" || !looks(command) || time.Now().After(deadline) {
				break
			}
		}
		if d != "" {
			t.Fatalf("README.md shows other output of %s (-README +now):\n%s", command, d)
		}
	}
	smallest := filepath.Join(home, "platelayer.yaml")
	if err := os.WriteFile(smallest, []byte(block(t, readme, "## The smallest file")), 0o644); err != nil {
		t.Fatal(err)
	}
	run(home, "platelayer check "+smallest)
}

// looks tells whether a command only looks at what runs.
func looks(command string) bool {
	return regexp.MustCompile(`^platelayer (ps|logs|events)\b`).MatchString(command)
}

// TestReadmeCommands wants each command in the README's table, and no other.
func TestReadmeCommands(t *testing.T) {
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(data), "\n| To | |\n")
	table, _, found := strings.Cut(table, "\n\n")
	if !found {
		t.Fatal("README.md has no table of commands")
	}
	var shown, have []string
	for _, match := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(table, -1) {
		shown = append(shown, match[1])
	}
	commands := (&app{}).command()
	commands.InitDefaultCompletionCmd()
	for _, c := range commands.Commands() {
		if !c.Hidden {
			have = append(have, c.Name())
		}
	}
	slices.Sort(shown)
	slices.Sort(have)
	if d := cmp.Diff(have, shown); d != "" {
		t.Errorf("the table of commands in README.md (-there are +shown):\n%s", d)
	}
}

// plain leaves out what differs from run to run.
func plain(text string) []string {
	moment := regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}`)
	duration := regexp.MustCompile(`\b[0-9.]+(ms|µs|s)\b`)
	pid := regexp.MustCompile(`[0-9]+ +T`)
	column := regexp.MustCompile(` {2,}`)
	var lines []string
	for line := range strings.Lines(text) {
		line = moment.ReplaceAllString(line, "T")
		line = duration.ReplaceAllString(strings.TrimSpace(line), "T")
		line = column.ReplaceAllString(line, "  ")
		lines = append(lines, pid.ReplaceAllString(line, "PID T"))
	}
	return lines
}

// TestShownFiles checks the parts of topology files that the documents show.
func TestShownFiles(t *testing.T) {
	fence := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")
	for _, path := range []string{"../../README.md", "../../docs/life.md"} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		shown := fence.FindAllStringSubmatch(string(data), -1)
		if len(shown) == 0 {
			t.Errorf("%s shows no YAML", path)
		}
		for _, match := range shown {
			text := match[1]
			if strings.HasPrefix(text, "stations:") {
				text = "clusters:\n  lan:\n    " + strings.ReplaceAll(text, "\n", "\n    ")
			}
			if _, err := topology.Load("platelayer.yaml", []byte(text), topology.Options{Dir: "/srv/shown"}); err != nil {
				t.Errorf("%s shows\n%s\n%v", path, match[1], err)
			}
		}
	}
}
