package backbone

import (
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Question is one that was answered, and how; its JSON form is stable.
type Question struct {
	Time   time.Time     `json:"time"`
	From   netip.Addr    `json:"from"`
	TCP    bool          `json:"tcp,omitempty"`
	Name   string        `json:"name"` // as it was spelt
	Type   string        `json:"type"`
	Rcode  string        `json:"rcode"`
	Answer []string      `json:"answer,omitempty"` // types and data
	Source Source        `json:"source"`
	Took   time.Duration `json:"took"` // nanoseconds
	// Lost counts earlier questions that came too fast to be told.
	Lost uint64 `json:"lost,omitempty"`
}

// Source is where an answer comes from.
type Source string

// Sources.
const (
	SourceOwn      Source = "own" // the topology's names, and refusals
	SourceCache    Source = "cache"
	SourceUpstream Source = "upstream"
)

// follower is told of each question. It is there only while somebody asks for
// that, so that otherwise it costs nothing.
type follower struct {
	told chan Question
	lost atomic.Uint64
	done chan struct{}
}

// tell tells of an answer; nil is none.
func (f *follower) tell(via transport, packed []byte, source Source, began time.Time) {
	var m dns.Msg
	if f == nil || packed == nil || m.Unpack(packed) != nil {
		return
	}
	q := Question{Time: began, From: via.from.Unmap().WithZone(""), TCP: via.tcp, Rcode: dns.RcodeToString[m.Rcode], Source: source, Took: time.Since(began)}
	if len(m.Question) > 0 {
		q.Name, q.Type = m.Question[0].Name, dns.Type(m.Question[0].Qtype).String()
	}
	for _, rr := range m.Answer {
		data := strings.TrimPrefix(rr.String(), rr.Header().String())
		q.Answer = append(q.Answer, fmt.Sprintf("%s %s", dns.Type(rr.Header().Rrtype), data))
	}
	if q.Lost = f.lost.Swap(0); q.Lost > 0 {
		// Counted with the first that gets through.
		select {
		case f.told <- q:
		default:
			f.lost.Add(q.Lost + 1)
		}
		return
	}
	select {
	case f.told <- q:
	default:
		f.lost.Add(1)
	}
}

// follow sends all questions from now on to a keeper, until unfollow or the end
// of the connection. One keeper is told at a time.
func (s *server) follow(p *pipe) {
	const together = 128
	f := &follower{told: make(chan Question, 4096), done: make(chan struct{})}
	if old := s.follower.Swap(f); old != nil {
		close(old.done)
	}
	s.tasks.Go(func() {
		for {
			var batch []Question
			select {
			case q := <-f.told:
				batch = append(batch, q)
			case <-f.done:
				return
			case <-s.ctx.Done():
				return
			}
			for len(f.told) > 0 && len(batch) < together {
				batch = append(batch, <-f.told)
			}
			if p.send(&message{Type: msgAsked, Asked: batch}) != nil {
				s.follower.CompareAndSwap(f, nil)
				return
			}
		}
	})
}

func (s *server) unfollow() {
	if old := s.follower.Swap(nil); old != nil {
		close(old.done)
	}
}

// Follow has the backbone tell tell of each question from now on, or of none
// with nil. It returns before that.
func (k *Keeper) Follow(tell func([]Question)) error {
	k.mu.Lock()
	k.tell = tell
	k.mu.Unlock()
	return k.pipe.send(&message{Type: msgFollow, On: tell != nil})
}

func (k *Keeper) asked(questions []Question) {
	k.mu.Lock()
	tell := k.tell
	k.mu.Unlock()
	if tell != nil {
		tell(questions)
	}
}
