package lifecycle

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLogParts: lines that arrive in pieces come back whole, each stream for
// itself, and stay in order.
func TestLogParts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w := &logFile{path: path, told: func() {}}
	defer w.close()
	w.append("stdout", []byte("one\ntw"))
	w.append("stderr", []byte("oops\n"))
	w.append("stdout", []byte("o\n\nlast"))
	r := &tail{station: "a", path: path}
	defer r.close()
	records, err := r.read(true)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		got = append(got, fmt.Sprintf("%s %q %v", r.Stream, r.Text, r.Partial))
	}
	want := []string{
		`stdout "one" false`, `stdout "tw" true`, `stderr "oops" false`, `stdout "o" false`, `stdout "" false`, `stdout "last" true`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestLogBounded: a log never holds more than two files of logSize, and a
// reader that follows it across the change of files misses nothing.
func TestLogBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w := &logFile{path: path, told: func() {}}
	defer w.close()
	r := &tail{station: "a", path: path}
	defer r.close()
	line := strings.Repeat("x", 1000)
	next := 0
	for i := range 3 * logSize / 1000 {
		w.append("stdout", fmt.Appendf(nil, "%d %s\n", i, line))
		if i%1000 != 0 {
			continue
		}
		records, err := r.read(i == 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range records {
			if !strings.HasPrefix(record.Text, fmt.Sprintf("%d ", next)) {
				t.Fatalf("record %d is %.20q", next, record.Text)
			}
			next++
		}
	}
	var size int64
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if len(files) != 2 || size > 2*logSize {
		t.Errorf("%d files with %d bytes", len(files), size)
	}
}

func TestParseRecordRefusesForeignLines(t *testing.T) {
	for _, line := range []string{"", "x", "yesterday stdout F text", "2026-11-21T00:00:00Z stdout F"} {
		if r, ok := parseRecord(line); ok {
			t.Errorf("%q was read as %+v", line, r)
		}
	}
}
