package lifecycle

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"platelayer/containers/native"
	"platelayer/topology"
)

// Record is one piece of a station's output.
type Record struct {
	Station string    `json:"station"`
	Time    time.Time `json:"time"`
	Stream  string    `json:"stream"` // stdout or stderr
	Text    string    `json:"text"`
	Partial bool      `json:"partial,omitempty"` // the line goes on in the next record of the stream
}

// LogOptions are the choices of `logs`.
type LogOptions struct {
	Stations []*topology.Station // none: all
	Follow   bool
	Tail     int // records of each station's past; negative is all
}

// Logs hands the stations' output to emit, the past sorted by time. With
// Follow it goes on until the topology is down, its keeper is gone or ctx ends.
func Logs(ctx context.Context, l Layout, name string, o LogOptions, emit func(Record) error) error {
	intent, err := readIntent(l, name)
	if err != nil {
		return err
	}
	which := o.Stations
	if len(which) == 0 {
		which = stations(intent.Topology)
	}
	var (
		wake net.Conn
		lost error
	)
	if o.Follow {
		// Connected before the past is read: nothing is missed in between.
		dir, path, err := socketPath(l, name)
		if err != nil {
			return err
		}
		wake, err = net.Dial("unix", path)
		dir.Close()
		if err != nil {
			return fmt.Errorf("cannot follow the logs of %q, its keeper does not answer: %w", name, err)
		}
		defer wake.Close()
		defer context.AfterFunc(ctx, func() { wake.Close() })()
	}
	tails := make([]*tail, len(which))
	for i, s := range which {
		tails[i] = &tail{station: s.Name, path: logPath(l, name, intent.Topology.ContainerName(s))}
		if o.Stations == nil || ambiguous(intent.Topology, s) {
			tails[i].station = label(intent.Topology, s)
		}
		defer tails[i].close()
	}
	for first := true; ; first = false {
		var records []Record
		for _, t := range tails {
			found, err := t.read(first)
			if err != nil {
				return err
			}
			if first && o.Tail >= 0 && len(found) > o.Tail {
				found = found[len(found)-o.Tail:]
			}
			records = append(records, found...)
		}
		slices.SortStableFunc(records, func(a, b Record) int { return cmp.Compare(a.Time.UnixNano(), b.Time.UnixNano()) })
		for _, r := range records {
			if err := emit(r); err != nil {
				return err
			}
		}
		if wake == nil {
			return lost
		}
		var buffer [64]byte
		if _, err := wake.Read(buffer[:]); err != nil {
			wake = nil // one last look: the keeper wrote before it went
			if ctx.Err() != nil {
				return nil
			}
			lost = keeperLost(l, name)
		}
	}
}

// keeperLost is KeeperGone where stations still run without their keeper.
func keeperLost(l Layout, name string) error {
	state, err := readState(l, name)
	if err == nil && !native.Alive(state.Keeper) && anyAlive(state) {
		return &KeeperGone{name}
	}
	return nil
}

// label is a station's name, with its cluster where the name alone is ambiguous.
func label(t *topology.Topology, s *topology.Station) string {
	if ambiguous(t, s) {
		return s.ID()
	}
	return s.Name
}

func ambiguous(t *topology.Topology, s *topology.Station) bool {
	n := 0
	for _, o := range stations(t) {
		if o.Name == s.Name {
			n++
		}
	}
	return n > 1
}

// tail reads one station's log on from where it stopped, across rotation.
type tail struct {
	station string
	path    string
	file    *os.File
	reader  *bufio.Reader
	rest    string // of a record the keeper is still writing
}

func (t *tail) read(past bool) ([]Record, error) {
	var records []Record
	if past {
		if old, err := os.Open(t.path + ".1"); err == nil {
			t.file, t.reader = old, bufio.NewReader(old)
			if err := t.drain(&records); err != nil {
				return nil, err
			}
			t.close()
		}
	}
	for {
		if t.file == nil {
			f, err := os.Open(t.path)
			if errors.Is(err, fs.ErrNotExist) {
				return records, nil
			}
			if err != nil {
				return nil, fmt.Errorf("cannot read a log: %w", err)
			}
			t.file, t.reader, t.rest = f, bufio.NewReader(f), ""
		}
		// Whether the file has been put aside is asked before the drain: what
		// the keeper wrote into it before that is then read in full.
		now, pathErr := os.Stat(t.path)
		have, err := t.file.Stat()
		if err != nil {
			return nil, fmt.Errorf("cannot read a log: %w", err)
		}
		if err := t.drain(&records); err != nil {
			return nil, err
		}
		if pathErr != nil || os.SameFile(now, have) {
			return records, nil
		}
		t.close()
	}
}

// drain reads to the end of the file.
func (t *tail) drain(into *[]Record) error {
	for {
		line, err := t.reader.ReadString('\n')
		t.rest += line
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read a log: %w", err)
		}
		if r, ok := parseRecord(strings.TrimSuffix(t.rest, "\n")); ok {
			r.Station = t.station
			*into = append(*into, r)
		}
		t.rest = ""
	}
}

func (t *tail) close() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
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

// logTail gives a container's last lines, for an error message.
func (k *keeper) logTail(container string) []string {
	const most = 10
	t := &tail{path: logPath(k.layout, k.name, container)}
	defer t.close()
	records, _ := t.read(true)
	if len(records) > most {
		records = records[len(records)-most:]
	}
	lines := make([]string, len(records))
	for i, r := range records {
		lines[i] = r.Text
	}
	return lines
}
