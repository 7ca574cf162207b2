package backbone

import (
	"errors"
	"net"
	"net/netip"
	"sync"
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
	d.flows.mu.Lock()
	early := f.early
	f.early = nil
	d.flows.mu.Unlock()
	for _, data := range early {
		_, _ = out.Write(data)
	}
	d.relays.exchange(in.(*net.UDPConn), out.(*net.UDPConn))
}

// exchange takes two connected sockets over and passes datagrams on both ways,
// until none has come for a while, or one side refuses them.
func (r *relays) exchange(a, b *net.UDPConn) {
	e := &exchange{done: make(chan struct{}), last: time.Now()}
	var erra, errb error
	e.fds[0], erra = takeOver(a)
	e.fds[1], errb = takeOver(b)
	l, err := r.loop(nil)
	e.loop = l
	if erra != nil || errb != nil || err != nil {
		e.end()
	} else {
		l.pairs.Add(1)
		defer l.pairs.Add(-1)
		e.start()
	}
	<-e.done
}

// exchange is a pair of sockets on a loop.
type exchange struct {
	loop *loop
	done chan struct{}

	mu      sync.Mutex
	fds     [2]int
	numbers [2]uint64
	last    time.Time // when a datagram came
	over    bool
}

func (e *exchange) start() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.fds {
		number, err := e.loop.watch(e.fds[i], unix.EPOLLIN, watch{ready: func(uint32) { e.pass(i) }, stop: e.end})
		if err != nil {
			e.close()
			return
		}
		e.numbers[i] = number
	}
	e.loop.idle(flowIdle, &e.last, e.end)
}

func (e *exchange) pass(i int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return
	}
	v := e.loop.datagrams()
	n, err := v.receive(e.fds[i])
	if n > 0 {
		e.last = time.Now()
		err = v.send(e.fds[1-i], 0, n, nil, nil)
		if err != unix.ECONNREFUSED {
			err = nil // as the network, it may lose some
		}
	}
	if err != nil {
		e.close()
	}
}

func (e *exchange) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.close()
}

func (e *exchange) close() {
	if e.over {
		return
	}
	e.over = true
	for i, fd := range e.fds {
		switch {
		case e.numbers[i] != 0:
			e.loop.forget(fd, e.numbers[i])
		case fd >= 0:
			unix.Close(fd)
		}
	}
	close(e.done)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
