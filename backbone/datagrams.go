package backbone

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// datagramIdle is after what silence of both sides a UDP client is forgotten.
const datagramIdle = 90 * time.Second

// datagramPort is a UDP port. Each client has a socket of its own to the
// station, so that the station sees them apart. It is its loop's.
type datagramPort struct {
	*openPort
	ctx     context.Context
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
	name, control []byte    // for answers, as the kernel has them
}

func (o *openPort) serveUDP(ctx context.Context, f *os.File) error {
	c, err := net.FilePacketConn(f)
	if err != nil {
		return err
	}
	outer, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return errors.New("it is no UDP socket")
	}
	l, err := o.all.relays.loop(nil)
	if err != nil {
		c.Close()
		return err
	}
	d := &datagramPort{openPort: o, ctx: ctx, loop: l, clients: map[client]*caller{}}
	if d.outer, err = takeOver(outer); err != nil {
		return err
	}
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
		return nil
	}
	k, err := d.call(c)
	if err != nil {
		<-d.all.datagrams
		return nil
	}
	k.name, k.control = bytes.Clone(name), c.control()
	d.clients[c] = k
	d.loop.idle(datagramIdle, &k.last, func() {
		if d.clients[c] == k {
			d.forget(c)
		}
	})
	return k
}

func (d *datagramPort) call(c client) (*caller, error) {
	conn, err := d.reach(d.ctx, c.from)
	if err != nil {
		return nil, err
	}
	k := &caller{last: time.Now()}
	if k.fd, err = takeOver(conn.(*net.UDPConn)); err != nil {
		return nil, err
	}
	if k.number, err = d.loop.watch(k.fd, unix.EPOLLIN, watch{ready: func(uint32) { d.answer(c, k) }}); err != nil {
		unix.Close(k.fd)
		return nil, err
	}
	return k, nil
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
	k := d.clients[c]
	delete(d.clients, c)
	d.loop.forget(k.fd, k.number)
	<-d.all.datagrams
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
