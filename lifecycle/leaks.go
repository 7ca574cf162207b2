package lifecycle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// Leak is what one station tried outside of the topology, with how often; its
// JSON form is stable.
type Leak struct {
	Station  string     `json:"station"`          // "cluster/station"; an address that is nobody's
	Protocol string     `json:"protocol"`         // "tcp", "udp", "icmp" (ping) or "dns"
	Address  netip.Addr `json:"address,omitzero"` // not of dns
	Port     uint16     `json:"port,omitempty"`
	Name     string     `json:"name,omitempty"` // that DNS has called the address; "" of dns: one of too many
	Outcome  string     `json:"outcome"`
	Reason   string     `json:"reason,omitempty"`  // why not
	Process  string     `json:"process,omitempty"` // of the first try: "curl (pid 812)", on the machine; "" where it was not found
	Count    int        `json:"count"`
	First    time.Time  `json:"first"`
	Last     time.Time  `json:"last"`
}

// Outcomes of a Leak.
const (
	LeakAllowed = "allowed" // it was connected; of udp and icmp: sent; of dns: passed on
	LeakRefused = "refused" // by egress: nothing left the machine
	LeakFailed  = "failed"  // outside
)

const (
	// maxLeaks bounds the records of a station; what is more goes into one
	// without destination for each outcome.
	maxLeaks = 500
	// leakPause gathers what is tried into one write of the file.
	leakPause = 200 * time.Millisecond
)

// leakBook counts what was tried and keeps it in a file.
type leakBook struct {
	path string

	mu       sync.Mutex
	all      map[Leak]*Leak // by what was tried and its outcome
	stations map[string]int
	writing  bool
}

// openLeaks goes on with what an earlier keeper wrote.
func openLeaks(path string) *leakBook {
	b := &leakBook{path: path, all: map[Leak]*Leak{}, stations: map[string]int{}}
	found, _ := readLeaks(path) // a file that can't be read is replaced
	for _, l := range found {
		b.all[l.key()] = &l
		b.stations[l.Station]++
	}
	return b
}

func (l Leak) key() Leak {
	l.Reason, l.Process, l.Count, l.First, l.Last = "", "", 0, time.Time{}, time.Time{}
	return l
}

// isNew tells whether nothing like it has a record yet, whatever its outcome, and
// it is going to have one.
func (b *leakBook) isNew(l Leak) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l.Outcome = range []string{LeakAllowed, LeakRefused, LeakFailed} {
		if b.all[l.key()] != nil {
			return false
		}
	}
	return b.stations[l.Station] < maxLeaks
}

func (b *leakBook) add(l Leak, times int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key, now := l.key(), time.Now()
	if b.all[key] == nil && b.stations[l.Station] >= maxLeaks {
		key = Leak{Station: l.Station, Protocol: l.Protocol, Outcome: l.Outcome}
		l.Address, l.Port, l.Name, l.Process = key.Address, 0, "", ""
	}
	known := b.all[key]
	if known == nil {
		l.First = now
		known = &l
		b.all[key] = known
		b.stations[l.Station]++
	}
	known.Reason, known.Last = l.Reason, now
	known.Count += times
	if !b.writing {
		b.writing = true
		time.AfterFunc(leakPause, b.write)
	}
}

// write is tried again with the next record where it fails.
func (b *leakBook) write() {
	b.mu.Lock()
	b.writing = false
	all := make([]Leak, 0, len(b.all))
	for _, l := range b.all {
		all = append(all, *l)
	}
	b.mu.Unlock()
	slices.SortFunc(all, func(x, y Leak) int {
		return cmp.Or(x.First.Compare(y.First), cmp.Compare(x.Station, y.Station), cmp.Compare(x.Name, y.Name), x.Address.Compare(y.Address), cmp.Compare(x.Port, y.Port))
	})
	if data, err := json.Marshal(all); err == nil {
		_ = writeData(b.path, data, false)
	}
}

func readLeaks(path string) ([]Leak, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read what stations tried: %w", err)
	}
	var all []Leak
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return all, nil
}

// Leaks lists what a topology's stations tried outside of it since it came up,
// the first first.
func Leaks(l Layout, name string) ([]Leak, error) {
	if _, err := readIntent(l, name); err != nil {
		return nil, err
	}
	return readLeaks(l.leaks(name))
}

// FollowLeaks hands what there is to emit, and each record again when it
// counts more, until the topology is down or ctx ends.
func FollowLeaks(ctx context.Context, l Layout, name string, emit func(Leak) error) error {
	counted := map[Leak]int{}
	for {
		all, err := Leaks(l, name)
		if none := (*NotKnown)(nil); errors.As(err, &none) && len(counted) > 0 {
			return nil
		}
		if err != nil {
			return err
		}
		for _, leak := range all {
			if counted[leak.key()] == leak.Count {
				continue
			}
			counted[leak.key()] = leak.Count
			if err := emit(leak); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(leakPause):
		}
	}
}
