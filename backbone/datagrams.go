package backbone

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// datagramIdle is after what silence of both sides a UDP client is forgotten.
const datagramIdle = 90 * time.Second

// datagramPort is a UDP port. Each client has a socket of its own to the
// station, so that the station sees them apart.
type datagramPort struct {
	*openPort
	outer *net.UDPConn

	mu      sync.Mutex
	clients map[client]*datagramClient
}

// datagramClient is a client's socket to the station.
type datagramClient struct {
	*net.UDPConn
	last    atomic.Int64
	yielded bool // its place is another's; guarded by the port's mu
}

func (c *datagramClient) touch() { c.last.Store(time.Now().UnixNano()) }

// yield ends the idlest of some clients, if it is idle at all, for another in its
// place: who sends under thousands of addresses keeps nobody out for long.
func (d *datagramPort) yield() bool {
	const some = 16 // any: a map is ranged over in random order
	d.mu.Lock()
	defer d.mu.Unlock()
	var idlest *datagramClient
	n := 0
	for _, c := range d.clients {
		if !c.yielded && (idlest == nil || c.last.Load() < idlest.last.Load()) {
			idlest = c
		}
		if n++; n == some {
			break
		}
	}
	if idlest == nil || time.Since(time.Unix(0, idlest.last.Load())) < flowSpare {
		return false
	}
	idlest.yielded = true
	idlest.Close()
	return true
}

// client is whom to answer, and from which of the machine's addresses.
type client struct {
	from  netip.AddrPort
	local [20]byte // of the packet information, without the interface
	size  int
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
	d := &datagramPort{openPort: o, outer: outer, clients: map[client]*datagramClient{}}
	o.close = func() {
		outer.Close()
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, s := range d.clients {
			s.Close()
		}
	}
	o.all.tasks.Go(func() { d.receive(ctx) })
	return nil
}

// receive leads each client's datagrams to the station.
func (d *datagramPort) receive(ctx context.Context) {
	buf, oob := make([]byte, 1<<16), make([]byte, unix.CmsgSpace(64))
	for {
		n, oobn, _, from, err := d.outer.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		c := client{from: from}
		c.keep(oob[:oobn])
		if s := d.socket(ctx, c); s != nil {
			s.touch()
			_ = s.SetReadDeadline(time.Now().Add(datagramIdle))
			_, _ = s.Write(buf[:n]) // as the network, it may lose one
		}
	}
}

// socket is a client's; nil where there is none and none can be.
func (d *datagramPort) socket(ctx context.Context, c client) *datagramClient {
	d.mu.Lock()
	s := d.clients[c]
	known := s != nil && !s.yielded
	d.mu.Unlock()
	if known {
		return s
	}
	select {
	case d.all.datagrams <- struct{}{}:
	default:
		if !d.yield() {
			return nil
		}
	}
	conn, err := d.reach(ctx, "udp", c.from)
	if err != nil {
		<-d.all.datagrams
		return nil
	}
	s = &datagramClient{UDPConn: conn.(*net.UDPConn)}
	s.touch()
	d.mu.Lock()
	d.clients[c] = s
	d.mu.Unlock()
	d.all.tasks.Go(func() {
		d.answer(ctx, c, s)
		d.mu.Lock()
		if d.clients[c] == s { // and not the next, after it has yielded
			delete(d.clients, c)
		}
		yielded := s.yielded
		d.mu.Unlock()
		s.Close()
		if !yielded {
			<-d.all.datagrams
		}
	})
	return s
}

// answer leads the station's datagrams back to the client, until neither has
// said anything for a while.
func (d *datagramPort) answer(ctx context.Context, c client, s *datagramClient) {
	defer context.AfterFunc(ctx, func() { s.Close() })()
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = s.SetReadDeadline(time.Now().Add(datagramIdle))
	for {
		var failed error
		// The buffer is taken when there is something to read: a silent client
		// costs none.
		err := raw.Read(func(fd uintptr) bool {
			held := d.all.buffers.Get().(*[1 << 16]byte)
			defer d.all.buffers.Put(held)
			buf := held[:]
			n, err := unix.Read(int(fd), buf)
			if err == unix.EAGAIN {
				return false
			}
			if err != nil {
				failed = err
				return true
			}
			_, _, _ = d.outer.WriteMsgUDPAddrPort(buf[:n], c.control(), c.from)
			return true
		})
		if err != nil {
			return // silence, or the port's end
		}
		if failed == nil {
			s.touch()
			_ = s.SetReadDeadline(time.Now().Add(datagramIdle))
		} else if !errors.Is(failed, unix.ECONNREFUSED) && !errors.Is(failed, unix.EHOSTUNREACH) && !errors.Is(failed, unix.EINTR) {
			return
		}
	}
}

// keep notes to which of the machine's addresses a datagram came: answers come
// from there. struct in_pktinfo starts with the interface, struct in6_pktinfo
// ends with it.
func (c *client) keep(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			c.size = copy(c.local[:], m.Data[:12])
			binary.NativeEndian.PutUint32(c.local[0:], 0)
			return
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 20:
			c.size = copy(c.local[:], m.Data[:20])
			if a, _ := netip.AddrFromSlice(m.Data[:16]); !a.IsLinkLocalUnicast() {
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
