package backbone

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// datagramIdle is after what silence of both sides a UDP client is forgotten.
const datagramIdle = 90 * time.Second

// datagramPort is a UDP port. Each client has a socket of its own to the
// station, so that the station sees them apart. It is its loop's.
type datagramPort struct {
	*openPort
	loop    *loop
	outer   int
	number  uint64
	clients map[client]*caller
	over    bool
}

// client is whom to answer, and from which of the machine's addresses.
type client struct {
	from  netip.AddrPort
	local [20]byte // of the packet information, without the interface
	size  int
}

// caller is a client's socket to the station.
type caller struct {
	fd            int
	number        uint64
	last          time.Time // when one of both said something
	silence       *time.Timer
	name, control []byte // for answers, as the kernel has them
}

func (o *openPort) serveUDP(outer int) error {
	l, err := o.all.relays.loop(nil)
	if err != nil {
		return err
	}
	d := &datagramPort{openPort: o, loop: l, outer: outer, clients: map[client]*caller{}}
	l.do(d.start)
	o.close = func() { l.call(d.stop) }
	return nil
}

func (d *datagramPort) start() {
	var err error
	if d.number, err = d.loop.watch(d.outer, unix.EPOLLIN, watch{ready: d.receive, stop: d.stop}); err != nil {
		d.all.logf("cannot serve a UDP port: %v", err)
		d.stop()
	}
}

func (d *datagramPort) stop() {
	if d.over {
		return
	}
	d.over = true
	d.loop.forget(d.outer, d.number)
	for c := range d.clients {
		d.forget(c)
	}
}

// receive leads the clients' datagrams to the station.
func (d *datagramPort) receive(uint32) {
	v := d.loop.datagrams()
	n, _ := v.receive(d.outer) // an error is an ICMP one of an earlier answer
	now := time.Now()
	for i := 0; i < n; {
		end := i + 1
		for end < n && v.alike(i, end) {
			end++
		}
		c := client{from: v.sender(i)}
		c.keep(v.oob(i))
		k := d.clients[c]
		if k == nil {
			k = d.admit(c, v.name(i))
		}
		if k != nil {
			k.last = now
			_ = v.send(k.fd, i, end, nil, nil) // as the network, it may lose one
		}
		i = end
	}
}

// admit makes a client's socket; nil where none can be.
func (d *datagramPort) admit(c client, name []byte) *caller {
	select {
	case d.all.datagrams <- struct{}{}:
	default:
		if !d.yield() {
			return nil
		}
	}
	k := &caller{last: time.Now(), name: bytes.Clone(name), control: c.control()}
	var err error
	if k.fd, err = d.reach(unix.SOCK_DGRAM, c.from); err == nil {
		k.number, err = d.loop.watch(k.fd, unix.EPOLLIN, watch{ready: func(uint32) { d.answer(c, k) }})
	}
	if err != nil {
		if k.fd >= 0 {
			unix.Close(k.fd)
		}
		<-d.all.datagrams
		return nil
	}
	d.clients[c] = k
	k.silence = d.loop.silence(func() time.Duration { return datagramIdle - time.Since(k.last) }, func() {
		if d.clients[c] == k {
			d.forget(c)
		}
	})
	return k
}

// yield ends the idlest of some clients, if it is idle at all, for another in its
// place: who sends under thousands of addresses keeps nobody out for long.
func (d *datagramPort) yield() bool {
	const some = 16 // any: a map is ranged over in random order
	var idlest client
	n := 0
	for c, k := range d.clients {
		if n == 0 || k.last.Before(d.clients[idlest].last) {
			idlest = c
		}
		if n++; n == some {
			break
		}
	}
	if n == 0 || time.Since(d.clients[idlest].last) < flowSpare {
		return false
	}
	d.end(idlest)
	return true
}

// answer leads the station's datagrams back to the client.
func (d *datagramPort) answer(c client, k *caller) {
	v := d.loop.datagrams()
	n, err := v.receive(k.fd)
	if err != nil && err != unix.ECONNREFUSED && err != unix.EHOSTUNREACH {
		d.forget(c)
		return
	}
	if n > 0 {
		k.last = time.Now()
		_ = v.send(d.outer, 0, n, k.name, k.control)
	}
}

func (d *datagramPort) forget(c client) {
	d.end(c)
	<-d.all.datagrams
}

// end leaves the client's place taken.
func (d *datagramPort) end(c client) {
	k := d.clients[c]
	delete(d.clients, c)
	k.silence.Stop()
	d.loop.forget(k.fd, k.number)
}

// keep notes to which of the machine's addresses a datagram came: answers come
// from there. struct in_pktinfo starts with the interface, struct in6_pktinfo
// ends with it.
func (c *client) keep(oob []byte) {
	for len(oob) > 0 {
		header, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return
		}
		oob = rest
		switch {
		case header.Level == unix.SOL_IP && header.Type == unix.IP_PKTINFO && len(data) >= 12:
			c.size = copy(c.local[:], data[:12])
			binary.NativeEndian.PutUint32(c.local[0:], 0)
			return
		case header.Level == unix.SOL_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= 20:
			c.size = copy(c.local[:], data[:20])
			if a, _ := netip.AddrFromSlice(data[:16]); !a.IsLinkLocalUnicast() {
				binary.NativeEndian.PutUint32(c.local[16:], 0)
			}
			return
		}
	}
}

func (c *client) control() []byte {
	switch c.size {
	case 12:
		info := &unix.Inet4Pktinfo{}
		copy(info.Spec_dst[:], c.local[4:8])
		return unix.PktInfo4(info)
	case 20:
		info := &unix.Inet6Pktinfo{Ifindex: binary.NativeEndian.Uint32(c.local[16:])}
		copy(info.Addr[:], c.local[:16])
		return unix.PktInfo6(info)
	}
	return nil
}
