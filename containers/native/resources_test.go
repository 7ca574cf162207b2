package native

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"platelayer/containers"
)

func TestCPULimit(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "while true; do :; done")
	s.Resources.CPUs = 0.5
	p := r.start(s)
	group := r.cgroup + "/" + s.Name
	time.Sleep(time.Second)
	before, err := ReadUsage(group)
	must(t, err)
	start := time.Now()
	time.Sleep(2 * time.Second)
	after, err := ReadUsage(group)
	must(t, err)
	share := float64(after.CPU-before.CPU) / float64(time.Since(start))
	t.Logf("%.3f of a processor", share)
	// How much it gets the machine's load decides, never how much at most.
	if share > 0.6 || share == 0 {
		t.Errorf("it had %.2f processors", share)
	}
	must(t, SetResources(group, 0, 0, containers.Resources{}))
	must(t, p.Signal(9))
	_, err = p.Wait()
	must(t, err)
}

// TestResourceFiles reads back what the kernel took.
func TestResourceFiles(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "")
	s.Args = []string{"sleep", "100"}
	s.MemoryBytes, s.Pids = 64<<20, 20
	s.Resources = containers.Resources{CPUs: 1.5, CPUShares: 512, CPUSet: "0", MemSwap: 96 << 20, MemReservation: 32 << 20}
	p := r.start(s)
	group := r.cgroup + "/" + s.Name
	h := r.engine.cgroups
	read := func(controller, v1, v2 string) string {
		root, file := h.v1[controller], v1
		if root == "" {
			root, file = h.v2, v2
		}
		b, err := os.ReadFile(root + "/" + group + "/" + file)
		must(t, err)
		return strings.TrimSpace(string(b))
	}
	check := func(controller, v1, v2, want1, want2 string) {
		t.Helper()
		want := want1
		if h.v1[controller] == "" {
			want = want2
		}
		if got := read(controller, v1, v2); got != want {
			t.Errorf("%s: got %q, want %q", controller, got, want)
		}
	}
	check("cpu", "cpu.cfs_quota_us", "cpu.max", "150000", "150000 100000")
	check("cpu", "cpu.shares", "cpu.weight", "512", "59")
	check("cpuset", "cpuset.cpus", "cpuset.cpus", "0", "0")
	check("memory", "memory.soft_limit_in_bytes", "memory.low", "33554432", "33554432")
	check("pids", "pids.max", "pids.max", "20", "20")
	b, err := os.ReadFile("/proc/" + itoa(p.Ref().Pid) + "/status")
	must(t, err)
	if !strings.Contains(string(b), "Cpus_allowed_list:\t0\n") {
		t.Error("it may run on other processors")
	}
	u, err := ReadUsage(group)
	must(t, err)
	if u.MemoryLimit != 64<<20 || u.PidsLimit != 20 || u.Pids != 1 || u.Memory <= 0 || u.Memory > 64<<20 {
		t.Errorf("got %+v", u)
	}
	must(t, SetResources(group, 0, 0, containers.Resources{CPUShares: 1024}))
	check("cpu", "cpu.cfs_quota_us", "cpu.max", "-1", "max 100000")
	check("cpu", "cpu.shares", "cpu.weight", "1024", "100")
	check("pids", "pids.max", "pids.max", "max", "max")
	must(t, p.Signal(9))
	_, err = p.Wait()
	must(t, err)
}

// TestLimitsLater gives limits to a container that had none.
func TestLimitsLater(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "")
	s.Args = []string{"sleep", "100"}
	p := r.start(s)
	group := r.cgroup + "/" + s.Name
	must(t, SetResources(group, 32<<20, 10, containers.Resources{CPUs: 0.5, CPUSet: "0"}))
	b, err := os.ReadFile("/proc/" + itoa(p.Ref().Pid) + "/status")
	must(t, err)
	u, err := ReadUsage(group)
	must(t, err)
	if !strings.Contains(string(b), "Cpus_allowed_list:\t0\n") || u.PidsLimit != 10 || u.Pids != 1 {
		t.Errorf("got %+v, %s", u, b)
	}
	must(t, p.Signal(9))
	_, err = p.Wait()
	must(t, err)
	must(t, RemoveCgroup(group))
	if _, err := ReadUsage(group); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestBlkio(t *testing.T) {
	r := newRig(t)
	disk := ""
	for _, d := range []string{"/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/loop0"} {
		if _, err := blockDevice(d); err == nil {
			disk = d
			break
		}
	}
	if disk == "" {
		t.Skip("no disk")
	}
	s := r.spec(busyboxRoot(t), "true")
	s.Resources.Blkio.WriteBps = []containers.BlkioRate{{Path: disk, Rate: 1 << 20}}
	r.run(s)
	device, err := blockDevice(disk)
	must(t, err)
	file, want := r.engine.cgroups.v2+"/"+r.cgroup+"/"+s.Name+"/io.max", device+" rbps=max wbps=1048576"
	if root := r.engine.cgroups.v1["blkio"]; root != "" {
		file, want = root+"/"+r.cgroup+"/"+s.Name+"/blkio.throttle.write_bps_device", device+" 1048576"
	}
	b, err := os.ReadFile(file)
	must(t, err)
	if !strings.HasPrefix(string(b), want) {
		t.Errorf("got %q", b)
	}
	must(t, SetResources(r.cgroup+"/"+s.Name, 0, 0, containers.Resources{}))
	if b, err = os.ReadFile(file); err != nil || len(b) != 0 {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestImpossibleLimits(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	for want, change := range map[string]func(*containers.Spec){
		"processors of this machine": func(s *containers.Spec) { s.Resources.CPUs = 4000 },
		"names processor 3999":       func(s *containers.Spec) { s.Resources.CPUSet = "0,3999" },
		"cannot read the list":       func(s *containers.Spec) { s.Resources.CPUSet = "one" },
		"below the kernel's least":   func(s *containers.Spec) { s.Resources.CPUs = 0.001 },
		"needs a memory limit":       func(s *containers.Spec) { s.Resources.MemSwap = 1 << 30 },
		"below the memory limit":     func(s *containers.Spec) { s.MemoryBytes, s.Resources.MemSwap = 64<<20, 32<<20 },
		"memory reservation":         func(s *containers.Spec) { s.MemoryBytes, s.Resources.MemReservation = 32<<20, 64<<20 },
		"not a block device": func(s *containers.Spec) {
			s.Resources.Blkio.ReadBps = []containers.BlkioRate{{Path: "/dev/null", Rate: 1}}
		},
		"not within 10 and 1000":           func(s *containers.Spec) { s.Resources.Blkio.Weight = 5 },
		"fs.nr_open":                       func(s *containers.Spec) { s.Ulimits = []containers.Ulimit{{Name: "nofile", Soft: 1, Hard: 1 << 40}} },
		"soft limit 2 is above":            func(s *containers.Spec) { s.Ulimits = []containers.Ulimit{{Name: "core", Soft: 2, Hard: 1}} },
		"unknown ulimit":                   func(s *containers.Spec) { s.Ulimits = []containers.Ulimit{{Name: "x"}} },
		"unknown capability":               func(s *containers.Spec) { s.CapAdd = []string{"FLY"} },
		"OOM score adjustment":             func(s *containers.Spec) { s.OOMScoreAdj = 2000 },
		"cannot read the system call":      func(s *containers.Spec) { s.Seccomp = "{" },
		"profile's action SCMP_ACT_NOTIFY": func(s *containers.Spec) { s.Seccomp = `{"defaultAction":"SCMP_ACT_NOTIFY"}` },
	} {
		s := r.spec(root, "true")
		change(s)
		c, err := r.engine.Prepare(context.Background(), s)
		if err == nil {
			must(t, c.Discard())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func TestCPUWeight(t *testing.T) {
	for shares, want := range map[int64]int64{0: 0, 2: 1, 1024: 100, 512: 59, 262144: 10000} {
		if got := cpuWeight(shares); got != want {
			t.Errorf("%d: got %d, want %d", shares, got, want)
		}
	}
}

// TestLeaveSession: who leaves the limits of the session it comes from is in a
// group of ours, and so are those that it starts.
func TestLeaveSession(t *testing.T) {
	r := newRig(t)
	cmd := exec.Command("sleep", "100")
	must(t, cmd.Start())
	defer func() {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
	}()
	session := findHierarchies()
	for _, c := range []string{"memory", "pids"} {
		if root := session.v1[c]; root != "" {
			dir := filepath.Join(root, r.cgroup, "session")
			must(t, mkdirCgroup(dir))
			must(t, writeFile(filepath.Join(dir, "cgroup.procs"), itoa(cmd.Process.Pid)))
		}
	}
	must(t, LeaveSession(r.cgroup, cmd.Process.Pid))
	text, err := os.ReadFile("/proc/" + itoa(cmd.Process.Pid) + "/cgroup")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controller, path, _ := strings.Cut(rest, ":")
		if (controller == "memory" || controller == "pids") && path != "/"+r.cgroup {
			t.Errorf("it is in %s", line)
		}
	}
}
