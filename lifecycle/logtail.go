package lifecycle

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// tail reads one log on from where it stopped, across rotation.
type tail struct {
	station      string
	path         string
	follow       bool
	since, until time.Time // zero: no bound

	files  []*os.File // those still to be read, the oldest first
	end    int64      // of the last of them, where it is not followed
	reader *bufio.Reader
	rest   string    // of a record the keeper is still writing
	seen   time.Time // of the last record read

	next  Record
	have  bool // next holds a record
	over  bool // until has come
	order int
}

// open goes to the first record to read: the beginning, or that of the last
// lines; negative is all.
func (t *tail) open(lines int) error {
	files, _, err := logFiles(t.path, nil)
	if err != nil {
		return err
	}
	t.files, t.end = files, math.MaxInt64
	if len(files) == 0 {
		return nil
	}
	size := make([]int64, len(files))
	for i, f := range files {
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("cannot read a log: %w", err)
		}
		size[i] = info.Size()
	}
	if !t.follow {
		t.end = size[len(size)-1]
	}
	first, at := 0, int64(0)
	if lines >= 0 {
		if first, at, err = lastLines(files, size, lines, t.until); err != nil {
			return err
		}
	}
	// A file that ends before since is one whose successor starts before it.
	for ; !t.since.IsZero() && first+1 < len(files); first, at = first+1, 0 {
		begin, ok := firstTime(files[first+1])
		if !ok || !begin.Before(t.since) {
			break
		}
	}
	closeAll(t.files[:first])
	t.files = t.files[first:]
	t.enter(at)
	return nil
}

// enter goes on with the first of the files at the offset.
func (t *tail) enter(at int64) {
	end := int64(math.MaxInt64)
	if len(t.files) == 1 {
		end = t.end
	}
	t.reader, t.rest = bufio.NewReader(io.NewSectionReader(t.files[0], at, end-at)), ""
}

// peek makes next the next record; false where there is none yet.
func (t *tail) peek() (bool, error) {
	for !t.have && !t.over {
		r, ok, err := t.read()
		if err != nil || !ok {
			return false, err
		}
		t.seen = r.Time
		if !t.until.IsZero() && r.Time.After(t.until) {
			t.over = true
			return false, nil
		}
		if !r.Time.Before(t.since) {
			t.next, t.have = r, true
		}
	}
	return t.have, nil
}

func (t *tail) take() Record {
	t.have = false
	return t.next
}

// read gives the next record of the files.
func (t *tail) read() (Record, bool, error) {
	for {
		if len(t.files) > 0 {
			r, ok, err := t.scan()
			if ok || err != nil {
				return r, ok, err
			}
		}
		if len(t.files) > 1 { // nothing was written into the first after the second was made
			t.files[0].Close()
			t.files = t.files[1:]
			t.enter(0)
			continue
		}
		if !t.follow {
			return Record{}, false, nil
		}
		if more, err := t.rotated(); !more || err != nil {
			return Record{}, false, err
		}
	}
}

// rotated looks for newer files than the one that is read.
func (t *tail) rotated() (bool, error) {
	var current os.FileInfo
	if len(t.files) > 0 {
		var err error
		if current, err = t.files[0].Stat(); err != nil {
			return false, fmt.Errorf("cannot read a log: %w", err)
		}
		if now, err := os.Stat(t.path); err == nil && os.SameFile(now, current) {
			return false, nil
		}
	}
	files, found, err := logFiles(t.path, current)
	if err != nil || len(files) == 0 {
		return false, err
	}
	if current != nil && !found && t.since.Before(t.seen) {
		t.since = t.seen.Add(1) // it was removed: those found may have been read before
	}
	if t.files = append(t.files, files...); current == nil {
		t.enter(0)
	}
	return true, nil
}

// scan gives the next record of the first file.
func (t *tail) scan() (r Record, ok bool, err error) {
	for {
		line, err := t.reader.ReadString('\n')
		t.rest += line
		if errors.Is(err, io.EOF) {
			return Record{}, false, nil
		}
		if err != nil {
			return Record{}, false, fmt.Errorf("cannot read a log: %w", err)
		}
		r, ok := parseRecord(strings.TrimSuffix(t.rest, "\n"))
		if t.rest = ""; ok {
			r.Station = t.station
			return r, true, nil
		}
	}
}

func (t *tail) close() {
	closeAll(t.files)
	t.files = nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// logFiles opens a log's files that are newer than the given one, the oldest
// first; found tells whether that one is among the log's. Files only ever move
// away from the current one, so that looking in this direction misses none
// while the keeper rotates; a second look at the same one is noticed.
func logFiles(path string, than os.FileInfo) (files []*os.File, found bool, err error) {
	const gaps = 3 // a file on its way from one name to the next leaves one
	var known []os.FileInfo
	for i, missing := 0, 0; missing < gaps; i++ {
		f, err := os.Open(olderLog(path, i))
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		var info os.FileInfo
		if err == nil {
			info, err = f.Stat()
		}
		if err != nil {
			f.Close()
			closeAll(files)
			return nil, false, fmt.Errorf("cannot read a log: %w", err)
		}
		missing = 0
		if than != nil && os.SameFile(info, than) {
			f.Close()
			found = true
			break
		}
		if slices.ContainsFunc(known, func(o os.FileInfo) bool { return os.SameFile(o, info) }) {
			f.Close()
			continue
		}
		known, files = append(known, info), append(files, f)
	}
	slices.Reverse(files)
	sortByTime(files)
	return files, found, nil
}

// sortByTime puts a log's files into their order, which a look at names that move
// on meanwhile mixes up. Their times never go backwards; what has none yet is new.
func sortByTime(files []*os.File) {
	begin := make(map[*os.File]time.Time, len(files))
	for _, f := range files {
		begin[f] = time.Unix(1<<40, 0)
		if at, ok := firstTime(f); ok {
			begin[f] = at
		}
	}
	slices.SortStableFunc(files, func(a, b *os.File) int { return begin[a].Compare(begin[b]) })
}

// firstTime is the time of a file's first record.
func firstTime(f *os.File) (time.Time, bool) {
	b := make([]byte, lineSize+textAt)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return time.Time{}, false
	}
	for line := range bytes.Lines(b[:n]) {
		if r, ok := parseRecord(string(line)); ok {
			return r.Time, true
		}
	}
	return time.Time{}, false
}

// lastLines finds where the last lines of a log begin, among those not after
// until: the file's index and the offset in it. A line in parts is one.
func lastLines(files []*os.File, size []int64, lines int, until time.Time) (file int, at int64, err error) {
	file = len(files) - 1
	counted, past := 0, false
	parts := map[string]bool{} // streams whose earlier parts belong to a counted line
	for i := file; i >= 0 && counted <= lines; i-- {
		err := backwards(files[i], size[i], func(start int64, line []byte) bool {
			if !past && i == len(files)-1 { // behind the last record, before one that is being written
				at = start + int64(len(line)) + 1
			}
			past = true
			r, ok := parseRecord(string(line))
			if !ok || !until.IsZero() && r.Time.After(until) {
				return true
			}
			if !r.Partial || !parts[r.Stream] {
				counted++
			}
			if counted > lines {
				return false
			}
			parts[r.Stream] = true
			file, at = i, start
			return true
		})
		if err != nil {
			return 0, 0, err
		}
	}
	return file, at, nil
}

// backwards visits the whole lines of the first size bytes, the last first,
// until visit is false.
func backwards(f io.ReaderAt, size int64, visit func(at int64, line []byte) bool) error {
	const block = 64 << 10
	var tail []byte // of a line that began in an earlier block
	whole := false  // the end of a line has been seen
	for end := size; end > 0; {
		start := max(0, end-block)
		b := make([]byte, end-start, int(end-start)+len(tail))
		if _, err := f.ReadAt(b, start); err != nil {
			return fmt.Errorf("cannot read a log: %w", err)
		}
		b, end = append(b, tail...), start
		for {
			i := bytes.LastIndexByte(b, '\n')
			if i < 0 && start > 0 {
				break
			}
			if whole && !visit(start+int64(i)+1, b[i+1:]) {
				return nil
			}
			if whole = true; i < 0 {
				return nil
			}
			b = b[:i]
		}
		tail = b
	}
	return nil
}

func parseRecord(line string) (Record, bool) {
	parts := strings.SplitN(line, " ", 4)
	if len(parts) < 4 {
		return Record{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, parts[0])
	if err != nil {
		return Record{}, false
	}
	return Record{Time: at, Stream: parts[1], Partial: parts[2] == "P", Text: parts[3]}, true
}

// logTail gives the last lines of the log at path, at most that many, for an
// error message; of long ones their last parts.
func logTail(path string, most int) []string {
	files, _, err := logFiles(path, nil)
	if err != nil {
		return nil
	}
	defer closeAll(files)
	var lines []string
	begun := map[string]int{} // stream: the line whose earlier parts come next
	parts := 0
	for i := len(files) - 1; i >= 0; i-- {
		info, err := files[i].Stat()
		if err != nil {
			return nil
		}
		more := true
		backwards(files[i], info.Size(), func(_ int64, line []byte) bool {
			r, ok := parseRecord(string(line))
			if !ok {
				return true
			}
			at, known := begun[r.Stream]
			switch parts++; {
			case r.Partial && known:
				lines[at] = r.Text + lines[at]
			case len(lines) == most:
				more = false
				return false
			default:
				lines = append(lines, r.Text)
				begun[r.Stream] = len(lines) - 1
			}
			more = parts < 4*most
			return more
		})
		if !more {
			break
		}
	}
	slices.Reverse(lines)
	return lines
}
