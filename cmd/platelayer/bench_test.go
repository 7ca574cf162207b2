package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
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

// benchRig is a topology of n stations, up.
type benchRig struct {
	b                         *testing.B
	program, root, name, file string
	text                      string
}

func newBenchRig(b *testing.B, program, kind string, n int, more string) *benchRig {
	dir := b.TempDir()
	r := &benchRig{
		b: b, program: program, root: filepath.Join(dir, "state"), name: fmt.Sprintf("b%d-%d", os.Getpid(), n),
		file: filepath.Join(dir, "platelayer.yaml"),
	}
	copyBusybox(b, filepath.Join(dir, "root", "bin"))
	r.text = strings.ReplaceAll(benchFile(kind, n), "{writable: memory", "{writable: memory"+more)
	r.write(r.text)
	b.Cleanup(func() { downAll(b, program, r.root) })
	r.run("up", r.file)
	return r
}

func (r *benchRig) write(text string) {
	if err := os.WriteFile(r.file, []byte(text), 0o644); err != nil {
		r.b.Fatal(err)
	}
}

func (r *benchRig) run(args ...string) (cpu, wall time.Duration) {
	r.b.Helper()
	c := exec.Command(r.program, append([]string{"--root", r.root, "-n", r.name}, args...)...)
	began := time.Now()
	if text, err := c.CombinedOutput(); err != nil {
		r.b.Fatalf("%v: %v\n%s", args, err, text)
	}
	return c.ProcessState.UserTime() + c.ProcessState.SystemTime(), time.Since(began)
}

// change changes the first station's environment, which replaces its process;
// CPU is that of the command and of the keeper.
func (r *benchRig) change(round int) (cpu, wall time.Duration) {
	r.write(strings.Replace(r.text, "s0: {", fmt.Sprintf("s0: {environment: {ROUND: '%d'}, ", round), 1))
	before := groupCPU(r.b, "platelayer/"+r.name)
	cpu, wall = r.run("up", r.file)
	return cpu + groupCPU(r.b, "platelayer/"+r.name) - before, wall
}

// BenchmarkChange changes one station of 500, and one that is alone: what the
// other 499 cost is the difference.
//
//	go test -run '^$' -bench Change -benchtime 20x ./cmd/platelayer
func BenchmarkChange(b *testing.B) {
	needsRoot(b)
	program := build(b)
	many, one := newBenchRig(b, program, "busybox-memory", 500, ""), newBenchRig(b, program, "busybox-memory", 1, "")
	round := 0
	var cpu, wall, cpuAlone, wallAlone time.Duration
	for b.Loop() {
		round++
		c, w := many.change(round)
		cpu, wall = cpu+c, wall+w
		c, w = one.change(round)
		cpuAlone, wallAlone = cpuAlone+c, wallAlone+w
	}
	per := float64(b.N) * float64(time.Millisecond)
	b.ReportMetric(float64(cpu)/per, "cpu-ms")
	b.ReportMetric(float64(wall)/per, "wall-ms")
	b.ReportMetric(float64(cpuAlone)/per, "alone-cpu-ms")
	b.ReportMetric(float64(wallAlone)/per, "alone-wall-ms")
}

// BenchmarkPs lists 500 stations.
func BenchmarkPs(b *testing.B) {
	needsRoot(b)
	r := newBenchRig(b, build(b), "busybox-memory", 500, "")
	var cpu, wall time.Duration
	for b.Loop() {
		c, w := r.run("ps")
		cpu, wall = cpu+c, wall+w
	}
	per := float64(b.N) * float64(time.Millisecond)
	b.ReportMetric(float64(cpu)/per, "cpu-ms")
	b.ReportMetric(float64(wall)/per, "wall-ms")
}

// BenchmarkIdle tells what the keeper of 500 stations costs: while nothing
// happens, with a health check of every station each 30 s, and while stations
// fetch from each other by name. One round is 30 s, with PLATELAYER_ENDURE=full
// ten minutes.
//
//	PLATELAYER_ENDURE=full go test -run '^$' -bench Idle -benchtime 1x -timeout 1h ./cmd/platelayer
func BenchmarkIdle(b *testing.B) {
	needsRoot(b)
	program := build(b)
	const check = ", healthcheck: {test: [CMD, /bin/busybox, 'true'], interval: 30s, start_period: 10s, start_interval: 1s}"
	for _, kind := range []struct{ name, image, more string }{
		{"quiet", "busybox-memory", ""}, {"checked", "busybox-memory", check}, {"loaded", "builtin-memory", ""},
	} {
		b.Run(kind.name, func(b *testing.B) {
			r := newBenchRig(b, program, kind.image, 500, kind.more)
			keeper, err := keeperOf(r.root, r.name)
			if err != nil {
				b.Fatal(err)
			}
			if kind.name == "loaded" {
				defer r.load()()
			}
			round := time.Duration(endurance(30, 600)) * time.Second
			var cpu, wall time.Duration
			var held footprint
			for b.Loop() {
				before, began := processCPU(b, keeper.Pid), time.Now()
				time.Sleep(round)
				cpu, wall = cpu+processCPU(b, keeper.Pid)-before, wall+time.Since(began)
				if f := footprintOf(b, keeper.Pid); f.kilobytes > held.kilobytes {
					held = f
				}
			}
			b.ReportMetric(100*float64(cpu)/float64(wall), "%-of-a-core")
			b.ReportMetric(float64(held.kilobytes), "kB-resident")
			b.ReportMetric(float64(held.threads), "threads")
			b.ReportMetric(float64(held.files), "files")
		})
	}
}

// load has stations of all clusters fetch each other's pages by name, each time
// with questions to the backbone, until the returned function is called.
func (r *benchRig) load() (stop func()) {
	var askers []*exec.Cmd
	var counts []*lineCounter
	for n := range 20 {
		from, to := 25*n, (25*n+110)%500
		url := fmt.Sprintf("http://s%d.c%d.%s.internal/", to, to/10, r.name)
		c := exec.Command(r.program, "--root", r.root, "-n", r.name, "exec", fmt.Sprintf("c%d/s%d", from/10, from), "fetch", "-n", "1000000000", url)
		count := new(lineCounter)
		c.Stdout = count
		if err := c.Start(); err != nil {
			r.b.Fatal(err)
		}
		askers, counts = append(askers, c), append(counts, count)
	}
	return func() {
		sum := 0
		for i, c := range askers {
			_ = c.Process.Signal(syscall.SIGTERM)
			_ = c.Wait()
			if counts[i].lines == 0 {
				r.b.Errorf("%v fetched nothing", c.Args)
			}
			sum += counts[i].lines / 2 // as many lines has a page
		}
		r.b.ReportMetric(float64(sum), "pages")
	}
}

type lineCounter struct{ lines int }

func (c *lineCounter) Write(p []byte) (int, error) {
	c.lines += bytes.Count(p, []byte("\n"))
	return len(p), nil
}

// processCPU is the user and system time of a process.
func processCPU(b testing.TB, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 (times(2))
}
