package lifecycle

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"platelayer/topology"
)

// outlets are a container's two FIFOs, held as a container holds them: open
// for reading too.
type outlets struct {
	path           string // of the log
	stdout, stderr string
	out, err       *os.File
}

func newOutlets(t testing.TB) *outlets {
	t.Helper()
	dir := t.TempDir()
	o := &outlets{path: filepath.Join(dir, "a.log"), stdout: filepath.Join(dir, "out"), stderr: filepath.Join(dir, "err")}
	for path, f := range map[string]**os.File{o.stdout: &o.out, o.stderr: &o.err} {
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		var err error
		if *f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*f).Close() })
	}
	return o
}

func (o *outlets) close() {
	o.out.Close()
	o.err.Close()
}

func (o *outlets) collect(t testing.TB, l *logs, limits topology.Logging) *collection {
	t.Helper()
	c, err := l.collect(o.path, limits, o.stdout, o.stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.abandon)
	c.release()
	return c
}

func quiet() *logs { return newLogs(func() {}) }

// isDrained waits for the end of a collection.
func isDrained(t testing.TB, c *collection) {
	t.Helper()
	select {
	case <-c.drained:
	case <-time.After(20 * time.Second):
		t.Fatal("the output has no end")
	}
}

func say(t testing.TB, f *os.File, text string) {
	t.Helper()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// await reads the log until it has as many records.
func await(t testing.TB, path string, n int) []Record {
	t.Helper()
	for range 2000 {
		if r := readLog(t, &tail{path: path}, -1); len(r) >= n {
			return r
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the log is\n%swant %d records", texts(readLog(t, &tail{path: path}, -1)), n)
	return nil
}

func readLog(t testing.TB, r *tail, lines int) []Record {
	t.Helper()
	defer r.close()
	if err := r.open(lines); err != nil {
		t.Fatal(err)
	}
	return rest(t, r)
}

func rest(t testing.TB, r *tail) []Record {
	t.Helper()
	var all []Record
	if err := merge([]*tail{r}, func(r Record) error { all = append(all, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func texts(records []Record) string {
	var b strings.Builder
	for _, r := range records {
		fmt.Fprintf(&b, "%s %q", r.Stream, r.Text)
		if r.Partial {
			b.WriteString(" ...")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestCollectStreams: lines come back whole, unfinished ones as parts, each
// stream for itself, and the end is noticed once both are closed.
func TestCollectStreams(t *testing.T) {
	o := newOutlets(t)
	c := o.collect(t, quiet(), topology.Logging{})
	say(t, o.out, "one\ntw")
	await(t, o.path, 2)
	say(t, o.err, "oops\n")
	await(t, o.path, 3)
	say(t, o.out, "o\n\nlast")
	await(t, o.path, 6)
	o.out.Close()
	select {
	case <-c.drained:
		t.Error("drained while stderr is open")
	default:
	}
	o.close()
	isDrained(t, c)
	want := `stdout "one"
stdout "tw" ...
stderr "oops"
stdout "o"
stdout ""
stdout "last" ...
`
	if got := texts(await(t, o.path, 6)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestCollectUntilReleased: before the container holds its ends the output has
// no end.
func TestCollectUntilReleased(t *testing.T) {
	o := newOutlets(t)
	l := quiet()
	c, err := l.collect(o.path, topology.Logging{}, o.stdout, o.stderr)
	if err != nil {
		t.Fatal(err)
	}
	say(t, o.out, "still here\n")
	o.close()
	await(t, o.path, 1)
	select {
	case <-c.drained:
		t.Error("drained before the release")
	default:
	}
	c.release()
	isDrained(t, c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.poll != nil || len(l.streams)+len(l.files) != 0 {
		t.Errorf("left after the last collection: %v, %v, %v", l.poll, l.streams, l.files)
	}
}

func TestCollectNeedsBothStreams(t *testing.T) {
	o := newOutlets(t)
	if _, err := quiet().collect(o.path, topology.Logging{}, o.stdout, o.stderr+"x"); err == nil {
		t.Error("collected from a FIFO that is not there")
	}
	if err := os.WriteFile(o.stderr+"x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := quiet().collect(o.path, topology.Logging{}, o.stdout, o.stderr+"x"); err == nil {
		t.Error("collected from a regular file")
	}
}

func TestAbandon(t *testing.T) {
	o := newOutlets(t)
	c := o.collect(t, quiet(), topology.Logging{})
	c.abandon()
	isDrained(t, c)
	c.abandon() // twice is harmless
}

func TestLongLine(t *testing.T) {
	o := newOutlets(t)
	c := o.collect(t, quiet(), topology.Logging{})
	line := strings.Repeat("0123456789abcde\n", 10<<10)
	line = strings.ReplaceAll(line, "\n", ".")
	go func() {
		o.out.WriteString(line + "\nshort\n")
		o.close()
	}()
	isDrained(t, c)
	var whole strings.Builder
	records := readLog(t, &tail{path: o.path}, -1)
	for _, r := range records[:len(records)-1] {
		if len(r.Text) > lineSize {
			t.Errorf("a part of %d bytes", len(r.Text))
		}
		whole.WriteString(r.Text)
	}
	end := records[len(records)-2:]
	if whole.String() != line || end[0].Partial || end[1].Text != "short" {
		t.Errorf("%d bytes became %d, ending in %s", len(line), whole.Len(), texts(end))
	}
}

// TestLogBounded: a log never holds more than its limits say, also when they
// change.
func TestLogBounded(t *testing.T) {
	o := newOutlets(t)
	c := o.collect(t, quiet(), topology.Logging{MaxSize: 20000, MaxFiles: 4})
	check := func(size int64, files int) {
		t.Helper()
		found, err := filepath.Glob(o.path + "*")
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != files {
			t.Errorf("files are %q, want %d", found, files)
		}
		for _, f := range found {
			if info, err := os.Stat(f); err != nil || info.Size() > size {
				t.Errorf("%s has more than %d bytes (%v)", f, size, err)
			}
		}
	}
	n := 0
	flood := func(lines int) {
		t.Helper()
		for range lines {
			say(t, o.out, fmt.Sprintf("%d %s\n", n, strings.Repeat("x", 500)))
			n++
		}
		for range 2000 {
			r := readLog(t, &tail{path: o.path}, 1)
			if len(r) == 1 && strings.HasPrefix(r[0].Text, fmt.Sprintf("%d ", n-1)) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("line %d does not arrive", n-1)
	}
	flood(500)
	check(20000, 4)
	c.setLimits(topology.Logging{MaxSize: 5000, MaxFiles: 2})
	flood(100)
	check(5000, 2)
	c.setLimits(topology.Logging{MaxSize: 5000, MaxFiles: 1})
	flood(100)
	check(5000, 1)
}

// TestAdopt: another keeper goes on where a killed one stopped, within a
// record, and with what has been written meanwhile.
func TestAdopt(t *testing.T) {
	o := newOutlets(t)
	first := o.collect(t, quiet(), topology.Logging{})
	say(t, o.out, "before\n")
	await(t, o.path, 1)
	first.abandon()
	f, err := os.OpenFile(o.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	say(t, f, "2026-11-21T00:00:00.000000000Z stdout F cut o")
	f.Close()
	say(t, o.out, "meanwhile\n")
	second := o.collect(t, quiet(), topology.Logging{})
	say(t, o.err, "after\n")
	o.close()
	isDrained(t, second)
	got := texts(readLog(t, &tail{path: o.path}, -1))
	for _, want := range []string{`stdout "before"`, `stdout "cut o"`, `stdout "meanwhile"`, `stderr "after"`} {
		if strings.Count(got, want+"\n") != 1 {
			t.Errorf("%s is not there once:\n%s", want, got)
		}
	}
}

// TestKilledWithinFlood: after SIGKILL nothing is doubled, and no more is lost
// than a collector had read and not yet written.
func TestKilledWithinFlood(t *testing.T) {
	const lines, variable = 200000, "PLATELAYER_TEST_COLLECT"
	limits := topology.Logging{MaxSize: 1 << 20, MaxFiles: 100}
	if paths := strings.Split(os.Getenv(variable), "\n"); len(paths) == 3 {
		c, err := quiet().collect(paths[0], limits, paths[1], paths[2])
		if err != nil {
			t.Fatal(err)
		}
		<-c.drained // never: nobody releases it
	}
	o := newOutlets(t)
	keeper := exec.Command(os.Args[0], "-test.run=^TestKilledWithinFlood$")
	keeper.Env = append(os.Environ(), variable+"="+o.path+"\n"+o.stdout+"\n"+o.stderr)
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer keeper.Process.Kill()
	go func() {
		for i := range lines {
			fmt.Fprintf(o.out, "%08d\n", i)
		}
		o.close()
	}()
	await(t, o.path, 5000)
	if err := keeper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	keeper.Wait()
	isDrained(t, o.collect(t, quiet(), limits))
	last, whole := -1, 0
	joined := false
	for _, r := range readLog(t, &tail{path: o.path}, -1) {
		n, err := strconv.Atoi(r.Text)
		switch {
		case r.Partial || joined: // what was lost may lie between two parts
			if joined = r.Partial; !joined {
				whole++
			}
		case err != nil || len(r.Text) != len("00000000"): // cut off
		case n <= last:
			t.Fatalf("line %d comes after line %d", n, last)
		default:
			last = n
			whole++
		}
	}
	if most := turnSize/9 + 2; last < lines-2 || lines-whole > most {
		t.Errorf("%d of %d lines, the last is %d; at most %d may be missing", whole, lines, last, most)
	}
}

// TestTimesNeverGoBackwards, whatever the clock does, within a keeper's life
// and from one to the next.
func TestTimesNeverGoBackwards(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	future := time.Now().UTC().Add(time.Hour).Truncate(0)
	if err := os.WriteFile(path, []byte(future.Format(timeLayout)+" stdout F from a later day\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &logFile{path: path}
	w.setLimits(topology.Logging{})
	buffer := make([]byte, 0, turnSize+lineSize)
	w.append("stdout", []byte("one\n"), buffer)
	w.append("stdout", []byte("two\n"), buffer)
	w.close()
	records := readLog(t, &tail{path: path}, -1)
	if len(records) != 3 {
		t.Fatalf("the log is\n%s", texts(records))
	}
	for _, r := range records {
		if !r.Time.Equal(future) {
			t.Errorf("%q has time %s, want %s", r.Text, r.Time, future)
		}
	}
}

// TestFolderRemoved: what comes while there is no folder is lost, counted and
// told afterwards.
func TestFolderRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w := &logFile{path: filepath.Join(dir, "a.log")}
	w.setLimits(topology.Logging{})
	buffer := make([]byte, 0, turnSize+lineSize)
	w.append("stdout", []byte("one\n"), buffer)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w.append("stdout", []byte("lost\n"), buffer)
	w.append("stderr", []byte("lost too, in part"), buffer)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w.append("stdout", []byte("two\n"), buffer)
	w.close()
	want := `stderr "platelayer: 22 bytes lost: no such file or directory"
stdout "two"
`
	if got := texts(readLog(t, &tail{path: w.path}, -1)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestDiskFull: the station goes on; every byte is in the log or counted as
// lost.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("platelayer-test", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	o := newOutlets(t)
	o.path = filepath.Join(dir, "a.log")
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 200<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	c := o.collect(t, quiet(), topology.Logging{})
	line := strings.Repeat("x", 99) + "\n"
	for range 3000 { // ends only when all but what a FIFO holds has been read
		say(t, o.out, line)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	say(t, o.err, "space again\n")
	o.close()
	isDrained(t, c)
	var have, lost int
	for _, r := range readLog(t, &tail{path: o.path}, -1) {
		n := 0
		if _, err := fmt.Sscanf(r.Text, "platelayer: %d bytes lost: no space left on device", &n); err == nil {
			lost += n
			continue
		}
		if have += len(r.Text); !r.Partial {
			have++
		}
	}
	want := 3000*len(line) + len("space again\n")
	// A line cut off by the full disk has its newline though it was lost, or is
	// in the log without it.
	if lost == 0 || have+lost < want-5 || have+lost > want+5 {
		t.Errorf("%d bytes in the log and %d lost, want %d", have, lost, want)
	}
}

// TestFloodLeavesRoom: what one station writes gets into its log while others
// write as fast as they can.
func TestFloodLeavesRoom(t *testing.T) {
	l := quiet()
	stop := make(chan struct{})
	for range 8 {
		o := newOutlets(t)
		o.collect(t, l, topology.Logging{MaxSize: 1 << 20})
		ended := make(chan struct{})
		block := bytes.Repeat([]byte("flood\n"), 5000)
		go func() {
			defer close(ended)
			for {
				select {
				case <-stop:
					return
				default:
					o.out.Write(block)
				}
			}
		}()
		t.Cleanup(func() { <-ended })
	}
	defer close(stop)
	o := newOutlets(t)
	o.collect(t, l, topology.Logging{})
	var worst time.Duration
	for i := range 50 {
		begin := time.Now()
		say(t, o.out, "hello\n")
		for n := 0; ; n++ {
			data, err := os.ReadFile(o.path)
			if err == nil && bytes.Count(data, []byte("\n")) == i+1 {
				break
			}
			if n > 20000 {
				t.Fatal("the line does not arrive")
			}
			time.Sleep(time.Millisecond)
		}
		worst = max(worst, time.Since(begin))
	}
	t.Logf("worst of 50 lines: %s", worst)
}

// BenchmarkCollect reports what a flood of lines costs this process; another
// one writes it.
func BenchmarkCollect(b *testing.B) {
	for _, size := range []int{8, 100} {
		b.Run(fmt.Sprintf("%d-byte lines", size), func(b *testing.B) {
			o := newOutlets(b)
			c := o.collect(b, quiet(), topology.Logging{})
			const chunk = 1 << 20
			b.SetBytes(chunk)
			var before, after syscall.Rusage
			syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			b.ResetTimer()
			cmd := exec.Command("sh", "-c", fmt.Sprintf("yes %s | head -c %d", strings.Repeat("y", size-1), b.N*chunk))
			cmd.Stdout = o.out
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
			o.close()
			isDrained(b, c)
			syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			spent := func(u syscall.Rusage) int64 { return u.Utime.Nano() + u.Stime.Nano() }
			b.ReportMetric(float64(spent(after)-spent(before))/float64(b.N)/1e6, "cpu-ms/MB")
		})
	}
}

// BenchmarkIdle reports the memory of 500 containers' logs after each has
// written a line.
func BenchmarkIdle(b *testing.B) {
	for range b.N {
		const n = 500
		resident := func() int {
			debug.FreeOSMemory()
			data, err := os.ReadFile("/proc/self/status")
			if err != nil {
				b.Fatal(err)
			}
			kb := 0
			_, after, _ := strings.Cut(string(data), "RssAnon:")
			fmt.Sscan(after, &kb)
			return kb
		}
		all := make([]*outlets, n)
		for i := range all {
			all[i] = newOutlets(b)
		}
		l := quiet()
		warm := newOutlets(b) // the workers' buffers are shared
		warm.collect(b, l, topology.Logging{})
		say(b, warm.out, strings.Repeat("y\n", turnSize/2))
		await(b, warm.path, turnSize/2)
		before := resident()
		collections := make([]*collection, n)
		for i, o := range all {
			collections[i] = o.collect(b, l, topology.Logging{})
			say(b, o.out, "hello\n")
			say(b, o.err, "hello\n")
		}
		for _, o := range all {
			await(b, o.path, 2)
		}
		b.ReportMetric(float64(resident()-before)/n, "kB/container")
		for i, c := range collections {
			all[i].close()
			isDrained(b, c)
		}
	}
}
