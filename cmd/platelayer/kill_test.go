package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilledAnywhere ends `up` or its keeper by SIGKILL at random moments, 50
// times; `down` then leaves nothing. A running topology's stations survive
// their keeper.
func TestKilledAnywhere(t *testing.T) {
	needsRoot(t)
	program, root := build(t), t.TempDir()
	file, err := filepath.Abs("../../examples/hello/platelayer.yaml")
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("t%d-kill", os.Getpid())
	t.Cleanup(func() { downAll(t, program, root) })
	run := func(args ...string) ([]byte, error) {
		return exec.Command(program, append([]string{"--root", root, "-n", name}, args...)...).CombinedOutput()
	}
	mustRun := func(args ...string) {
		t.Helper()
		if text, err := run(args...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, text)
		}
	}

	began := time.Now()
	mustRun("up", file)
	length := time.Since(began)
	mustRun("down")

	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, seed))
	t.Logf("seed %d, an up takes %v", seed, length)
	early, survived := 0, 0
	for round := range 50 {
		up := exec.Command(program, "--root", root, "-n", name, "up", file)
		if err := up.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.Int64N(int64(length) * 5 / 4)))
		what := "up"
		if round%2 == 0 {
			syscall.Kill(up.Process.Pid, syscall.SIGKILL)
		} else {
			what = "keeper"
			for _, pid := range members(t, "platelayer/"+name+"/keeper") {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		err := up.Wait()
		if err != nil {
			early++
		} else if what == "keeper" {
			// The topology was up when its keeper went: its stations go on.
			if text, err := run("exec", "alice", "fetch", "http://dave/"); err != nil {
				t.Fatalf("round %d: a station did not survive its keeper: %v\n%s", round, err, text)
			}
			survived++
		}
		// An orphaned keeper may be at work on its own undoing: then down
		// finds the lock taken, as it would for a user.
		var text []byte
		for range 100 {
			if text, err = run("down"); err == nil || !strings.Contains(string(text), "at work") {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			t.Fatalf("round %d, killed %s: down: %v\n%s", round, what, err, text)
		}
		if left := leftOf(t, name, root); left != "" {
			t.Fatalf("round %d, killed %s: down left %s", round, what, left)
		}
	}
	t.Logf("%d of 50 were ended before the topology was up; %d topologies outlived their keeper", early, survived)
	// An undo that was on its way ends with nothing of its own left.
	deadline := time.Now().Add(10 * time.Second)
	for left := "?"; left != ""; time.Sleep(50 * time.Millisecond) {
		if left = leftOf(t, name, root); left != "" && time.Now().After(deadline) {
			t.Fatalf("left at the end: %s", left)
		}
	}
}

// cgroups lists a cgroup's folders in all hierarchies.
func cgroups(t testing.TB, name string) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		found, err := filepath.Glob(pattern + name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

func members(t testing.TB, name string) []int {
	var pids []int
	for _, dir := range cgroups(t, name) {
		text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, field := range strings.Fields(string(text)) {
			var pid int
			fmt.Sscan(field, &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

// leftOf looks for anything that carries the topology's name.
func leftOf(t testing.TB, name, root string) string {
	t.Helper()
	var left []string
	left = append(left, cgroups(t, "platelayer/"+name+"*")...)
	for _, pattern := range []string{"/run/netns/" + name + "*", root + "/run/" + name + "*", root + "/lib/topologies/" + name + "*"} {
		found, _ := filepath.Glob(pattern)
		left = append(left, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/"+name) || strings.Contains(line, root) { // a name may end as another does
			left = append(left, strings.TrimSpace(line))
		}
	}
	links, err := exec.Command("ip", "link").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(links)) {
		if strings.Contains(line, "alias platelayer "+name) {
			left = append(left, "the uplink: "+strings.TrimSpace(line))
		}
	}
	return strings.Join(left, ", ")
}
