package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A scenario is a command that meets one fault at each of its points, one run
// for each.
type scenario struct {
	name    string
	cold    bool       // with an empty store
	before  [][]string // run without faults, but what they leave running has points
	adopts  bool       // the keeper is killed before it, and the stations stay whatever happens
	command []string
	www     string // its state after a success, when all others run; "" is nothing left at all
	more    int    // stations than the file has, then
	undoes  bool   // an error leaves nothing
}

// faultScenarios share points: one is tried where it occurs first.
var faultScenarios = []scenario{
	{name: "up", command: []string{"up"}, www: "running", undoes: true},
	{name: "first", cold: true, command: []string{"up"}, www: "running", undoes: true},
	{name: "change", before: [][]string{{"up"}}, command: []string{"up", "edited.yaml"}, www: "running", more: 1},
	{name: "scale", before: [][]string{{"up"}}, command: []string{"scale", "pool=3"}, www: "running", more: 1},
	{name: "restart", before: [][]string{{"up"}}, command: []string{"restart", "db"}, www: "running"},
	{name: "stop", before: [][]string{{"up"}}, command: []string{"stop", "www"}, www: "stopped"},
	{name: "start", before: [][]string{{"up"}, {"stop", "www"}}, command: []string{"start", "www"}, www: "running"},
	{name: "pause", before: [][]string{{"up"}}, command: []string{"pause", "www"}, www: "paused"},
	{name: "unpause", before: [][]string{{"up"}, {"pause", "www"}}, command: []string{"unpause", "www"}, www: "running"},
	{name: "adopt", before: [][]string{{"up"}}, adopts: true, command: []string{"ps"}, www: "running"},
	{name: "down", before: [][]string{{"up"}}, command: []string{"down"}},
}

// faultStations is how many the file has.
const faultStations = 6

// commandLimit is far above what any command takes, also on a busy machine. It
// is waited for in pieces, as a virtual machine may have been paused in one.
const commandLimit = time.Minute

// TestFaults makes each system call by which the program changes something
// fail, once by an error and once by SIGKILL. Whatever the command then says is
// true, `down` leaves nothing, and `up` works. FAULT_STRIDE=1 takes all points,
// 10 a tenth of them, and FAULT_OFFSET chooses which.
func TestFaults(t *testing.T) {
	needsRoot(t)
	stride, offset := setting(t, "FAULT_STRIDE", 61), setting(t, "FAULT_OFFSET", 0)
	h := newFaultHarness(t)
	before := interfaces(t)
	began := time.Now()
	defer func() { t.Logf("took %s", time.Since(began).Round(time.Second)) }()
	known := map[string]bool{}
	for _, s := range faultScenarios {
		t.Run(s.name, func(t *testing.T) {
			points := slices.DeleteFunc(h.with(t).count(s), func(p point) bool { return known[p.name] })
			for _, p := range points {
				known[p.name] = true
			}
			tried, reached := 0, 0
			for n, p := range points {
				for m, how := range []string{failing, killing, orphaning} {
					if how == orphaning && !p.child || (n+m)%stride != offset%stride {
						continue
					}
					t.Run(fmt.Sprintf("%s/%04d", how, n), func(t *testing.T) {
						tried++
						if h.with(t).meet(s, p, how, tried%10 == 0) {
							reached++
						}
					})
				}
			}
			t.Logf("%d points; of %d faults %d were reached", len(points), tried, reached)
			// Of a few, some may well be other ones this time.
			if few := tried < 20; !few && reached < tried*9/10 || few && tried > 3 && reached == 0 {
				t.Errorf("only %d of %d points were reached: their names change from run to run", reached, tried)
			}
		})
	}
	for range 50 {
		if slices.Equal(interfaces(t), before) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("the machine's interfaces were %v and are %v", before, interfaces(t))
}

func interfaces(t *testing.T) []string {
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = f.Name
	}
	return names
}

func setting(t *testing.T, key string, value int) int {
	if text := os.Getenv(key); text != "" {
		var err error
		if value, err = strconv.Atoi(text); err != nil || value < 0 {
			t.Fatalf("%s=%q is no number", key, text)
		}
	}
	return value
}

// faultHarness runs commands on one topology of its own.
type faultHarness struct {
	t                        *testing.T
	program, dir, root, name string
}

func newFaultHarness(t *testing.T) *faultHarness {
	dir := t.TempDir()
	h := &faultHarness{t: t, program: build(t), dir: dir, root: filepath.Join(dir, "state"), name: fmt.Sprintf("t%d-fault", os.Getpid())}
	copyBusybox(t, filepath.Join(dir, "root", "bin"))
	for name, text := range map[string]string{"platelayer.yaml": faultTopology, "edited.yaml": faultEdit.Replace(faultTopology), "conf/app.conf": "same\n", "data/.keep": "", "tmp/.keep": ""} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "data"), 0o777); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.clear() })
	h.must("seal")
	return h
}

const faultTopology = `
backbone: {egress: none}
clusters:
  edge:
    domain: edge.example
    subnets: [203.0.113.0/24, "fd30::/64"]
    gateway: fw
    stations:
      fw: {addresses: [203.0.113.1, "fd30::1"], writable: memory}
      www:
        rootfs: ./root
        addresses: [203.0.113.11, "fd30::11"]
        command: [/bin/busybox, sleep, "100000"]
        volumes: ["./conf:/etc/app:ro", "./data:/data"]
        seal: [/etc/app, /bin]
        routes: [{to: 198.51.100.0/24, via: 203.0.113.1}]
        interfaces: [{cluster: core, addresses: [10.20.0.11, "fd20::11"]}]
        depends_on: {fw: , core/db: {condition: service_healthy, restart: true}}
        startup: [/bin/busybox, touch, /data/begun]
        healthcheck: {test: [CMD, /bin/busybox, test, -f, /data/begun], interval: 1h}
        restart: on-failure
        labels: {tier: front}
        logging: {options: {max-size: 1m, max-file: 3}}
        user: "1000:1000"
        mem_limit: 64m
        pids_limit: 50
  core:
    domain: core.example
    subnets: [10.20.0.0/24, "fd20::/64"]
    stations:
      db: {addresses: [10.20.0.10, "fd20::10"], healthcheck: {test: [CMD, fetch, "http://127.0.0.1/"], interval: 1h}}
      pool: {replicas: 2, restart: always}
      tool: {rootfs: host, command: [/bin/sleep, "100000"], working_dir: /srv/new}
`

// faultEdit makes a file that removes, adds and changes stations.
var faultEdit = strings.NewReplacer("mem_limit: 64m", "mem_limit: 80m", "tool:", "other:", "198.51.100.0/24", "198.51.100.0/25",
	"max-file: 3", "max-file: 2", "tier: front", "tier: back", "replicas: 2", "replicas: 3")

func (h *faultHarness) with(t *testing.T) *faultHarness {
	c := *h
	c.t = t
	return &c
}

func (h *faultHarness) command(args ...string) *exec.Cmd {
	c := exec.Command(h.program, append([]string{"--root", h.root, "-n", h.name}, args...)...)
	c.Dir = h.dir
	// One thread's calls have one order; what is left in TMPDIR is seen.
	c.Env = append(os.Environ(), "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1", "TMPDIR="+filepath.Join(h.dir, "tmp"))
	return c
}

// run runs a command without faults. An undo that a killed command's keeper has
// begun holds the lock for a moment, as a user would see it.
func (h *faultHarness) run(args ...string) (text []byte, err error) {
	for range 200 {
		text, err = h.command(args...).CombinedOutput()
		if err == nil || !bytes.Contains(text, []byte("at work")) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return text, err
}

func (h *faultHarness) must(args ...string) {
	h.t.Helper()
	if text, err := h.run(args...); err != nil {
		h.t.Fatalf("%v: %v\n%s", args, err, text)
	}
}

// attempt is what became of a command below the filter.
type attempt struct {
	trapped []*supervisor
	points  []point
	hit     bool
	err     error
	text    string
}

// attempt runs a scenario with at most one fault, in its last command.
func (h *faultHarness) attempt(s scenario, at, how string) *attempt {
	h.t.Helper()
	if s.cold {
		for _, dir := range []string{h.root, filepath.Join(h.dir, "tmp")} {
			if err := os.RemoveAll(dir); err != nil {
				h.t.Fatal(err)
			}
		}
		if err := os.Mkdir(filepath.Join(h.dir, "tmp"), 0o777); err != nil {
			h.t.Fatal(err)
		}
	}
	a := new(attempt)
	i := &injector{root: h.root, name: h.name, off: true, seen: map[string]int{}, last: map[uint32]trappedCall{}, at: at, how: how}
	for _, args := range s.before {
		if h.trap(a, i, args); a.err != nil {
			h.t.Fatalf("%v: %v\n%s", args, a.err, a.text)
		}
	}
	if s.adopts {
		h.killKeeper()
	}
	i.start()
	h.trap(a, i, s.command)
	a.points, a.hit = i.stop()
	return a
}

// trap runs one command of an attempt.
func (h *faultHarness) trap(a *attempt, i *injector, args []string) {
	h.t.Helper()
	c := h.command(args...)
	var text bytes.Buffer
	c.Stdout, c.Stderr = &text, &text
	supervisor, err := startTrapped(c, i.decide)
	if err != nil {
		h.t.Fatalf("cannot run %v: %v\n%s", args, err, text.String())
	}
	a.trapped = append(a.trapped, supervisor)
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	if a.err, err = within(commandLimit, ended); err != nil {
		dump := h.dump()
		a.err = <-ended
		h.t.Errorf("%v did not end; its goroutines:\n%s\n%s", args, dump, text.String())
	}
	a.text = text.String()
}

func within[T any](limit time.Duration, c <-chan T) (v T, err error) {
	for range 4 {
		select {
		case v = <-c:
			return v, nil
		case <-time.After(limit / 4):
		}
	}
	return v, errors.New("it takes too long")
}

// count finds the points of a run without faults.
func (h *faultHarness) count(s scenario) []point {
	h.t.Helper()
	a := h.attempt(s, "", "")
	if a.err != nil {
		h.t.Fatalf("%v: %v\n%s", s.command, a.err, a.text)
	}
	h.must("down")
	h.checkGone(a)
	return a.points
}

// meet runs the scenario with a fault at one point, cleans up, and now and then
// tries anew. It tells whether the point was reached.
func (h *faultHarness) meet(s scenario, p point, how string, again bool) bool {
	h.t.Helper()
	h.t.Logf("%s at %q", how, p.name)
	defer func() {
		if h.t.Failed() {
			h.clear()
		}
	}()
	a := h.attempt(s, p.name, how)
	h.t.Logf("reached: %t, ended with %v\n%s", a.hit, a.err, a.text)
	switch {
	case s.adopts, a.err == nil && s.www != "":
		h.checkUp(s.www, s.more)
	case a.err == nil, s.undoes && how == failing:
		if left := leftOf(h.t, h.name, h.root); left != "" {
			h.t.Errorf("%v left %s", s.command, left)
		}
	}
	if again && a.err != nil && how == failing {
		h.must(s.command...)
	}
	if text, err := h.run("down"); err != nil {
		h.t.Errorf("down afterwards: %v\n%s", err, text)
	} else if left := leftOf(h.t, h.name, h.root); left != "" {
		h.t.Errorf("down left %s", left)
	}
	h.checkGone(a)
	if again || s.cold {
		h.must("up")
		h.checkUp("running", 0)
		for _, pattern := range []string{h.root + "/lib/images/*/.*[0-9]", h.dir + "/tmp/.*[0-9]"} {
			if temps, _ := filepath.Glob(pattern); len(temps) > 0 {
				h.t.Errorf("temporary files are left: %v", temps)
			}
		}
		h.must("down")
	}
	return a.hit
}

// checkUp makes sure that www is in a state, that all others run, and that
// names and routes lead from one cluster through its gateway to another.
func (h *faultHarness) checkUp(www string, more int) {
	h.t.Helper()
	out, err := h.command("ps", "--json").Output()
	if err != nil {
		h.t.Errorf("ps: %v\n%s", err, out)
		return
	}
	var list []struct{ Name, State, Health string }
	if err := json.Unmarshal(out, &list); err != nil {
		h.t.Errorf("ps: %v\n%s", err, out)
	}
	for _, s := range list {
		want := "running"
		if s.Name == "www" {
			want = www
		}
		if s.State != want || s.State == "running" && s.Health != "" && s.Health != "healthy" {
			h.t.Errorf("it was done, they said, but %s is %s %s", s.Name, s.State, s.Health)
		}
	}
	if want := faultStations + more; len(list) != want {
		h.t.Errorf("it was done, they said, with %d of %d stations", len(list), want)
	}
	for _, args := range [][]string{
		{"exec", "db", "fetch", "http://fw.edge.example/"},
		{"exec", "fw", "fetch", "http://[fd20::10]/"},
		{"exec", "www", "/bin/busybox", "touch", "/data/written"},
	} {
		if args[1] == "www" && www != "running" {
			continue
		}
		// A server that has just started may not listen yet.
		for range 50 {
			if out, err = h.command(args...).CombinedOutput(); err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if err != nil {
			h.t.Errorf("it was done, they said, but %v: %v\n%s", args, err, out)
		}
	}
}

// checkGone waits until no process of a run is left; nothing comes back then.
func (h *faultHarness) checkGone(a *attempt) {
	h.t.Helper()
	for _, s := range a.trapped {
		if _, err := within(commandLimit, s.gone); err != nil {
			h.t.Errorf("processes are left: %s", strings.Join(h.processes(func(pid int) string {
				return fmt.Sprintf("%d %q", pid, commandLine(pid))
			}), ", "))
			return
		}
	}
	if left := leftOf(h.t, h.name, h.root); left != "" {
		h.t.Errorf("left when all processes had ended: %s", left)
	}
}

// processes calls f for the program's processes on this topology.
func (h *faultHarness) processes(f func(pid int) string) []string {
	var all []string
	found, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range found {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if bytes.Contains(commandLine(pid), []byte(h.root)) {
			all = append(all, f(pid))
		}
	}
	return all
}

// dump ends a run that hangs and gives its keeper's goroutines; those of the
// command are in its output.
func (h *faultHarness) dump() string {
	quit := func(pid int) string {
		syscall.Kill(pid, syscall.SIGQUIT)
		return ""
	}
	for n := 0; n < 100 && len(h.processes(quit)) > 0; n++ {
		quit = func(int) string { return "" }
		time.Sleep(100 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(h.root, "lib", "topologies", h.name, "logs", "keeper.log"))
	h.kill()
	return string(log)
}

// killKeeper kills it and waits until it is gone.
func (h *faultHarness) killKeeper() {
	h.t.Helper()
	keeper := func(signal syscall.Signal) (found bool) {
		h.processes(func(pid int) string {
			if slices.Contains(strings.Split(string(commandLine(pid)), "\x00"), "keeper") {
				found = true
				syscall.Kill(pid, signal)
			}
			return ""
		})
		return found
	}
	if !keeper(syscall.SIGKILL) {
		h.t.Fatal("there is no keeper to kill")
	}
	for n := 0; keeper(0); n++ {
		if n > 1000 {
			h.t.Fatal("the keeper does not end")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (h *faultHarness) kill() {
	h.processes(func(pid int) string {
		syscall.Kill(pid, syscall.SIGKILL)
		return ""
	})
	for _, pid := range members(h.t, "platelayer/"+h.name+"/*") {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// clear takes away what a failed check left, for the next to start anew.
func (h *faultHarness) clear() {
	h.kill()
	if text, err := h.run("down"); err != nil {
		h.t.Logf("clearing: %v\n%s", err, text)
	}
}
