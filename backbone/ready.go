package backbone

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// Most questions are about the addresses of a name that we know. Their answers
// are made when the zones are: what comes behind the question, as it goes onto
// the wire. Owner names in them point back at the question, so that they have
// the asker's spelling of it, capitals and all (draft-vixie-dnsext-dns0x20).

// headerLen is the length of a message's header (RFC 1035, section 4.1.1).
const headerLen = 12

// ready is the answer to one question but for its header, its question and
// its OPT record.
type ready struct {
	answers, authority uint16
	body               []byte
	family             *rotation // whose turns the answers take; nil for none
}

// readyNode holds the answers about a name: for each cluster that has it, and
// of each type.
type readyNode struct {
	node     *node
	bindings []readyBinding // as the node's
	own      readyBinding   // where there are none
	others   map[uint16]*ready
}

type readyBinding struct {
	cluster int
	v4, v6  *ready
}

// prepare makes the answers about all names. One that has to follow an alias
// or is too long is not among them.
func (z *zones) prepare() {
	z.ready = make(map[string]*readyNode, len(z.names))
	for name, n := range z.names {
		var wire [256]byte
		end, err := dns.PackDomainName(name, wire[:], 0, nil, false)
		if err != nil || n.records[dns.TypeCNAME] != nil {
			continue
		}
		r := &readyNode{node: n}
		for _, b := range n.bindings {
			r.bindings = append(r.bindings, z.readyBinding(name, b))
		}
		r.own = readyBinding{cluster: noCluster}
		if n.own != nil && len(n.bindings) == 0 {
			r.own = z.readyBinding(name, n.own)
		}
		for qtype := range n.records {
			if r.others == nil {
				r.others = map[uint16]*ready{}
			}
			r.others[qtype] = z.pack(name, qtype, noCluster)
		}
		z.ready[string(wire[:end])] = r
	}
}

func (z *zones) readyBinding(name string, b *binding) readyBinding {
	return readyBinding{b.cluster, z.readyFamily(name, dns.TypeA, b, &b.v4), z.readyFamily(name, dns.TypeAAAA, b, &b.v6)}
}

func (z *zones) readyFamily(name string, qtype uint16, b *binding, family *rotation) *ready {
	if len(family.addrs) == 0 {
		return z.pack(name, qtype, b.cluster)
	}
	r := &ready{answers: uint16(len(family.addrs)), family: family}
	for _, addr := range family.addrs {
		bytes := addr.AsSlice()
		r.body = append(r.body, 0xc0, headerLen) // the question's name (RFC 1035, section 4.1.4)
		r.body = binary.BigEndian.AppendUint16(r.body, qtype)
		r.body = binary.BigEndian.AppendUint16(r.body, dns.ClassINET)
		r.body = binary.BigEndian.AppendUint32(r.body, family.ttl)
		r.body = binary.BigEndian.AppendUint16(r.body, uint16(len(bytes)))
		r.body = append(r.body, bytes...)
	}
	if len(r.body) > dns.MinMsgSize {
		return nil
	}
	return r
}

// pack takes the answer from where all others come from.
func (z *zones) pack(name string, qtype uint16, asker int) *ready {
	q := &dns.Msg{}
	q.SetQuestion(name, qtype)
	m := newReply(q)
	if ours, outside := z.answer(m, asker); !ours || outside != "" || m.Rcode != dns.RcodeSuccess {
		return nil
	}
	m.Compress = true
	packed, err := m.Pack()
	question := headerLen + len(name) + 1 + 4
	if err != nil || len(packed) > dns.MinMsgSize || len(m.Extra) > 0 || len(packed) < question {
		return nil
	}
	return &ready{answers: uint16(len(m.Answer)), authority: uint16(len(m.Ns)), body: packed[question:]}
}

// find is the answer for an asker, or nil.
func (r *readyNode) find(qtype uint16, asker int) *ready {
	if qtype != dns.TypeA && qtype != dns.TypeAAAA {
		return r.others[qtype]
	}
	b := &r.own
	for i := range r.bindings {
		if i == 0 || r.bindings[i].cluster == asker {
			b = &r.bindings[i]
		}
	}
	if qtype == dns.TypeA {
		return b.v4
	}
	return b.v6
}

// question is what is read of a packet that asks in the usual way.
type question struct {
	end   int    // of the question in the packet
	qtype uint16 // of class IN
	name  [256]byte
	size  int // of name: lower case, as on the wire
	edns  bool
	do    bool
	limit int // bytes of the answer
}

// read reads a packet that is a query with one question, a name without
// pointers, and at most a bare OPT record. All others are left to who reads
// more slowly and answers what is wrong with them.
func (q *question) read(packet []byte) bool {
	if len(packet) < headerLen+5 || packet[2]&^1 != 0 || packet[3]&^0x30 != 0 || // opcode QUERY; RD, AD and CD may be set
		binary.BigEndian.Uint64(packet[4:])&^1 != 1<<48 { // one question, no answers, one additional record or none
		return false
	}
	at := headerLen
	for {
		label := int(packet[at])
		if label > 63 || at+1+label+4 > len(packet) || at-headerLen+1+label > 254 {
			return false
		}
		to := at - headerLen
		q.name[to] = byte(label)
		for i, c := range packet[at+1 : at+1+label] {
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			q.name[to+1+i] = c
		}
		at += 1 + label
		if label == 0 {
			break
		}
	}
	q.size = at - headerLen
	if binary.BigEndian.Uint16(packet[at+2:]) != dns.ClassINET {
		return false
	}
	q.qtype = binary.BigEndian.Uint16(packet[at:])
	q.end = at + 4
	q.edns, q.do, q.limit = false, false, dns.MinMsgSize
	rest := packet[q.end:]
	if packet[11] == 0 {
		return len(rest) == 0
	}
	// RFC 6891, section 6.1.2; rest[5] and rest[6] are more of the rcode and the
	// version, rest[9] and rest[10] the length of the options.
	if len(rest) != optLen || rest[0] != 0 || binary.BigEndian.Uint16(rest[1:]) != dns.TypeOPT || rest[5] != 0 || rest[6] != 0 ||
		rest[9] != 0 || rest[10] != 0 {
		return false
	}
	q.edns, q.do = true, rest[7]&0x80 != 0
	q.limit = min(max(int(binary.BigEndian.Uint16(rest[3:])), dns.MinMsgSize), udpSize)
	return true
}

// optLen is the length of an OPT record without options.
const optLen = 11

// answerReady answers a packet over UDP whose answer lies ready, into buf; nil
// when it does not.
func (z *zones) answerReady(q *question, packet, buf []byte, asker int) []byte {
	node := z.ready[string(q.name[:q.size])]
	if node == nil {
		return nil
	}
	r := node.find(q.qtype, asker)
	if r == nil || q.end+len(r.body)+optLen > min(q.limit, len(buf)) {
		return nil
	}
	out := append(buf[:0], packet[:q.end]...)
	out[2] = 0x84 | packet[2]&1    // an answer, authoritative; RD as asked
	out[3] = 0x80 | packet[3]&0x10 // RA; CD as asked
	binary.BigEndian.PutUint16(out[6:], r.answers)
	binary.BigEndian.PutUint16(out[8:], r.authority)
	first := 0
	if r.family != nil {
		first = r.family.start() * (len(r.body) / int(r.answers))
	}
	out = append(out, r.body[first:]...)
	out = append(out, r.body[:first]...)
	if q.edns {
		do := byte(0)
		if q.do {
			do = 0x80
		}
		out = append(out, 0, 0, byte(dns.TypeOPT), udpSize>>8, udpSize&0xff, 0, 0, do, 0, 0, 0)
	}
	return out
}
