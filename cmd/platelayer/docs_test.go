package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"platelayer/containers/native"
	"platelayer/lifecycle"
	"platelayer/netplan/kernel"
	"platelayer/topology"
)

// copyOfHello is a running copy of examples/hello.
type copyOfHello struct {
	t             *testing.T
	program, root string
	name          string
}

func upHello(t *testing.T, flags ...string) *copyOfHello {
	t.Helper()
	needsRoot(t)
	h := &copyOfHello{t, build(t), t.TempDir(), fmt.Sprintf("docs%d", os.Getpid())}
	t.Cleanup(func() { downAll(t, h.program, h.root) })
	h.run(append([]string{"up", "../../examples/hello/platelayer.yaml"}, flags...)...)
	return h
}

// run runs the program about this copy.
func (h *copyOfHello) run(args ...string) string {
	h.t.Helper()
	text, err := exec.Command(h.program, append(args, "--root", h.root, "-n", h.name)...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%v: %v\n%s", args, err, text)
	}
	return string(text)
}

// dial connects to its keeper.
func (h *copyOfHello) dial() (net.Conn, *bufio.Reader) {
	h.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(h.root, "run", h.name, "keeper.sock"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(awaitAtMost))
	return conn, bufio.NewReader(conn)
}

// disturb changes the state until who watches is told: nothing says from when
// on that is.
func (h *copyOfHello) disturb(conn net.Conn, lines *bufio.Reader) {
	h.t.Helper()
	for deadline := time.Now().Add(awaitAtMost); ; {
		h.run("pause", "alice")
		h.run("unpause", "alice")
		conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := lines.Peek(1); err == nil {
			return
		} else if time.Now().After(deadline) {
			h.t.Fatalf("nothing is told of a change: %v", err)
		}
	}
}

// TestKeeperAPI holds the sessions that docs/keeper-api.md shows.
func TestKeeperAPI(t *testing.T) {
	data, err := os.ReadFile("../../docs/keeper-api.md")
	if err != nil {
		t.Fatal(err)
	}
	h := upHello(t)
	took := regexp.MustCompile(`"took":\d+`)
	shown := regexp.MustCompile("(?ms)^<!-- (session|watch) -->\n```\n(.*?)^```").FindAllStringSubmatch(string(data), -1)
	if len(shown) < 4 {
		t.Fatalf("docs/keeper-api.md shows %d sessions", len(shown))
	}
	for _, s := range shown {
		kind, want := s[1], strings.ReplaceAll(s[2], "hello", h.name)
		conn, lines := h.dial()
		var got strings.Builder
		for line := range strings.Lines(want) {
			if request, ok := strings.CutPrefix(line, "> "); ok {
				got.WriteString(line)
				if _, err := conn.Write([]byte(request)); err != nil {
					t.Fatal(err)
				}
				if kind == "watch" {
					h.disturb(conn, lines)
				}
				continue
			}
			reply, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("%s\nbut the keeper said only\n%s%v", want, &got, err)
			}
			got.WriteString("< " + reply)
		}
		if d := cmp.Diff(took.ReplaceAllString(want, "T"), took.ReplaceAllString(got.String(), "T")); d != "" {
			t.Errorf("docs/keeper-api.md shows another session (-document +now):\n%s", d)
		}
		if kind == "watch" {
			continue
		}
		if rest, err := lines.ReadString('\n'); err == nil {
			t.Errorf("after\n%s\nthe keeper said %s", want, rest)
		}
	}
}

// TestUnit has the unit in docs bring a marked topology up after a reboot, and
// stop its stations before the next.
func TestUnit(t *testing.T) {
	data, err := os.ReadFile("../../docs/platelayer.service")
	if err != nil {
		t.Fatal(err)
	}
	h := upHello(t, "--at-boot")
	system := func(key string) {
		t.Helper()
		_, line, found := strings.Cut(string(data), "\n"+key+"=")
		line, _, _ = strings.Cut(line, "\n")
		if !found {
			t.Fatalf("the unit has no %s", key)
		}
		// systemd.service(5), "Command lines": $$ is a dollar sign.
		line = strings.ReplaceAll(line, "$$", "$")
		if script, ok := strings.CutPrefix(line, `/bin/sh -c "`); ok {
			line = strings.TrimSuffix(script, `"`)
		}
		c := exec.Command("/bin/sh", "-c", strings.ReplaceAll(line, "/usr/local/bin/platelayer", h.program))
		c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PLATELAYER_ROOT=" + h.root}
		if text, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, text)
		}
	}
	system("ExecStop")
	if ps := h.run("ps"); strings.Count(ps, "stopped") != 4 {
		t.Errorf("the unit has not stopped the stations:\n%s", ps)
	}
	h.reboot()
	if ls := h.run("ls"); !strings.Contains(ls, " down ") {
		t.Errorf("after a reboot:\n%s", ls)
	}
	system("ExecStop") // nothing runs: nothing to complain about
	system("ExecStart")
	if ps := h.run("ps"); strings.Count(ps, " running ") != 4 {
		t.Errorf("the unit has not brought the stations up:\n%s", ps)
	}
}

// reboot takes from the machine what a reboot would.
func (h *copyOfHello) reboot() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), awaitAtMost)
	defer cancel()
	run := filepath.Join(h.root, "run", h.name)
	for _, err := range []error{
		native.KillCgroup(ctx, "platelayer/"+h.name),
		kernel.Remove(kernel.Options{PinDir: filepath.Join(run, "pins"), NetNSDir: lifecycle.NewLayout(h.root).NetNS}),
		native.RemoveCgroup("platelayer/" + h.name),
		os.RemoveAll(run),
	} {
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

func documents(t *testing.T) (all []string) {
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/decisions/*.md", "../../examples/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no documents %s: %v", pattern, err)
		}
		all = append(all, found...)
	}
	return all
}

// TestLinks wants whatever the documents link to.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	anchors := func(path string) (all []string) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range heading.FindAllStringSubmatch(string(data), -1) {
			plain := regexp.MustCompile("[^a-z0-9 _-]").ReplaceAllString(strings.ToLower(h[1]), "")
			all = append(all, strings.ReplaceAll(plain, " ", "-"))
		}
		return all
	}
	for _, path := range documents(t) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(data), -1) {
			target, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			to := path
			if target != "" {
				to = filepath.Join(filepath.Dir(path), target)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s: %v", path, match[1], err)
			} else if anchor != "" && !slices.Contains(anchors(to), anchor) {
				t.Errorf("%s links to %s, which has no such heading", path, match[1])
			}
		}
	}
}

// TestLifeIsComplete wants every event, and every key that up compares, in
// docs/life.md, the keys in the column that says what becomes of the process.
func TestLifeIsComplete(t *testing.T) {
	data, err := os.ReadFile("../../docs/life.md")
	if err != nil {
		t.Fatal(err)
	}
	life := string(data)
	source := func(path, pattern string) [][]string {
		t.Helper()
		code, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(string(code), -1)
		if len(found) == 0 {
			t.Fatalf("%s has no %s", path, pattern)
		}
		return found
	}
	_, events, _ := strings.Cut(life, "| `event` | |")
	events, _, _ = strings.Cut(events, "\n\n")
	for _, e := range source("../../lifecycle/events.go", `EventKind = "(\w+)"`) {
		if !strings.Contains(events, "`"+e[1]+"`") {
			t.Errorf("docs/life.md does not explain the event %s", e[1])
		}
	}
	_, table, _ := strings.Cut(life, "| In place | Recreate |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	column := map[string]string{}
	for row := range strings.Lines(table) {
		for i, cell := range strings.Split(strings.Trim(row, "|\n"), "|") {
			column[[]string{"false", "true"}[i]] += cell
		}
	}
	keyOf := map[string]string{"manifest": "integrity", "resources": "cpus", "files": "secrets"}
	const fields = `\{"(\w+)", \w+, (true|false), func`
	for _, f := range append(source("../../lifecycle/compare_fields.go", fields), source("../../lifecycle/compare_limits.go", fields)...) {
		key, renamed := keyOf[f[1]]
		if !renamed {
			key = f[1]
		}
		if !strings.Contains(column[f[2]], "`"+key+"`") {
			t.Errorf("docs/life.md does not say of %s whether it replaces the process: %s", key, f[2])
		}
	}
}

// TestDocsFiles: topology files in the documents are ones that load.
func TestDocsFiles(t *testing.T) {
	block := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	for _, path := range documents(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range block.FindAllSubmatchIndex(text, -1) {
			file := text[found[2]:found[3]]
			if !regexp.MustCompile(`(?m)^clusters:`).Match(file) {
				continue
			}
			if _, err := topology.Load(path, file, topology.Options{Name: "docs", Dir: t.TempDir()}); err != nil {
				t.Errorf("%s, line %d: %v", path, 1+strings.Count(string(text[:found[2]]), "\n"), err)
			}
		}
	}
}
