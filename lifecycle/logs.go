package lifecycle

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"platelayer/containers"
)

// A station's log is one file of records, each a line
//
//	TIME STREAM TAG TEXT
//
// as Kubernetes' CRI writes them: RFC 3339 time with nanoseconds, stdout or
// stderr, F for a full line or P for a part of one, and the text.
const (
	logSize  = 10 << 20 // bytes; a full file becomes the old one
	lineSize = 16 << 10 // bytes; a longer line is written in parts
)

// logFile is a station's log, bounded: the file and the one before it.
type logFile struct {
	mu   sync.Mutex
	path string
	file *os.File
	size int64
	told func() // after each write
}

func logPath(l Layout, name, container string) string {
	return filepath.Join(l.logs(name), container+".log")
}

// collectLogs reads what a container writes until nobody can write any more;
// then drained is closed. Until release is called the streams stay open though
// the container has not started.
func (k *keeper) collectLogs(spec *containers.Spec) (drained <-chan struct{}, release func(), err error) {
	log := &logFile{path: logPath(k.layout, k.name, spec.Name), told: k.touch}
	var readers, writers []*os.File
	release = func() { closeAll(writers) }
	for _, path := range []string{spec.Stdout, spec.Stderr} {
		for _, end := range []struct {
			flag int
			list *[]*os.File
		}{{os.O_RDONLY, &readers}, {os.O_WRONLY, &writers}} {
			f, err := os.OpenFile(path, end.flag|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
			if err != nil {
				closeAll(readers)
				release()
				return nil, nil, fmt.Errorf("cannot read the output of %q: %w", spec.Name, err)
			}
			*end.list = append(*end.list, f)
		}
	}
	var wg sync.WaitGroup
	for i, stream := range []string{"stdout", "stderr"} {
		wg.Go(func() {
			defer readers[i].Close()
			log.copy(stream, readers[i])
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		log.close()
		close(done)
	}()
	return done, release, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// copy appends what r yields as records of the stream.
func (w *logFile) copy(stream string, r *os.File) {
	buffer := make([]byte, lineSize)
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			w.append(stream, buffer[:n])
		}
		if err != nil {
			return
		}
	}
}

// append writes the chunk's lines; what it has of an unfinished one is a part.
func (w *logFile) append(stream string, chunk []byte) {
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
	var out bytes.Buffer
	for len(chunk) > 0 {
		line, rest, full := bytes.Cut(chunk, []byte{'\n'})
		tag := byte('P')
		if full {
			tag = 'F'
		}
		out.WriteString(now + " " + stream + " ")
		out.WriteByte(tag)
		out.WriteByte(' ')
		out.Write(line)
		out.WriteByte('\n')
		chunk = rest
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// A log that can't be written (a full disk) is lost; the station goes on.
	if w.file == nil || w.size+int64(out.Len()) > logSize {
		w.rotate()
	}
	if w.file != nil {
		n, _ := w.file.Write(out.Bytes())
		w.size += int64(n)
	}
	w.told()
}

// rotate opens the file, or makes a full one the old one first.
func (w *logFile) rotate() {
	if w.file != nil {
		w.file.Close()
		os.Rename(w.path, w.path+".1")
	}
	w.size = 0
	w.file, _ = os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if w.file != nil {
		if info, err := w.file.Stat(); err == nil {
			w.size = info.Size()
		}
	}
}

func (w *logFile) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
}
