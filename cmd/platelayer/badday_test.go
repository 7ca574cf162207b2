package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// badDay is a topology of a test's own, and the folder of its files.
type badDay struct {
	testing.TB
	program, dir, root, name string
}

// newBadDay writes the files into a folder. The state lies below root, or
// where that is "", beside the files.
func newBadDay(t testing.TB, root string, files map[string]string) *badDay {
	needsRoot(t)
	dir := t.TempDir()
	if root == "" {
		root = filepath.Join(dir, "state")
	}
	name := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(t.Name(), "Test"), "/", "-"))
	d := &badDay{t, build(t), dir, root, fmt.Sprintf("t%d-%s", os.Getpid(), name)}
	copyBusybox(t, filepath.Join(dir, "root", "bin"))
	if err := os.Symlink("busybox", filepath.Join(dir, "root", "bin", "sh")); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { downAll(t, d.program, d.root) })
	return d
}

func (d *badDay) command(args ...string) *exec.Cmd {
	c := exec.Command(d.program, append([]string{"--root", d.root, "-n", d.name}, args...)...)
	c.Dir = d.dir
	return c
}

// run runs a command. What a killed one began may hold the lock for a moment.
func (d *badDay) run(args ...string) (text string, err error) {
	for range 500 {
		out, failed := d.command(args...).CombinedOutput()
		if text, err = string(out), failed; err == nil || !strings.Contains(text, "at work") {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return text, err
}

func (d *badDay) must(args ...string) string {
	d.Helper()
	text, err := d.run(args...)
	if err != nil {
		words, _ := os.ReadFile(filepath.Join(d.root, "lib/topologies", d.name, "logs/keeper.log"))
		d.Fatalf("%v: %v\n%s\nthe keeper's last words: %s", args, err, text, words)
	}
	return text
}

// fails wants a command to fail with code 1 and to say something.
func (d *badDay) fails(says string, args ...string) {
	d.Helper()
	text, err := d.run(args...)
	exit := new(exec.ExitError)
	if !errors.As(err, &exit) || exit.ExitCode() != exitFailed || !strings.Contains(text, says) {
		d.Errorf("%v: %v, and it does not say %q\n%s", args, err, says, text)
	}
}

// listed is a station as ps tells of it.
type listed struct {
	Name, State string
	Pid         int
}

func (d *badDay) stations() map[string]listed {
	d.Helper()
	out, err := d.command("ps", "--json").Output()
	var list []listed
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	if err != nil {
		d.Fatalf("ps: %v\n%s", err, out)
	}
	all := map[string]listed{}
	for _, s := range list {
		all[s.Name] = s
	}
	return all
}

// wait waits for something that is on its way.
func (d *badDay) wait(what string, is func() bool) {
	d.Helper()
	for deadline := time.Now().Add(awaitAtMost); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.Fatalf("not within %s: %s", awaitAtMost, what)
		}
	}
}

// The files differ in all ways: a station that stays, one that changes in
// place, one that is made anew, those that come and go, a cluster.
var betweenThese = map[string]string{
	"a.yaml": `
backbone: {egress: none}
clusters:
  lan:
    subnet: 203.0.113.0/24
    stations:
      stays: {rootfs: ./root, address: 203.0.113.11, stop_grace_period: 0s, command: [/bin/busybox, sleep, "100000"]}
      moves: {rootfs: ./root, address: 203.0.113.12, stop_grace_period: 0s, command: [/bin/busybox, sleep, "100000"]}
      again: {rootfs: ./root, address: 203.0.113.13, stop_grace_period: 0s, command: [/bin/busybox, sleep, "100000"], environment: {COLOUR: red}}
      old: {rootfs: ./root, stop_grace_period: 0s, command: [/bin/busybox, sleep, "100000"]}
`,
	"b.yaml": `
backbone: {egress: none}
clusters:
  lan:
    subnet: 203.0.113.0/24
    stations:
      stays: {rootfs: ./root, address: 203.0.113.11, stop_grace_period: 0s, command: [/bin/busybox, sleep, "100000"]}
      moves: {rootfs: ./root, address: 203.0.113.22, stop_grace_period: 0s, command: [/bin/busybox, sleep, "100000"], mem_limit: 64m}
      again: {rootfs: ./root, address: 203.0.113.13, stop_grace_period: 0s, command: [/bin/busybox, sleep, "100000"], environment: {COLOUR: green}}
  far:
    subnet: 10.30.0.0/24
    stations:
      new: {rootfs: ./root, address: 10.30.0.5, stop_grace_period: 0s, command: [/bin/busybox, sleep, "100000"], healthcheck: {test: [CMD, /bin/busybox, "true"]}, depends_on: [lan/again]}
`,
}

// TestKilledInAChange ends `up` of an edited file, its keeper or both by
// SIGKILL at random moments. The next `up` finishes the change; what it does
// not concern runs through all of it, and nothing written is lost.
func TestKilledInAChange(t *testing.T) {
	d := newBadDay(t, "", betweenThese)
	d.must("up", "a.yaml")
	stays := d.stations()["stays"]
	written := []string{"stays", "moves", "again"}
	for _, s := range written {
		d.must("exec", s, "/bin/busybox", "touch", "/precious")
	}
	kill := d.killer("up", "b.yaml")
	interrupted := 0
	for round := range 30 {
		file, what := []string{"a.yaml", "b.yaml"}[round%2], round/2%3
		if kill(what, "up", file) {
			interrupted++
		}
		d.must("up", file)
		d.checkIs(file)
		for _, s := range written {
			d.must("exec", s, "/bin/busybox", "test", "-e", "/precious")
		}
		if now := d.stations()["stays"]; now != stays {
			t.Errorf("the station that stays was %v and is %v", stays, now)
		}
		if t.Failed() {
			t.Fatalf("in round %d, %s, killed %s", round, file, victims[what])
		}
	}
	t.Logf("%d of 30 changes were interrupted", interrupted)
	d.must("down")
	if left := leftOf(t, d.name, d.root); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestStrays leaves a change where one whose keeper is killed stops at the worst:
// the new file is recorded, and a station that it has no longer, nor its cluster,
// runs. It is looked after until the next `up` ends it.
func TestStrays(t *testing.T) {
	const one = `
backbone: {egress: none}
clusters:
  lan: {stations: {one: {rootfs: ./root, stop_grace_period: 0s, command: [/bin/busybox, sleep, "100000"]}}}
`
	d := newBadDay(t, "", map[string]string{"one.yaml": one, "two.yaml": one + `
  far: {stations: {two: {rootfs: ./root, stop_grace_period: 0s, restart: always, command: [/bin/busybox, sleep, "100000"]}}}
`})
	d.must("up", "one.yaml")
	intent := filepath.Join(d.root, "lib/topologies", d.name, "topology.json")
	recorded, err := os.ReadFile(intent)
	if err != nil {
		t.Fatal(err)
	}
	d.must("up", "two.yaml")
	before := d.stations()
	for _, pid := range members(d, "platelayer/"+d.name+"/keeper") {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	d.wait("the keeper has ended", func() bool { return len(members(d, "platelayer/"+d.name+"/keeper")) == 0 })
	if err := os.WriteFile(intent, recorded, 0o600); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(d.root, "run", d.name, "state.json")
	status, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	changing := strings.Replace(string(status), `"status":"up"`, `"status":"changing"`, 1)
	if err := os.WriteFile(state, []byte(changing), 0o600); err != nil || changing == string(status) {
		t.Fatalf("the state is %s: %v", status, err)
	}
	d.must("restart")
	d.must("start")
	if now := d.stations(); now["one"].Pid == before["one"].Pid || len(commandLine(before["two"].Pid)) == 0 {
		t.Errorf("the stations were %v and are %v", before, now)
	}
	d.must("up", "one.yaml")
	if line := commandLine(before["two"].Pid); len(line) > 0 { // empty of one that nobody has reaped yet
		t.Errorf("the stray still runs: %s", line)
	}
	if now := d.stations(); len(now) != 1 || now["one"].State != "running" {
		t.Errorf("after up there is %v", now)
	}
	d.must("down")
	if left := leftOf(t, d.name, d.root); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestKilledInARestart does the same to `restart` and, later, `down`. After
// either, `up` makes of what it finds what the file says.
func TestKilledInARestart(t *testing.T) {
	d := newBadDay(t, "", betweenThese)
	for _, command := range []string{"restart", "down"} {
		d.must("up", "a.yaml")
		kill := d.killer(command)
		interrupted := 0
		for round := range 15 {
			d.must("up", "a.yaml")
			if kill(round%3, command) {
				interrupted++
			}
			d.must("up", "a.yaml")
			d.checkIs("a.yaml")
			if t.Failed() {
				t.Fatalf("in round %d of %s, killed %s", round, command, victims[round%3])
			}
		}
		t.Logf("%d of 15 commands %s were interrupted", interrupted, command)
	}
	d.must("down")
	if left := leftOf(t, d.name, d.root); left != "" {
		t.Errorf("left: %s", left)
	}
}

// killedAtStop runs a command and ends it by SIGKILL when the station slow has
// been asked to stop and still is at it. It gives the station as it was.
func killedAtStop(t *testing.T, command string) (d *badDay, before listed) {
	d = newBadDay(t, "", map[string]string{"a.yaml": `
backbone: {egress: none}
clusters:
  lan:
    stations:
      slow: {rootfs: ./root, command: [/bin/sh, -c, 'trap "echo asked; /bin/busybox sleep 1; exit 0" TERM; while :; do /bin/busybox sleep 0.05; done']}
`})
	d.must("up", "a.yaml")
	before = d.stations()["slow"]
	c := d.command(command)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	d.wait("the station is asked to stop", func() bool { return strings.Contains(d.must("logs", "slow"), "asked") })
	c.Process.Kill()
	c.Wait()
	return d, before
}

// TestKilledDown: `up` takes the wish of a killed `down` back.
func TestKilledDown(t *testing.T) {
	d, before := killedAtStop(t, "down")
	d.must("up", "a.yaml")
	d.wait("the station runs anew", func() bool {
		now := d.stations()["slow"]
		return now.State == "running" && now.Pid != before.Pid
	})
	d.must("down")
	if left := leftOf(t, d.name, d.root); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestUpAfterKilledRestart: what a killed `restart` has begun goes on, and `up`
// is done after it, not while the station still runs that it is about to end.
func TestUpAfterKilledRestart(t *testing.T) {
	d, before := killedAtStop(t, "restart")
	d.must("up", "a.yaml")
	if now := d.stations()["slow"]; now.State != "running" || now.Pid == before.Pid {
		t.Errorf("up is done, and of %v there is %v", before, now)
	}
	d.must("down")
}

var victims = []string{"the command", "its keeper", "the command and its keeper"}

// killer runs a command to its end, and gives a function that runs others and
// ends one of victims by SIGKILL meanwhile, at a random moment.
func (d *badDay) killer(args ...string) func(victim int, args ...string) (interrupted bool) {
	began := time.Now()
	d.must(args...)
	length := time.Since(began)
	seed := uint64(began.UnixNano())
	random := rand.New(rand.NewPCG(seed, seed))
	d.Logf("seed %d, %v takes %v", seed, args, length)
	return func(victim int, args ...string) bool {
		c := d.command(args...)
		if err := c.Start(); err != nil {
			d.Fatal(err)
		}
		time.Sleep(time.Duration(random.Int64N(int64(length) * 5 / 4)))
		if victim != 0 {
			for _, pid := range members(d, "platelayer/"+d.name+"/keeper") {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if victim != 1 {
			c.Process.Kill()
		}
		err := c.Wait()
		d.wait("what was killed has ended", func() bool {
			return !slices.ContainsFunc(members(d, "platelayer/"+d.name+"/keeper"), dying)
		})
		return err != nil
	}
}

// dying tells whether a process has been sent SIGKILL and has not ended yet: on
// a busy machine it takes a moment (proc_pid_status(5), ShdPnd).
func dying(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "\nShdPnd:")
	var pending uint64
	fmt.Sscanf(rest, "%x", &pending)
	return pending&(1<<(syscall.SIGKILL-1)) != 0
}

// checkIs makes sure that the topology is what one of betweenThese says.
func (d *badDay) checkIs(file string) {
	d.Helper()
	if plan := d.must("plan", file); !strings.Contains(plan, "nothing would change") {
		d.Errorf("up is done, and plan says\n%s", plan)
	}
	want, moves, colour := []string{"again", "moves", "old", "stays"}, "203.0.113.12", "red"
	if file == "b.yaml" {
		want, moves, colour = []string{"again", "moves", "new", "stays"}, "203.0.113.22", "green"
	}
	var have []string
	for name, s := range d.stations() {
		have = append(have, name)
		if s.State != "running" {
			d.Errorf("up is done, and %s is %s", name, s.State)
		}
	}
	if slices.Sort(have); !slices.Equal(have, want) {
		d.Errorf("up is done, and there are %v", have)
	}
	if env := d.must("exec", "again", "/bin/busybox", "env"); !strings.Contains(env, "COLOUR="+colour) {
		d.Errorf("up is done, and again has\n%s", env)
	}
	d.must("exec", "stays", "/bin/busybox", "ping", "-c", "1", "-W", "5", moves)
	if file == "b.yaml" {
		d.must("exec", "stays", "/bin/busybox", "ping", "-c", "1", "-W", "5", "10.30.0.5")
	}
	found, err := filepath.Glob("/run/netns/" + d.name + ".*")
	if err != nil || len(found) != len(want)+2 { // the fabric's and the backbone's
		d.Errorf("up is done, and the namespaces are %v (%v)", found, err)
	}
}

const fullTopology = `
backbone: {egress: none}
clusters:
  lan:
    stations:
      db:
        rootfs: ./root
        restart: always
        stop_grace_period: 0s
        command: [/bin/sh, -c, "while true; do echo %d; /bin/busybox usleep 10000; done"]
      app: {rootfs: ./root, command: [/bin/busybox, sleep, "%d"]}
`

// TestFullDisk has all state on a small file system that is full at the worst
// moments. Commands say so, nothing written is lost, and with room again all
// goes on.
func TestFullDisk(t *testing.T) {
	needsRoot(t)
	t.Run("ext4", func(t *testing.T) {
		image := filepath.Join(t.TempDir(), "disk")
		if text, err := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-m", "0", image, "64M").CombinedOutput(); err != nil {
			t.Skipf("cannot make a file system in a file: %v\n%s", err, text)
		}
		fillDisk(t, "-o", "loop,nodelalloc", image)
	})
	t.Run("tmpfs", func(t *testing.T) { fillDisk(t, "-t", "tmpfs", "-o", "size=64m", "small") })
}

func fillDisk(t *testing.T, mount ...string) {
	root := filepath.Join(t.TempDir(), "mount")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command("mount", append(mount, root)...).CombinedOutput(); err != nil {
		t.Fatalf("cannot mount a small disk: %v\n%s", err, text)
	}
	t.Cleanup(func() {
		if text, err := exec.Command("umount", root).CombinedOutput(); err != nil {
			t.Errorf("cannot unmount the small disk: %v\n%s", err, text)
		}
	})
	d := newBadDay(t, root, map[string]string{
		"t.yaml": fmt.Sprintf(fullTopology, 0, 1000), "edited.yaml": fmt.Sprintf(fullTopology, 0, 2000),
	})
	precious := func() {
		t.Helper()
		if text := d.must("exec", "db", "/bin/busybox", "cat", "/data"); text != "precious\n" {
			t.Errorf("what db had written is %q", text)
		}
	}
	const full = "no space left on device"

	free := d.fill()
	d.fails(full, "up", "t.yaml")
	if left := leftOf(t, d.name, root+"/"); left != "" {
		t.Errorf("a refused up left %s", left)
	}
	free()
	d.must("up", "t.yaml")
	d.must("exec", "db", "/bin/sh", "-c", "echo precious > /data")

	// Stations go on, and are repaired; a change is refused before it begins.
	before := d.stations()
	free = d.fill()
	d.fails(full, "up", "edited.yaml")
	d.must("exec", "db", "/bin/sh", "-c", "/bin/busybox yes | /bin/busybox head -c 200000 > /proc/1/fd/1")
	d.must("kill", "db")
	if now := d.stations(); now["app"] != before["app"] {
		t.Errorf("a refused change made %v of %v", now["app"], before["app"])
	}
	d.wait("db again", func() bool { return len(members(t, "platelayer/"+d.name+"/"+d.name+".lan.db")) > 0 })
	free()
	d.wait("the state tells of the new db", func() bool {
		db := d.stations()["db"]
		return db.State == "running" && db.Pid != before["db"].Pid
	})
	precious()
	d.wait("the log tells what was lost", func() bool { return strings.Contains(d.must("logs", "db"), "bytes lost: "+full) })
	d.must("up", "edited.yaml")
	if now := d.stations(); now["app"].Pid == before["app"].Pid || now["app"].State != "running" {
		t.Errorf("the change made %v of %v", now["app"], before["app"])
	}

	// Without its keeper.
	before = d.stations()
	free = d.fill()
	if err := endKeeper(root, d.name); err != nil {
		t.Fatal(err)
	}
	d.fails(full, "up", "t.yaml")
	d.fails(full, "restart", "app")
	free()
	d.must("up", "edited.yaml")
	if now := d.stations(); now["app"] != before["app"] || now["db"] != before["db"] {
		t.Errorf("what ran without a keeper was %v and is %v", before, now)
	}
	precious()

	// As after a reboot; what was written stays for a better day.
	d.must("stop")
	for _, pid := range members(t, "platelayer/"+d.name+"/*") {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	d.wait("all gone", func() bool { return len(members(t, "platelayer/"+d.name+"/*")) == 0 })
	free = d.fill()
	d.fails(full, "up", "t.yaml")
	free()
	d.must("up", "t.yaml")
	precious()

	d.fill() // down needs no room
	d.must("down")
	if left := leftOf(t, d.name, root+"/"); left != "" {
		t.Errorf("down left %s", left)
	}
}

// fill writes until nothing fits any more, not even small files. free undoes it.
func (d *badDay) fill() (free func()) {
	d.Helper()
	dir := filepath.Join(d.root, "fill")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		d.Fatal(err)
	}
	// A large file, and small ones that take the crumbs.
	for n, size := 0, int64(1)<<40; ; n, size = n+1, 1 {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(n)))
		if err == nil {
			_, err = io.CopyN(f, zeroes{}, size)
			f.Close()
		}
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			d.Fatalf("cannot fill the disk: %v", err)
		}
		if err != nil && size == 1 {
			break
		}
	}
	return func() {
		if err := os.RemoveAll(dir); err != nil {
			d.Fatal(err)
		}
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestFewDescriptors starts `up` with low limits of open files. A soft one
// does not matter; a hard one that is too low, and that can't be raised, makes
// `up` fail and leave nothing.
func TestFewDescriptors(t *testing.T) {
	var text bytes.Buffer
	text.WriteString("backbone: {egress: none}\nclusters:\n  lan:\n    stations:\n")
	for i := range 30 {
		fmt.Fprintf(&text, "      s%d: {rootfs: ./root, command: [/bin/busybox, sleep, \"100000\"]}\n", i)
	}
	d := newBadDay(t, "", map[string]string{"t.yaml": text.String()})
	limited := func(limit string) (string, error) {
		args := append([]string{"--nofile=" + limit}, d.command("up", "t.yaml").Args...)
		c := exec.Command("prlimit", args...)
		c.Dir = d.dir
		out, err := c.CombinedOutput()
		return string(out), err
	}

	if said, err := limited("32:"); err != nil {
		t.Fatalf("with a soft limit of 32: %v\n%s", err, said)
	}
	keeper, err := keeperOf(d.root, d.name)
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", keeper.Pid))
	if err != nil || len(files) <= 32 {
		t.Errorf("the keeper has %d files open (%v): nothing was tried", len(files), err)
	}
	limits := d.must("exec", "s0", "/bin/busybox", "sh", "-c", "ulimit -n")
	if strings.TrimSpace(limits) != "1024" {
		t.Errorf("a station may open %s files", limits)
	}
	d.must("down")

	for _, limit := range []string{"12:12", "20:20", "40:40", "80:80"} {
		said, err := limited(limit)
		switch {
		case err == nil: // the limit could be raised
			if now := d.stations(); len(now) != 30 {
				t.Errorf("with a hard limit of %s, up made %d stations", limit, len(now))
			}
			d.must("down")
		case !strings.Contains(said, "too many open files"):
			t.Errorf("with a hard limit of %s: %v\n%s", limit, err, said)
		}
		if left := leftOf(t, d.name, d.root); left != "" {
			t.Errorf("with a hard limit of %s, left: %s", limit, left)
		}
	}
}
