package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"platelayer/topology"
)

// aLog is a log that a test writes itself.
type aLog struct {
	*logFile
	buffer []byte
}

func newLog(t *testing.T, limits topology.Logging) *aLog {
	w := &aLog{&logFile{path: filepath.Join(t.TempDir(), "a.log")}, make([]byte, 0, turnSize+lineSize)}
	w.setLimits(limits)
	t.Cleanup(w.close)
	return w
}

func (w *aLog) say(stream, text string) { w.append(stream, []byte(text), w.buffer) }

// TestFollowRotation: a reader sees each record once though the log is rotated
// several times between two looks.
func TestFollowRotation(t *testing.T) {
	w := newLog(t, topology.Logging{MaxSize: 4000, MaxFiles: 6})
	r := &tail{path: w.path, follow: true}
	defer r.close()
	if err := r.open(-1); err != nil { // before there is a log
		t.Fatal(err)
	}
	written, read := 0, 0
	for round := range 60 {
		for range round % 100 { // up to 4 files' worth
			w.say("stdout", fmt.Sprintf("%d %s\n", written, strings.Repeat("x", 200)))
			written++
		}
		for _, record := range rest(t, r) {
			if !strings.HasPrefix(record.Text, fmt.Sprintf("%d ", read)) {
				t.Fatalf("record %d is %.20q", read, record.Text)
			}
			read++
		}
		if read != written {
			t.Fatalf("%d records written, %d read", written, read)
		}
	}
}

// TestFollowWhileRotating does the same with a writer that does not wait.
func TestFollowWhileRotating(t *testing.T) {
	const lines = 20000
	w := newLog(t, topology.Logging{MaxSize: 40000, MaxFiles: 200})
	r := &tail{path: w.path, follow: true}
	defer r.close()
	if err := r.open(-1); err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := range lines {
			w.say("stdout", fmt.Sprintf("%d %s\n", i, strings.Repeat("x", 100)))
		}
	}()
	read := 0
	for deadline := time.Now().Add(time.Minute); read < lines && time.Now().Before(deadline); {
		for _, record := range rest(t, r) {
			if !strings.HasPrefix(record.Text, fmt.Sprintf("%d ", read)) {
				t.Fatalf("record %d is %.20q", read, record.Text)
			}
			read++
		}
	}
	if read != lines {
		t.Errorf("%d records written, %d read", lines, read)
	}
}

// TestFilesInOrder looks at a log's files while they move on beneath the look.
func TestFilesInOrder(t *testing.T) {
	w := newLog(t, topology.Logging{MaxSize: 1000, MaxFiles: 60})
	stop, stopped := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-stopped }()
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				w.say("stdout", strings.Repeat("x", 900)+"\n")
			}
		}
	}()
	for range 1000 {
		files, _, err := logFiles(w.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		var last time.Time
		for n, f := range files {
			if begin, ok := firstTime(f); ok && begin.Before(last) {
				t.Fatalf("file %d of %d begins before the one before it", n, len(files))
			} else if ok {
				last = begin
			}
		}
		closeAll(files)
	}
}

// TestFollowRemoved: where the log was removed and begins anew, nothing shows
// twice.
func TestFollowRemoved(t *testing.T) {
	w := newLog(t, topology.Logging{MaxSize: 60})
	r := &tail{path: w.path, follow: true}
	defer r.close()
	if err := r.open(-1); err != nil {
		t.Fatal(err)
	}
	w.say("stdout", "one\n")
	w.say("stdout", "two\n")
	got := texts(rest(t, r))
	if err := os.Remove(w.path); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Microsecond)
	w.say("stdout", "three\n")
	got += texts(rest(t, r))
	if want := "stdout \"one\"\nstdout \"two\"\nstdout \"three\"\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestFollowWithinRecord: what the keeper has half written is not a record yet.
func TestFollowWithinRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	say(t, f, "2026-11-21T00:00:00.000000000Z stdout F one\n2026-11-21T00:00:00.000000000Z stdout F t")
	all, none := &tail{path: path, follow: true}, &tail{path: path, follow: true}
	for r, lines := range map[*tail]int{all: -1, none: 0} {
		defer r.close()
		if err := r.open(lines); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := texts(rest(t, all)), "stdout \"one\"\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := rest(t, none); len(got) != 0 {
		t.Errorf("a tail of none has\n%s", texts(got))
	}
	say(t, f, "wo\n")
	for _, r := range []*tail{all, none} {
		if got, want := texts(rest(t, r)), "stdout \"two\"\n"; got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
}

// TestTail compares the search from the end with reading all, over several
// files and blocks, with lines in parts.
func TestTail(t *testing.T) {
	w := newLog(t, topology.Logging{MaxSize: 150000, MaxFiles: 3})
	for i := range 3000 {
		switch {
		case i%50 == 7:
			w.say("stdout", "part ")
			w.say("stderr", "between\n")
			w.say("stdout", "of "+strings.Repeat("y", 20000)+"\n")
		default:
			w.say("stdout", fmt.Sprintf("%d\n", i))
		}
	}
	w.say("stdout", "unfinished")
	all := readLog(t, &tail{path: w.path}, -1)
	for _, lines := range []int{0, 1, 2, 3, 10, 100, 500, 1 << 20} {
		got := readLog(t, &tail{path: w.path}, lines)
		want := all[len(all)-len(got):]
		if texts(got) != texts(want) {
			t.Fatalf("the last %d lines are not the log's end", lines)
		}
		count := 0
		open := map[string]bool{}
		for _, r := range slices.Backward(got) {
			if !r.Partial || !open[r.Stream] {
				count++
			}
			open[r.Stream] = true
		}
		if count != lines && len(got) != len(all) {
			t.Errorf("asked for %d lines, got %d", lines, count)
		}
	}
}

func TestSinceAndUntil(t *testing.T) {
	w := newLog(t, topology.Logging{MaxSize: 500, MaxFiles: 5})
	begin := time.Now().UTC().Add(time.Hour).Truncate(time.Second)
	for i := range 30 {
		w.last = begin.Add(time.Duration(i) * time.Second) // ahead of the clock
		w.say("stdout", fmt.Sprintf("%d\n", i))
	}
	all := readLog(t, &tail{path: w.path}, -1)
	at := func(i int) time.Time { return begin.Add(time.Duration(i) * time.Second) }
	for _, c := range []struct {
		since, until time.Time
		lines        int
		from, to     int
	}{
		{since: at(20), lines: -1, from: 20, to: 29},
		{since: at(29), lines: -1, from: 29, to: 29},
		{since: at(20).Add(1), lines: -1, from: 21, to: 29},
		{until: at(20), lines: -1, from: 30 - len(all), to: 20},
		{since: at(15), until: at(20), lines: -1, from: 15, to: 20},
		{since: at(15), until: at(20), lines: 2, from: 19, to: 20},
		{since: at(19), until: at(20), lines: 9, from: 19, to: 20},
		{since: at(30), lines: -1, from: 30, to: 29},
	} {
		got := readLog(t, &tail{path: w.path, since: c.since, until: c.until}, c.lines)
		var want []Record
		for i := c.from; i <= c.to; i++ {
			want = append(want, Record{Stream: "stdout", Text: fmt.Sprint(i)})
		}
		if texts(got) != texts(want) {
			t.Errorf("%+v\ngot\n%swant\n%s", c, texts(got), texts(want))
		}
	}
}

// TestSnapshot: without following, what is written after the start is not
// waited for.
func TestSnapshot(t *testing.T) {
	w := newLog(t, topology.Logging{MaxSize: 4000, MaxFiles: 4})
	w.say("stdout", "before\n")
	r := &tail{path: w.path}
	defer r.close()
	if err := r.open(-1); err != nil {
		t.Fatal(err)
	}
	w.say("stdout", strings.Repeat("after\n", 100))
	if got, want := texts(rest(t, r)), "stdout \"before\"\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestMergeByTime(t *testing.T) {
	var tails []*tail
	for _, station := range []string{"a", "b", "c"} {
		r := &tail{station: station, path: filepath.Join(t.TempDir(), "log")}
		defer r.close()
		var b strings.Builder
		for i := range 2000 {
			at := time.Unix(int64(i), 0).UTC()
			fmt.Fprintf(&b, "%s stdout F %d\n", at.Format(timeLayout), i)
		}
		if err := os.WriteFile(r.path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.open(-1); err != nil {
			t.Fatal(err)
		}
		tails = append(tails, r)
	}
	n := 0
	err := merge(tails, func(r Record) error {
		if want := fmt.Sprint(n / 3); r.Text != want || r.Station != tails[n%3].station {
			t.Fatalf("record %d is %+v", n, r)
		}
		n++
		return nil
	})
	if err != nil || n != 6000 {
		t.Errorf("%d records, %v", n, err)
	}
}

// bell is a keeper's wake-ups.
type bell struct {
	ring chan struct{}
	once sync.Once
	gone chan struct{}
}

func newBell() *bell { return &bell{ring: make(chan struct{}), gone: make(chan struct{})} }

func (b *bell) Wait() error {
	select {
	case <-b.ring:
		return nil
	case <-b.gone:
		return errors.New("the keeper is gone")
	}
}

func (b *bell) Close() error {
	b.once.Do(func() { close(b.gone) })
	return nil
}

// TestFollowOutlivesKeeper: following goes on with the keeper's successor, and
// ends with the topology.
func TestFollowOutlivesKeeper(t *testing.T) {
	w := newLog(t, topology.Logging{})
	r := &tail{path: w.path, follow: true}
	defer r.close()
	if err := r.open(-1); err != nil {
		t.Fatal(err)
	}
	first, second := newBell(), newBell()
	successors := []struct {
		wake  wakeups
		alive bool
	}{{nil, true}, {second, true}, {nil, false}}
	seen := make(chan string, 10)
	ended := make(chan error)
	go func() {
		drain := func() error {
			return merge([]*tail{r}, func(r Record) error { seen <- r.Text; return nil })
		}
		ended <- follow(context.Background(), drain, first, func() (wakeups, bool) {
			next := successors[0]
			successors = successors[1:]
			return next.wake, next.alive
		})
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-seen:
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%q does not come", want)
		}
	}
	w.say("stdout", "one\n")
	first.ring <- struct{}{}
	expect("one")
	w.say("stdout", "two\n")
	first.Close()
	expect("two")
	w.say("stdout", "three\n")
	second.ring <- struct{}{}
	expect("three")
	w.say("stdout", "four\n")
	second.Close()
	expect("four")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestFollowEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		none := func() error { return nil }
		ended <- follow(ctx, none, newBell(), func() (wakeups, bool) { return nil, true })
	}()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestLogTail(t *testing.T) {
	w := newLog(t, topology.Logging{MaxSize: 200, MaxFiles: 3})
	w.say("stdout", "one\ntwo\nthr")
	w.say("stderr", "oops\n")
	w.say("stdout", "ee\nfour\nfi")
	w.say("stdout", "ve\n")
	want := []string{"two", "oops", "three", "four", "five"}
	if got := logTail(w.path, len(want)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := logTail(w.path+"x", 5); len(got) != 0 {
		t.Errorf("a log that is not there has %q", got)
	}
}

func TestParseRecordRefusesForeignLines(t *testing.T) {
	for _, line := range []string{"", "x", "yesterday stdout F text", "2026-11-21T00:00:00Z stdout F"} {
		if r, ok := parseRecord(line); ok {
			t.Errorf("%q was read as %+v", line, r)
		}
	}
}
