package backbone

import (
	"container/list"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// cacheSize bounds what the cache holds.
	cacheSize = 8 << 20 // bytes
	// entryCost is what an entry takes beside its packet, about.
	entryCost = 512 // bytes
	// maxNegative bounds how long it is remembered that there is nothing (RFC
	// 2308, section 5), and maxPositive everything else (RFC 8767, section 4).
	maxNegative = 3 * time.Hour
	maxPositive = 24 * time.Hour
)

// cache holds answers of upstream resolvers for as long as their TTLs say. The
// longest unused go first when it is full.
type cache struct {
	mu      sync.Mutex
	entries map[cacheKey]*list.Element // of *cached
	used    *list.List                 // the last used first
	size    int
	now     func() time.Time
}

// cacheKey is a question as its answer depends on it.
type cacheKey struct {
	name       string // canonical
	qtype      uint16
	do, cd, ad bool
	resolver   string // the route, as its addresses
}

type cached struct {
	key     cacheKey
	packet  []byte
	stored  time.Time
	expires time.Time
}

func newCache() *cache {
	return &cache{entries: map[cacheKey]*list.Element{}, used: list.New(), now: time.Now}
}

func keyOf(q *dns.Msg, way *route) cacheKey {
	opt := q.IsEdns0()
	var servers []string
	for _, r := range way.servers {
		servers = append(servers, r.addr.String())
	}
	return cacheKey{canonical(q.Question[0].Name), q.Question[0].Qtype, opt != nil && opt.Do(), q.CheckingDisabled, q.AuthenticatedData, strings.Join(servers, " ")}
}

// get is the answer to a question with the TTLs that are left, or nil.
func (c *cache) get(key cacheKey) *dns.Msg {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil
	}
	found, now := e.Value.(*cached), c.now()
	m := &dns.Msg{}
	if !now.Before(found.expires) || m.Unpack(found.packet) != nil {
		c.drop(e)
		return nil
	}
	c.used.MoveToFront(e)
	age := uint32(max(now.Sub(found.stored), 0) / time.Second)
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		if h := rr.Header(); h.Rrtype != dns.TypeOPT {
			h.Ttl -= min(age, h.Ttl)
		}
	}
	return m
}

// put keeps an answer, if it may be kept.
func (c *cache) put(key cacheKey, m *dns.Msg) {
	keep := lifetime(m)
	if keep <= 0 {
		return
	}
	packet, err := m.Pack()
	if err != nil || len(packet)+entryCost > cacheSize/16 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		c.drop(e)
	}
	now := c.now()
	c.entries[key] = c.used.PushFront(&cached{key, packet, now, now.Add(keep)})
	c.size += len(packet) + entryCost
	for c.size > cacheSize {
		c.drop(c.used.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	gone := c.used.Remove(e).(*cached)
	delete(c.entries, gone.key)
	c.size -= len(gone.packet) + entryCost
}

// lifetime is how long an answer may be kept: the least of its TTLs, and of one
// that says that there is nothing what its SOA record says. 0 is not at all.
func lifetime(m *dns.Msg) time.Duration {
	if m.Truncated || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0
	}
	qtype := m.Question[0].Qtype
	something := slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
		return rr.Header().Rrtype == qtype || qtype == dns.TypeANY
	})
	least, most := uint32(maxTTL), maxPositive
	if m.Rcode == dns.RcodeNameError || !something {
		// RFC 2308, section 5: without SOA it must not be kept.
		i := slices.IndexFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA })
		if i < 0 {
			return 0
		}
		least, most = m.Ns[i].(*dns.SOA).Minttl, maxNegative
	}
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		if h := rr.Header(); h.Rrtype != dns.TypeOPT && h.Ttl <= maxTTL { // beyond is 0 (RFC 2181, section 8)
			least = min(least, h.Ttl)
		} else if h.Rrtype != dns.TypeOPT {
			return 0
		}
	}
	return min(time.Duration(least)*time.Second, most)
}

// maxTTL is the largest TTL there is (RFC 2181, section 8).
const maxTTL = 1<<31 - 1

// resolve answers from the cache or asks the resolvers of the question's
// route. cached says which it was.
func (u *upstream) resolve(ask func() (*dns.Msg, error), q *dns.Msg, from netip.Addr) (answer *dns.Msg, cached bool, err error) {
	w := u.way.Load()
	key := keyOf(q, w.routes.find(q.Question[0].Name, from))
	if m := u.cache.get(key); m != nil {
		return m, true, nil
	}
	if answer, err = ask(); err == nil && u.way.Load() == w {
		u.cache.put(key, answer)
	}
	return answer, false, err
}
