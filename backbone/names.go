package backbone

import (
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
)

// names remembers what outside addresses were called in answers to stations.
type names struct {
	mu    sync.Mutex
	calls map[netip.Addr][]string // the latest first
	order []netip.Addr            // the oldest first
}

func newNames() *names { return &names{calls: map[netip.Addr][]string{}} }

func (n *names) of(a netip.Addr) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.calls[a])
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
			n.call(rr.A, name)
		case *dns.AAAA:
			n.call(rr.AAAA, name)
		}
	}
}

func (n *names) call(ip []byte, name string) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return
	}
	a = a.Unmap()
	name = strings.TrimSuffix(name, ".")
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

// ledger counts questions that are not passed on, until the keeper is told.
type ledger struct {
	mu    sync.Mutex
	count map[Asked]int // with a Count of 0
	tell  func([]Asked)
}

func newLedger(tell func([]Asked)) *ledger { return &ledger{count: map[Asked]int{}, tell: tell} }

func (l *ledger) note(from netip.Addr, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := Asked{From: from, Name: strings.TrimSuffix(strings.ToLower(name), ".")}
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
