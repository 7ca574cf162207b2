package backbone

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// flowIdle is how long a flow of datagrams lasts without one, as in
	// conntrack's net.netfilter.nf_conntrack_udp_timeout_stream.
	flowIdle = 2 * time.Minute
	// maxEarly bounds the datagrams that wait for a flow's sockets.
	maxEarly = 8
	maxUDP   = 1 << 16
)

// flows are the conversations in datagrams, each between two sockets: one in
// the machine's namespace, and one that has the destination's address here and
// is connected to the station, to which the kernel gives what comes later.
type flows struct {
	mu  sync.Mutex
	all map[flowKey]*flow
}

type flowKey struct{ from, to netip.AddrPort }

type flow struct {
	early [][]byte // until there are sockets; guarded by flows.mu
	last  atomic.Int64
}

func (d *divert) datagrams(c *net.UDPConn) {
	buf, oob := make([]byte, maxUDP), make([]byte, 256)
	for {
		n, oobn, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		to, ok := destination(oob[:oobn])
		if err != nil || !ok || d.mine(to) {
			continue
		}
		key := flowKey{netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port()), to}
		data := append([]byte(nil), buf[:n]...)
		d.flows.mu.Lock()
		f := d.flows.all[key]
		switch {
		case f == nil && !d.crowd.enter(key.from.Addr()):
		case f == nil:
			f = &flow{early: [][]byte{data}}
			d.flows.all[key] = f
			d.tasks.Go(func() {
				defer d.crowd.leave(key.from.Addr())
				d.converse(key, f)
			})
		case len(f.early) < maxEarly:
			f.early = append(f.early, data)
		}
		d.flows.mu.Unlock()
	}
}

// destination is where a datagram was sent to (IP_RECVORIGDSTADDR).
func destination(oob []byte) (netip.AddrPort, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for i := range messages {
		sa, err := unix.ParseOrigDstAddr(&messages[i])
		if err != nil {
			continue
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), true
		case *unix.SockaddrInet6:
			return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)), true
		}
	}
	return netip.AddrPort{}, false
}

// converse serves one flow until it is idle, or an error such as the
// destination's refusal ends it. A flow that may not leave is over at once: the
// next datagram asks again.
func (d *divert) converse(key flowKey, f *flow) {
	defer func() {
		d.flows.mu.Lock()
		delete(d.flows.all, key)
		d.flows.mu.Unlock()
	}()
	out, err := d.outside("udp", key.from, key.to)
	if err != nil {
		return
	}
	defer out.Close()
	network := "udp4"
	if key.to.Addr().Is6() {
		network = "udp6"
	}
	dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(key.to), Control: transparent}
	in, err := dialer.DialContext(d.ctx, network, key.from.String())
	if err != nil {
		d.logf("cannot answer %s as %s: %v", key.from, key.to, err)
		return
	}
	defer in.Close()
	stop := context.AfterFunc(d.ctx, func() { in.Close(); out.Close() })
	defer stop()
	f.touch()
	d.flows.mu.Lock()
	early := f.early
	f.early = nil
	d.flows.mu.Unlock()
	for _, data := range early {
		_, _ = out.Write(data)
	}
	var both sync.WaitGroup
	both.Go(func() {
		f.move(in, out)
		in.Close()
	})
	f.move(out, in)
	out.Close()
	both.Wait()
}

func (f *flow) touch() { f.last.Store(time.Now().UnixNano()) }

// move passes datagrams on. Idle flows hold no memory for one: the buffer
// comes when a datagram does.
func (f *flow) move(to, from net.Conn) {
	raw, err := from.(*net.UDPConn).SyscallConn()
	if err != nil {
		return
	}
	for {
		idle := time.Since(time.Unix(0, f.last.Load()))
		if idle >= flowIdle {
			return
		}
		_ = from.SetReadDeadline(time.Now().Add(flowIdle - idle))
		var data []byte
		var read error
		err := raw.Read(func(fd uintptr) bool {
			var n int
			if n, _, read = unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC); read == nil {
				data = make([]byte, n)
				n, _, read = unix.Recvfrom(int(fd), data, 0)
				data = data[:max(n, 0)]
			}
			return read != syscall.EAGAIN && read != syscall.EINTR
		})
		if errors.Is(err, syscall.ETIMEDOUT) || isTimeout(err) {
			continue
		}
		if err != nil || read != nil {
			return
		}
		f.touch()
		if _, err := to.Write(data); errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
