package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// endurance is how often something is done: a few times, or with
// PLATELAYER_ENDURE=full as often as it takes to believe it.
func endurance(few, full int) int {
	if os.Getenv("PLATELAYER_ENDURE") == "full" {
		return full
	}
	return few
}

// endureRig runs the program on topology files in a folder of its own.
type endureRig struct {
	t                  testing.TB
	program, dir, root string
}

func newEndureRig(t testing.TB) *endureRig {
	needsRoot(t)
	dir := t.TempDir()
	r := &endureRig{t: t, program: build(t), dir: dir, root: filepath.Join(dir, "state")}
	copyBusybox(t, filepath.Join(dir, "root", "bin"))
	for _, name := range []string{"data", "conf"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "conf", "app.conf"), []byte("same\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { downAll(t, r.program, r.root) })
	return r
}

// apart is the same rig with a new state folder.
func (r *endureRig) apart() *endureRig {
	c := *r
	c.root = r.t.TempDir()
	r.t.Cleanup(func() { downAll(r.t, c.program, c.root) })
	return &c
}

func (r *endureRig) write(text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, "platelayer.yaml"), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *endureRig) run(name string, args ...string) string {
	r.t.Helper()
	c := exec.Command(r.program, append([]string{"--root", r.root, "-n", name}, args...)...)
	c.Dir = r.dir
	text, err := c.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%v: %v\n%s", args, err, text)
	}
	return string(text)
}

// gone makes sure that a topology that was taken down left nothing.
func (r *endureRig) gone(name string) {
	r.t.Helper()
	if left := leftOf(r.t, name, r.root); left != "" {
		r.t.Fatalf("down left %s", left)
	}
}

// tree lists what is below a folder.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, strings.TrimPrefix(path, dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

const endureCycle = `
backbone: {egress: none}
clusters:
  lan:
    subnet: 203.0.113.0/24
    gateway: fw
    stations:
      fw: {address: 203.0.113.1}
      db:
        rootfs: ./root
        command: [/bin/busybox, sleep, "100000"]
        startup: [/bin/busybox, touch, /data/started]
        volumes: ["./conf:/etc/app:ro", "./data:/data"]
        seal: [/etc/app, /bin]
        healthcheck: {test: [CMD, /bin/busybox, test, -e, /data/started], start_period: 10s, start_interval: 10ms}
        mem_limit: 64m
        pids_limit: 50
      job:
        rootfs: ./root
        writable: memory
        command: [/bin/busybox, "true"]
        depends_on: {db: {condition: service_healthy}}
  far: {subnet: 10.30.0.0/24, stations: {www: {restart: always, interfaces: [{cluster: lan}]}}}
`

// TestManyCycles brings a small topology up and down again and again; nothing
// is left each time, and the state folder does not grow.
func TestManyCycles(t *testing.T) {
	r := newEndureRig(t)
	name := fmt.Sprintf("t%d-cycle", os.Getpid())
	r.write(endureCycle)
	r.run(name, "seal")
	var first []string
	mounts, began := len(mountLines(t)), time.Now()
	cycles := endurance(20, 1000)
	for n := range cycles {
		r.run(name, "up")
		r.run(name, "down")
		r.gone(name)
		now := tree(t, r.root)
		if n == 0 {
			first = now
		} else if !slices.Equal(first, now) {
			t.Fatalf("after %d cycles the state folder holds\n%s\nafter the first it held\n%s", n+1, strings.Join(now, "\n"), strings.Join(first, "\n"))
		}
	}
	for pid, line := range processesOf(t, r.root) {
		t.Errorf("process %d is left: %s", pid, line)
	}
	// Others on the machine mount too: for people to judge.
	t.Logf("%d cycles in %v; the machine had %d mounts and has %d", cycles, time.Since(began), mounts, len(mountLines(t)))
}

func mountLines(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(string(text)))
}

// processesOf finds processes by a word of their command line.
func processesOf(t testing.TB, word string) map[int]string {
	t.Helper()
	all := map[int]string{}
	found, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range found {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if line := commandLine(pid); pid != os.Getpid() && bytes.Contains(line, []byte(word)) {
			all[pid] = string(line)
		}
	}
	return all
}

// TestManyEdits edits the file of a running topology at random, each time with
// `up`. In the end it is what a fresh `up` of the last file makes, and its
// keeper and folders hold no more than the fresh ones.
func TestManyEdits(t *testing.T) {
	r := newEndureRig(t)
	name, other := fmt.Sprintf("t%d-edit", os.Getpid()), fmt.Sprintf("t%d-same", os.Getpid())
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("PLATELAYER_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("PLATELAYER_SEED=%d", seed)
	e := newEditor(rand.New(rand.NewPCG(seed, seed)), 30)
	r.write(e.yaml())
	r.run(name, "up")
	keeper, err := keeperOf(r.root, name)
	if err != nil {
		t.Fatal(err)
	}
	first := footprintOf(t, keeper.Pid)
	compareEvery, began := endurance(20, 50), time.Now()
	for n := range endurance(20, 200) {
		what := e.edit()
		r.write(e.yaml())
		c := exec.Command(r.program, "--root", r.root, "-n", name, "up")
		c.Dir = r.dir
		if text, err := c.CombinedOutput(); err != nil {
			t.Fatalf("edit %d, %s: %v\n%s\n%s", n, what, err, text, e.yaml())
		}
		if (n+1)%compareEvery != 0 {
			continue
		}
		if text := r.run(name, "up"); !strings.Contains(text, "nothing has changed") {
			t.Errorf("after edit %d, %s, up has still something to do: %s", n, what, text)
		}
		fresh := r.apart()
		fresh.run(other, "up")
		if difference := differ(r.facts(name, e.hosts()), fresh.facts(other, e.hosts())); difference != "" {
			t.Errorf("after edit %d the topology is not what its file says: - has, + should have\n%s\nedits:\n%s\n%s",
				n, difference, strings.Join(e.done, "\n"), e.yaml())
		}
		freshKeeper, err := keeperOf(fresh.root, other)
		if err != nil {
			t.Fatal(err)
		}
		is, should := footprintOf(t, keeper.Pid), footprintOf(t, freshKeeper.Pid)
		t.Logf("%d edits in %v: the keeper had %v, has %v; a fresh one %v", n+1, time.Since(began), first, is, should)
		// A pipe or a thread more is the runtime's business, memory the collector's.
		if is.files > should.files+4 || is.threads > should.threads+8 || is.kilobytes > should.kilobytes+12<<10 {
			t.Errorf("the keeper has grown to %v; a fresh one is %v", is, should)
		}
		fresh.run(other, "down")
		fresh.gone(other)
	}
	if now, err := keeperOf(r.root, name); err != nil || now != keeper {
		t.Errorf("the keeper was %v and is %v (%v)", keeper, now, err)
	}
	r.run(name, "down")
	r.gone(name)
}

// footprint is what a process holds.
type footprint struct{ files, threads, kilobytes int }

func (f footprint) String() string {
	return fmt.Sprintf("%d files, %d threads, %d kB", f.files, f.threads, f.kilobytes)
}

func footprintOf(t testing.TB, pid int) footprint {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/", pid)
	files, err := os.ReadDir(dir + "fd")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dir + "status")
	if err != nil {
		t.Fatal(err)
	}
	f := footprint{files: len(files)}
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "VmRSS: %d kB", &f.kilobytes)
		fmt.Sscanf(line, "Threads: %d", &f.threads)
	}
	return f
}

// differ lists the lines that only one of two lists has.
func differ(is, should []string) string {
	var difference []string
	for _, line := range is {
		if !slices.Contains(should, line) {
			difference = append(difference, "- "+line)
		}
	}
	for _, line := range should {
		if !slices.Contains(is, line) {
			difference = append(difference, "+ "+line)
		}
	}
	return strings.Join(difference, "\n")
}

// facts tells all that can be seen of a topology, one fact a line, without what
// differs from copy to copy.
func (r *endureRig) facts(name string, hosts []string) []string {
	r.t.Helper()
	var facts []string
	add := func(format string, args ...any) {
		facts = append(facts, strings.ReplaceAll(fmt.Sprintf(format, args...), name, "NAME"))
	}
	spaces, err := filepath.Glob("/run/netns/" + name + ".*")
	if err != nil {
		r.t.Fatal(err)
	}
	if len(spaces) < 3 {
		r.t.Fatalf("topology %s has the namespaces %v", name, spaces)
	}
	for _, path := range spaces {
		for line := range strings.Lines(network(r.t, filepath.Base(path))) {
			add("%s: %s", filepath.Base(path), strings.TrimSpace(line))
		}
	}
	var list []struct {
		Container, State, Image, Reason string
		Health                          *string
		Pid                             int
		ExitCode                        *int `json:"exit_code"`
		Addresses                       []string
	}
	c := exec.Command(r.program, "--root", r.root, "-n", name, "ps", "--json")
	text, err := c.Output()
	if err != nil {
		r.t.Fatalf("ps: %v", err)
	}
	if err := json.Unmarshal(text, &list); err != nil {
		r.t.Fatal(err)
	}
	asker, running := 0, map[string]bool{}
	for _, s := range list {
		health, code := "none", "none"
		if s.Health != nil {
			health = *s.Health
		}
		if s.ExitCode != nil {
			code = fmt.Sprint(*s.ExitCode)
		}
		add("ps: %s %s %s health %s code %s %v %s", s.Container, s.State, s.Image, health, code, s.Addresses, s.Reason)
		if s.Pid == 0 {
			continue
		}
		running[s.Container] = true
		proc := fmt.Sprintf("/proc/%d/", s.Pid)
		for _, file := range []string{"cmdline", "environ", "root/etc/hosts", "root/etc/resolv.conf"} {
			text, err := os.ReadFile(proc + file)
			if err != nil {
				r.t.Fatalf("%s: %v", s.Container, err)
			}
			add("%s: %s is %q", s.Container, file, text)
		}
		if strings.HasSuffix(s.Container, ".hub") {
			asker = s.Pid
		}
	}
	for _, dir := range cgroups(r.t, "platelayer/"+name+"/*") {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue
		}
		group := filepath.Base(dir)
		add("cgroup %s", group)
		for _, limit := range []string{"memory.max", "memory.limit_in_bytes", "pids.max"} {
			text, err := os.ReadFile(filepath.Join(dir, limit))
			value := strings.TrimSpace(string(text))
			if err == nil && running[group] && value != "max" && len(value) < len("9223372036854771712") {
				add("cgroup %s: %s %s", group, limit, value)
			}
		}
	}
	for _, line := range mountLines(r.t) {
		if strings.Contains(line, name) {
			add("mount %s", strings.TrimPrefix(strings.Fields(line)[4], r.root))
		}
	}
	for _, path := range tree(r.t, filepath.Join(r.root, "run", name)) {
		add("run%s", path)
	}
	lib := filepath.Join(r.root, "lib", "topologies", name)
	for _, path := range tree(r.t, lib) {
		// The logs of what ran once stay; below stations/NAME is what they wrote.
		if strings.Count(path, "/") < 3 && !strings.HasPrefix(path, "/logs/") {
			add("lib%s", path)
		}
	}
	for _, line := range r.names(asker, hosts) {
		add("name %s", line)
	}
	slices.Sort(facts)
	return slices.Compact(facts)
}

// network tells the addresses, routes and rules of a network namespace.
func network(t testing.TB, space string) string {
	t.Helper()
	var all strings.Builder
	for _, args := range [][]string{
		{"-o", "addr", "show"}, {"route", "show", "table", "all"}, {"-4", "rule"}, {"-6", "rule"}, {"-o", "link", "show"},
	} {
		text, err := exec.Command("ip", append([]string{"-n", space}, args...)...).Output()
		if err != nil {
			t.Fatalf("ip -n %s %v: %v\n%s", space, args, err, text)
		}
		for line := range strings.Lines(string(text)) {
			if args[0] == "-o" { // without the numbers of the interface and its other end
				_, line, _ = strings.Cut(line, ": ")
				line = regexp.MustCompile(`@if\d+`).ReplaceAllString(line, "")
			}
			if strings.Contains(line, " scope link") && strings.Contains(line, " fe80:") {
				continue // follows the hardware address, which no other copy has
			}
			line, _, _ = strings.Cut(line, " link/ether ")
			all.WriteString(strings.TrimSpace(line) + "\n")
		}
	}
	return all.String()
}

// names asks the backbone, from a station's namespaces, for names that are or
// were in the file.
func (r *endureRig) names(asker int, hosts []string) []string {
	r.t.Helper()
	script := "for n; do echo =$n; /bin/busybox nslookup $n 2>&1; done; exit 0"
	args := []string{"-t", strconv.Itoa(asker), "-n", "-m", "--", "/bin/busybox", "sh", "-c", script, "sh"}
	text, err := exec.Command("nsenter", append(args, hosts...)...).CombinedOutput()
	if err != nil || !bytes.Contains(text, []byte("Name:")) {
		r.t.Fatalf("cannot look names up: %v\n%s", err, text)
	}
	var lines, answer []string
	for part := range strings.SplitSeq("\n"+string(text), "\n=") {
		host, said, _ := strings.Cut(part, "\n")
		answer = answer[:0]
		for line := range strings.Lines(said) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "Name:") {
				answer = append(answer, line)
			}
		}
		slices.Sort(answer) // several addresses take turns
		lines = append(lines, host+" "+strings.Join(answer, ", "))
	}
	return lines
}
