package backbone

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// A flow of datagrams lasts flowBrief without one, or flowIdle once it has
	// gone on both ways for flowStream: as in conntrack, by its
	// net.netfilter.nf_conntrack_udp_timeout and _stream.
	flowBrief  = 30 * time.Second
	flowIdle   = 2 * time.Minute
	flowStream = 2 * time.Second
	// flowSpare is how long a flow has been idle before it makes room for a new
	// one of a station that may have no more.
	flowSpare = 2 * time.Second
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
	of  map[netip.Addr]map[*flow]bool // by station
}

type flowKey struct{ from, to netip.AddrPort }

type flow struct {
	early    [][]byte // until there are sockets; guarded by flows.mu
	end      func()   // nil until then; guarded by flows.mu
	began    time.Time
	last     atomic.Int64
	answered atomic.Bool
	yielded  bool // its place in the crowd is another's; guarded by flows.mu
}

func newFlow(first []byte) *flow { return &flow{early: [][]byte{first}, began: time.Now()} }

// add notes a new flow. The mutex is held, as for remove and yield.
func (fs *flows) add(key flowKey, f *flow) {
	fs.all[key] = f
	of := fs.of[key.from.Addr()]
	if of == nil {
		of = map[*flow]bool{}
		fs.of[key.from.Addr()] = of
	}
	of[f] = true
}

func (fs *flows) remove(key flowKey, f *flow) {
	delete(fs.all, key)
	of := fs.of[key.from.Addr()]
	if delete(of, f); len(of) == 0 {
		delete(fs.of, key.from.Addr())
	}
}

// yield ends the idlest of some flows of a station, if it is idle at all, for
// another in its place: what asks many destinations once each, as a resolver
// does, can go on.
func (fs *flows) yield(a netip.Addr) bool {
	const some = 16 // any: a map is ranged over in random order
	var idlest *flow
	n := 0
	for f := range fs.of[a] {
		if f.end != nil && (idlest == nil || f.last.Load() < idlest.last.Load()) {
			idlest = f
		}
		if n++; n == some {
			break
		}
	}
	if idlest == nil || idlest.idle() < flowSpare {
		return false
	}
	idlest.end()
	idlest.end, idlest.yielded = nil, true
	return true
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
		case f == nil && (d.crowd.enter(key.from.Addr()) || d.flows.yield(key.from.Addr())):
			f = newFlow(data)
			d.flows.add(key, f)
			d.tasks.Go(func() { d.converse(key, f) })
		case f == nil:
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
		d.flows.remove(key, f)
		yielded := f.yielded
		d.flows.mu.Unlock()
		if !yielded {
			d.crowd.leave(key.from.Addr())
		}
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
	d.flows.mu.Lock()
	early := f.early
	f.early = nil
	d.flows.mu.Unlock()
	for _, data := range early {
		_, _ = out.Write(data)
	}
	f.touch()
	e, err := d.relays.exchange(in.(*net.UDPConn), out.(*net.UDPConn), f)
	if err != nil {
		return
	}
	d.flows.mu.Lock()
	f.end = e.end
	d.flows.mu.Unlock()
	<-e.done
}

func (f *flow) touch() { f.last.Store(time.Now().UnixNano()) }

func (f *flow) idle() time.Duration { return time.Since(time.Unix(0, f.last.Load())) }

// patience is how long it may be idle.
func (f *flow) patience() time.Duration {
	if f.answered.Load() && time.Unix(0, f.last.Load()).Sub(f.began) >= flowStream {
		return flowIdle
	}
	return flowBrief
}

// exchange is a flow's pair of sockets on a loop.
type exchange struct {
	flow *flow
	loop *loop
	done chan struct{}

	mu      sync.Mutex
	fds     [2]int // the station's and the outside
	numbers [2]uint64
	silence *time.Timer
	over    bool
}

// exchange takes two connected sockets over and passes datagrams on both ways,
// until none has come for a while, or one side refuses them.
func (r *relays) exchange(station, outside *net.UDPConn, f *flow) (*exchange, error) {
	e := &exchange{flow: f, done: make(chan struct{})}
	var errs [3]error
	e.fds[0], errs[0] = takeOver(station)
	e.fds[1], errs[1] = takeOver(outside)
	e.loop, errs[2] = r.loop(nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	err := errors.Join(errs[:]...)
	for i := 0; i < len(e.fds) && err == nil; i++ {
		e.numbers[i], err = e.loop.watch(e.fds[i], unix.EPOLLIN, watch{ready: func(uint32) { e.pass(i) }, stop: e.end})
	}
	if err != nil {
		e.close()
		return nil, err
	}
	e.loop.pairs.Add(1)
	e.silence = e.loop.silence(func() time.Duration { return f.patience() - f.idle() }, e.end)
	return e, nil
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
		e.flow.touch()
		if i == 1 {
			e.flow.answered.Store(true)
		}
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
	if e.silence != nil {
		e.silence.Stop()
		e.loop.pairs.Add(-1)
	}
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
