package lifecycle

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"platelayer/topology"
)

// A station's log is a file of records, each a line
//
//	TIME STREAM TAG TEXT
//
// as Kubernetes' CRI writes them: RFC 3339 time with nanoseconds, stdout or
// stderr, F for a full line or P for a part of one, and the text. A full file
// NAME becomes NAME.1, that one NAME.2 and so on.
const (
	timeLayout = "2006-01-02T15:04:05.000000000Z"
	textAt     = len(timeLayout + " stdout F ") // bytes of a record before its text
	lineSize   = 16 << 10                       // bytes of text in one record; a longer line is written in parts

	defaultLogSize  = 10 << 20 // bytes
	defaultLogFiles = 2
)

// logFile is a station's log, bounded: the file and those before it.
type logFile struct {
	path  string
	users int // collections; under logs.mu

	mu     sync.Mutex
	limits topology.Logging
	file   *os.File // nil until something is to be written
	size   int64
	last   time.Time // of the last record
	cut    bool      // the file ends within a record
	lost   int64     // bytes of text that could not be written
	cause  error     // why
}

func (w *logFile) setLimits(limits topology.Logging) {
	if limits.MaxSize <= 0 {
		limits.MaxSize = defaultLogSize
	}
	if limits.MaxFiles <= 0 {
		limits.MaxFiles = defaultLogFiles
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limits = limits
	for i := limits.MaxFiles; os.Remove(w.older(i)) == nil; i++ {
	}
}

// older is the path of the i-th file before the current one.
func (w *logFile) older(i int) string { return olderLog(w.path, i) }

func olderLog(path string, i int) string {
	if i == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, i)
}

// append writes the chunk's lines; what it has of an unfinished one is a part.
// The records are made in out. What can't be written is lost: the station goes
// on, and the log says so when it can be written again.
func (w *logFile) append(stream string, chunk, out []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.ready()
	flush := func() {
		n := 0
		if err == nil {
			n, err = w.put(out)
		}
		if err != nil {
			w.lose(out, n, err)
		}
		out = out[:0]
	}
	head := w.head(stream)
	for len(chunk) > 0 {
		end := bytes.IndexByte(chunk[:min(len(chunk), lineSize+1)], '\n')
		text, tag := chunk, byte('P')
		if end >= 0 {
			text, tag = chunk[:end], 'F'
			chunk = chunk[end+1:]
		} else {
			text = chunk[:min(len(chunk), lineSize)]
			chunk = chunk[len(text):]
		}
		size := textAt + len(text) + 1
		full := w.size > 0 || len(out) > 0
		full = full && w.size+int64(len(out)+size) > w.limits.MaxSize
		if full || len(out)+size > cap(out) {
			flush()
		}
		if full && err == nil {
			err = w.rotate()
		}
		out = append(out, head...)
		out[len(out)-2] = tag
		out = append(append(out, text...), '\n')
	}
	flush()
}

// head is what a record has before its text, the tag left open. Times never go
// backwards in a log, whatever the clock does.
func (w *logFile) head(stream string) []byte {
	if now := time.Now().UTC(); now.After(w.last) {
		w.last = now
	}
	head := w.last.AppendFormat(make([]byte, 0, textAt), timeLayout)
	return append(append(append(head, ' '), stream...), " F "...)
}

// ready opens the file, ends a record that was cut off and tells what was lost.
func (w *logFile) ready() error {
	if w.file != nil {
		info, err := w.file.Stat()
		if err == nil && info.Sys().(*syscall.Stat_t).Nlink == 0 { // somebody removed it
			w.close()
		}
	}
	if w.file == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	if w.cut {
		if _, err := w.put([]byte{'\n'}); err != nil {
			return err
		}
	}
	if w.lost > 0 {
		cause := w.cause
		if path := new(fs.PathError); errors.As(cause, &path) {
			cause = path.Err
		}
		if _, err := w.put(fmt.Appendf(nil, "%splatelayer: %d bytes lost: %v\n", w.head("stderr"), w.lost, cause)); err != nil {
			return err
		}
		w.lost = 0
	}
	return nil
}

// open goes on where an earlier keeper stopped, be it within a record.
func (w *logFile) open() error {
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_RDWR|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	w.file, w.size, w.cut = f, info.Size(), false
	if w.size == 0 {
		return nil
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, w.size-1); err == nil && last[0] != '\n' {
		w.cut = true
	}
	backwards(f, w.size, func(_ int64, line []byte) bool {
		r, ok := parseRecord(string(line))
		if ok && r.Time.After(w.last) {
			w.last = r.Time.UTC()
		}
		return !ok
	})
	return nil
}

func (w *logFile) put(records []byte) (int, error) {
	n, err := w.file.Write(records)
	if n > 0 {
		w.size += int64(n)
		w.cut = records[n-1] != '\n'
	}
	return n, err
}

// lose counts what of the records is not among the written bytes.
func (w *logFile) lose(records []byte, written int, err error) {
	w.cause = err
	for len(records) > 0 {
		size := bytes.IndexByte(records, '\n')
		w.lost += int64(max(0, size-max(written, textAt)))
		if written < textAt && records[textAt-2] == 'F' {
			w.lost++ // its newline
		}
		records = records[size+1:]
		written = max(0, written-size-1)
	}
}

// rotate makes the full file the first of the older ones.
func (w *logFile) rotate() error {
	for i := w.limits.MaxFiles - 1; i > 1; i-- {
		os.Rename(w.older(i-1), w.older(i))
	}
	var err error
	if w.limits.MaxFiles > 1 {
		err = os.Rename(w.path, w.older(1))
	} else {
		err = os.Remove(w.path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w.close()
	return w.open()
}

// finish closes the file until somebody writes again. It is false where there
// still is a loss to tell.
func (w *logFile) finish() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost > 0 {
		w.ready()
	}
	w.close()
	return w.lost == 0
}

func (w *logFile) close() {
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
	w.size, w.cut = 0, false
}
