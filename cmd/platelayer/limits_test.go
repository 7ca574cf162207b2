package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// limited is a topology whose files a test edits.
type limited struct {
	t                        *testing.T
	program, root, dir, name string
}

func newLimited(t *testing.T) *limited {
	needsRoot(t)
	l := &limited{t: t, program: build(t), root: t.TempDir(), dir: t.TempDir(), name: fmt.Sprintf("t%d-limits", os.Getpid())}
	t.Cleanup(func() { downAll(t, l.program, l.root) })
	busybox, err := os.ReadFile("/bin/busybox")
	if err == nil {
		err = os.MkdirAll(filepath.Join(l.dir, "root/bin"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(l.dir, "root/bin/busybox"), busybox, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *limited) run(args ...string) string {
	l.t.Helper()
	text, err := exec.Command(l.program, append([]string{"--root", l.root, "-n", l.name}, args...)...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%v: %v\n%s", args, err, text)
	}
	return string(text)
}

// up brings one station up with the given keys.
func (l *limited) up(keys string) {
	l.t.Helper()
	text := "backbone: {egress: none}\nclusters: {lan: {stations: {a: {rootfs: ./root, command: [/bin/busybox, sleep, '1000']" + keys + "}}}}\n"
	file := filepath.Join(l.dir, "platelayer.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
	l.run("up", file)
}

func (l *limited) pid() int {
	l.t.Helper()
	var list []struct{ Pid int }
	if err := json.Unmarshal([]byte(l.run("ps", "--json")), &list); err != nil || len(list) != 1 || list[0].Pid == 0 {
		l.t.Fatalf("%v, %+v", err, list)
	}
	return list[0].Pid
}

// values are what the kernel has for the station. A v1 group that was never
// needed is as one without limits.
func (l *limited) values() map[string]string {
	l.t.Helper()
	all := map[string]string{}
	for file, none := range map[string]string{
		"memory.limit_in_bytes": "9223372036854771712", "memory.memsw.limit_in_bytes": "9223372036854771712",
		"memory.soft_limit_in_bytes": "9223372036854771712", "pids.max": "max", "cpu.cfs_quota_us": "-1", "cpu.shares": "1024",
		"cpuset.effective_cpus": "", "cpuset.cpus.effective": "", "blkio.throttle.read_bps_device": "",
		"blkio.throttle.read_iops_device": "", "blkio.throttle.write_bps_device": "", "blkio.throttle.write_iops_device": "",
		"blkio.bfq.weight": "100", "memory.max": "max", "memory.swap.max": "max", "memory.low": "0", "cpu.max": "max 100000",
		"cpu.weight": "100", "io.max": "", "io.bfq.weight": "default 100",
	} {
		controller, _, _ := strings.Cut(file, ".")
		value := none
		for _, tree := range []string{"", "unified/", controller + "/"} {
			b, err := os.ReadFile("/sys/fs/cgroup/" + tree + "platelayer/" + l.name + "/" + l.name + ".lan.a/" + file)
			if err == nil {
				value = strings.TrimSpace(string(b))
			}
		}
		all[file] = value
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.pid()))
	if err != nil {
		l.t.Fatal(err)
	}
	_, cpus, _ := strings.Cut(string(status), "Cpus_allowed_list:")
	all["Cpus_allowed_list"] = strings.TrimSpace(strings.Split(cpus, "\n")[0])
	for _, file := range []string{"cpuset.effective_cpus", "cpuset.cpus.effective"} {
		delete(all, file) // what comes of it is above
	}
	return all
}

// TestLimitsChangeInPlace edits each limit of a station that runs: the kernel
// has what a station brought up with the limit has, and the process goes on.
func TestLimitsChangeInPlace(t *testing.T) {
	l := newLimited(t)
	device := ""
	for _, d := range []string{"/dev/loop0", "/dev/sda", "/dev/vda"} {
		if _, err := os.Stat(d); err == nil {
			device = d
		}
	}
	edits := []string{
		", cpus: 0.5", ", cpus: 1.25, cpu_shares: 256", ", cpuset: '0'", ", mem_limit: 64m", ", mem_limit: 128m, memswap_limit: 256m",
		", mem_limit: 96m, memswap_limit: -1, mem_reservation: 32m", ", pids_limit: 50", ", pids_limit: 20",
		", cpus: 0.5, cpuset: '0', mem_limit: 64m, pids_limit: 20",
	}
	if device != "" {
		for _, rates := range []string{"device_read_bps: [{path: %s, rate: 10m}]", "device_write_iops: [{path: %[1]s, rate: 100}], device_read_bps: [{path: %[1]s, rate: 5m}]"} {
			edits = append(edits, ", blkio_config: {"+fmt.Sprintf(rates, device)+"}")
		}
	}
	if testing.Short() {
		edits = edits[len(edits)-5:]
	}
	edits = append(edits, "")
	fresh := map[string]map[string]string{}
	for _, keys := range edits {
		l.up(keys)
		fresh[keys] = l.values()
		l.run("down")
	}
	for _, keys := range edits {
		if keys != "" && maps.Equal(fresh[keys], fresh[""]) {
			t.Errorf("%s limits nothing", keys)
		}
	}
	l.up("")
	before := l.pid()
	for _, keys := range slices.Concat(edits, edits) {
		l.up(keys)
		if diff := cmp.Diff(fresh[keys], l.values()); diff != "" {
			t.Errorf("%q changed in place differs (-fresh +changed):\n%s", keys, diff)
		}
		if pid := l.pid(); pid != before {
			t.Fatalf("%q: pid %d is now %d", keys, before, pid)
		}
	}
	// What no cgroup holds needs another process.
	for _, keys := range []string{", shm_size: 2m", ", ulimits: {nofile: 100}", ", oom_score_adj: 10"} {
		l.up(keys)
		pid := l.pid()
		if pid == before {
			t.Errorf("%q: it has pid %d still", keys, pid)
		}
		before = pid
	}
}

// TestBlkioWeight is skipped where the kernel knows no weights, which up tells.
func TestBlkioWeight(t *testing.T) {
	l := newLimited(t)
	file := filepath.Join(l.dir, "platelayer.yaml")
	text := "backbone: {egress: none}\nclusters: {lan: {stations: {a: {blkio_config: {weight: 300}}}}}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(l.program, "--root", l.root, "-n", l.name, "up", file).CombinedOutput()
	if failed, ok := err.(*exec.ExitError); ok {
		if failed.ExitCode() != exitUnsupported || !strings.Contains(string(out), "lacks block I/O weights") {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Skip("this kernel has no I/O scheduler with weights: up ended with code 6 and said so")
	}
	values := l.values()
	if values["blkio.bfq.weight"] != "300" && values["io.bfq.weight"] != "default 300" {
		t.Errorf("got %v", values)
	}
	l.up("")
	if values = l.values(); values["blkio.bfq.weight"] != "100" || values["io.bfq.weight"] != "default 100" {
		t.Errorf("taken back: %v", values)
	}
}

// TestCPUShare has a station burn what it may for 5 s: within 5 % of half a
// processor. A machine with much else to do may give it less: then its quota
// stops it in few of the periods only.
func TestCPUShare(t *testing.T) {
	l := newLimited(t)
	text := `backbone: {egress: none}
clusters:
  lan:
    stations:
      burner: {rootfs: ./root, cpus: 0.5, command: [/bin/busybox, sh, -c, "while :; do :; done & while :; do :; done"]}
      other: {rootfs: ./root, command: [/bin/busybox, sleep, "1000"]}
`
	file := filepath.Join(l.dir, "platelayer.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	l.run("up", file)
	type sample struct {
		Time time.Time
		CPU  int64
	}
	throttled := func() (periods, stopped int64) {
		for _, tree := range []string{"", "cpu/"} {
			b, err := os.ReadFile("/sys/fs/cgroup/" + tree + "platelayer/" + l.name + "/" + l.name + ".lan.burner/cpu.stat")
			for line := range strings.Lines(string(b)) {
				if _, n, ok := strings.Cut(line, "nr_periods "); ok && err == nil {
					fmt.Sscan(n, &periods)
				}
				if _, n, ok := strings.Cut(line, "nr_throttled "); ok && err == nil {
					fmt.Sscan(n, &stopped)
				}
			}
		}
		return periods, stopped
	}
	used := func() sample {
		var list []sample
		if err := json.Unmarshal([]byte(l.run("stats", "--json", "burner")), &list); err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", err, list)
		}
		return list[0]
	}
	share := 0.0
	for range 3 {
		from := used()
		periods, stopped := throttled()
		time.Sleep(5 * time.Second)
		to := used()
		share = float64(to.CPU-from.CPU) / float64(to.Time.Sub(from.Time))
		p, s := throttled()
		t.Logf("%.4f of a processor, stopped in %d of %d periods", share, s-stopped, p-periods)
		if stopped == 0 && s == 0 {
			t.Fatal("nothing stopped it")
		}
		starved := float64(s-stopped) < 0.9*float64(p-periods)
		if share < 0.525 && (share > 0.475 || starved) {
			if out := l.run("exec", "-T", "other", "/bin/busybox", "echo", "here"); out != "here\n" {
				t.Errorf("the other station: %q", out)
			}
			return
		}
	}
	t.Errorf("it had %.4f processors, want 0.5 within 5 %%", share)
}
