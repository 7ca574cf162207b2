package backbone

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	maxNamed   = 8192 // addresses
	maxCalled  = 4    // names of one
	maxAsked   = 256  // names in a message
	askedPause = 200 * time.Millisecond
	// listedTime is how long an address that DNS gave for a listed name is that
	// name's, where its time to live is not longer: programs go on with what they
	// have looked up.
	listedTime = time.Hour
)

// names remembers what outside addresses were called in answers to stations.
type names struct {
	now func() time.Time

	mu    sync.Mutex
	calls map[netip.Addr][]string // the latest first
	order []netip.Addr            // the oldest first
	// listed are the names that some egress lists, and until when an address is
	// theirs: what else an address is called, by whomever, takes none from them.
	listed map[string]map[netip.Addr]time.Time
}

func newNames() *names { return &names{now: time.Now, calls: map[netip.Addr][]string{}} }

// list sets the listed names.
func (n *names) list(all []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	listed := map[string]map[netip.Addr]time.Time{}
	for _, name := range all {
		if listed[name] = n.listed[name]; listed[name] == nil {
			listed[name] = map[netip.Addr]time.Time{}
		}
	}
	n.listed = listed
}

// of lists the listed names of an address, and then others.
func (n *names) of(a netip.Addr) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []string
	now := n.now()
	for name, addresses := range n.listed {
		if until, ok := addresses[a]; ok && now.Before(until) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	for _, name := range n.calls[a] {
		if _, listed := n.listed[name]; !listed {
			all = append(all, name)
		}
	}
	return all
}

// learn takes the addresses that an answer gives for the name in question, and
// not what else came along.
func (n *names) learn(q dns.Question, answer []dns.RR) {
	name := strings.ToLower(q.Name)
	owners := map[string]bool{name: true}
	for _, rr := range answer { // CNAMEs come in the order of their chain
		if c, ok := rr.(*dns.CNAME); ok && owners[strings.ToLower(c.Hdr.Name)] {
			owners[strings.ToLower(c.Target)] = true
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, rr := range answer {
		if !owners[strings.ToLower(rr.Header().Name)] {
			continue
		}
		switch rr := rr.(type) {
		case *dns.A:
			n.call(rr.A, name, rr.Hdr.Ttl)
		case *dns.AAAA:
			n.call(rr.AAAA, name, rr.Hdr.Ttl)
		}
	}
}

func (n *names) call(ip []byte, name string, ttl uint32) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return
	}
	a = a.Unmap()
	name = strings.TrimSuffix(name, ".")
	if addresses, ok := n.listed[name]; ok {
		now := n.now()
		if len(addresses) >= maxNamed {
			maps.DeleteFunc(addresses, func(_ netip.Addr, until time.Time) bool { return !now.Before(until) })
		}
		if len(addresses) < maxNamed {
			addresses[a] = now.Add(max(listedTime, time.Duration(ttl)*time.Second))
		}
	}
	called, known := n.calls[a]
	called = slices.DeleteFunc(called, func(o string) bool { return o == name })
	n.calls[a] = slices.Insert(called[:min(len(called), maxCalled-1)], 0, name)
	if known {
		return
	}
	if n.order = append(n.order, a); len(n.order) > maxNamed {
		delete(n.calls, n.order[0])
		n.order = n.order[1:]
	}
}

// ledger counts questions for outside names, until the keeper is told.
type ledger struct {
	mu    sync.Mutex
	count map[Asked]int // with a Count of 0
	tell  func([]Asked)
}

func newLedger(tell func([]Asked)) *ledger { return &ledger{count: map[Asked]int{}, tell: tell} }

func (l *ledger) note(from netip.Addr, name string, passed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := Asked{From: from, Passed: passed, Name: strings.TrimSuffix(strings.ToLower(name), ".")}
	if l.count[key] == 0 && len(l.count) >= maxAsked {
		key.Name = "" // one of too many
	}
	if len(l.count) == 0 {
		time.AfterFunc(askedPause, l.flush)
	}
	l.count[key]++
}

func (l *ledger) flush() {
	l.mu.Lock()
	var all []Asked
	for key, n := range l.count {
		key.Count = n
		all = append(all, key)
	}
	l.count = map[Asked]int{}
	l.mu.Unlock()
	l.tell(all)
}
