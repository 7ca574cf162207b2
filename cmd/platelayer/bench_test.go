package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkTopology brings topologies of 10, 100 and 500 stations, in clusters
// of 10, up and down with the real program. CPU is that of the command, of the
// keeper and of what the stations executed, but not of the kernel's own
// threads.
//
//	go test -run '^$' -bench Topology -benchtime 5x ./cmd/platelayer
func BenchmarkTopology(b *testing.B) {
	needsRoot(b)
	program := build(b)
	for _, kind := range []string{"busybox-memory", "busybox-disk", "builtin-memory"} {
		for _, n := range []int{10, 100, 500} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) { benchmarkTopology(b, program, kind, n) })
		}
	}
}

func benchmarkTopology(b *testing.B, program, kind string, n int) {
	dir := b.TempDir()
	name := fmt.Sprintf("b%d-%d", os.Getpid(), n)
	file := filepath.Join(dir, "platelayer.yaml")
	if err := os.WriteFile(file, []byte(benchFile(kind, n)), 0o644); err != nil {
		b.Fatal(err)
	}
	if strings.HasPrefix(kind, "busybox") {
		copyBusybox(b, filepath.Join(dir, "root", "bin"))
	}
	root := filepath.Join(dir, "state")
	b.Cleanup(func() { downAll(b, program, root) })
	run := func(args ...string) (cpu, wall time.Duration) {
		c := exec.Command(program, append([]string{"--root", root, "-n", name}, args...)...)
		began := time.Now()
		if text, err := c.CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%s", args, err, text)
		}
		return c.ProcessState.UserTime() + c.ProcessState.SystemTime(), time.Since(began)
	}
	run("up", file) // fills the store
	run("down")

	var upCPU, upWall, downCPU, downWall time.Duration
	for b.Loop() {
		cpu, wall := run("up", file)
		grouped := groupCPU(b, "platelayer/"+name)
		upCPU, upWall = upCPU+cpu+grouped, upWall+wall
		cpu, wall = run("down")
		downCPU, downWall = downCPU+cpu, downWall+wall
	}
	per := float64(b.N*n) * float64(time.Millisecond)
	b.ReportMetric(float64(upCPU)/per, "up-cpu-ms/station")
	b.ReportMetric(float64(upWall)/per, "up-wall-ms/station")
	b.ReportMetric(float64(downCPU)/per, "down-cpu-ms/station")
	b.ReportMetric(float64(downWall)/per, "down-wall-ms/station")
}

func benchFile(kind string, n int) string {
	var f strings.Builder
	f.WriteString("backbone: {egress: none}\nclusters:\n")
	for i := range n {
		if i%10 == 0 {
			fmt.Fprintf(&f, "  c%d:\n    subnet: 10.%d.%d.0/24\n    stations:\n", i/10, 100+i/2560, i/10%256)
		}
		writable := "memory"
		if strings.HasSuffix(kind, "disk") {
			writable = "disk"
		}
		fmt.Fprintf(&f, "      s%d: {writable: %s", i, writable)
		if strings.HasPrefix(kind, "busybox") {
			f.WriteString(`, rootfs: ./root, command: [/bin/busybox, sleep, "1000000"]`)
		}
		f.WriteString("}\n")
	}
	return f.String()
}

func copyBusybox(b testing.TB, to string) {
	b.Helper()
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		b.Fatalf("needs Debian's busybox-static: %v", err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "busybox"), data, 0o755); err != nil {
		b.Fatal(err)
	}
}

// groupCPU is the CPU time of a cgroup and all below it, from cpu.stat, which
// the v2 tree has without any controller.
func groupCPU(b testing.TB, name string) time.Duration {
	b.Helper()
	for _, dir := range cgroups(b, name) {
		text, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
		if err != nil {
			continue
		}
		var usec int64
		if _, err := fmt.Sscanf(string(text), "usage_usec %d", &usec); err == nil {
			return time.Duration(usec) * time.Microsecond
		}
	}
	b.Skip("needs a v2 cgroup tree for CPU accounting")
	return 0
}
