package backbone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// egressTime is how long a connection to the outside may take, and
	// keeperTime how much of it passes without a keeper.
	egressTime = 15 * time.Second
	keeperTime = 5 * time.Second
	// descriptorsEach is what a connection holds: two sockets, and the pipes
	// through which splice(2) moves its bytes.
	descriptorsEach = 6
)

// divert moves what stations send outside: it takes their connections as their
// destination would (Documentation/networking/tproxy.rst), and has the keeper
// open the other side.
type divert struct {
	ctx   context.Context
	logf  func(format string, args ...any)
	tasks *sync.WaitGroup
	names *names

	relays *relays
	keeper atomic.Pointer[session]
	own    atomic.Pointer[map[netip.Addr]bool] // addresses of the backbone's
	port   uint16
	gate   atomic.Pointer[gate] // nil: nothing is held
	socks  []interface{ Close() error }

	crowd crowd
	flows flows
}

func newDivert(ctx context.Context, logf func(string, ...any), tasks *sync.WaitGroup, learned *names, r *relays) *divert {
	d := &divert{ctx: ctx, logf: logf, tasks: tasks, names: learned, relays: r}
	var lim unix.Rlimit
	all := 1024
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err == nil {
		all = int(min(lim.Cur, 1<<16))
	}
	d.crowd = crowd{all: all * 3 / 4 / descriptorsEach, here: map[netip.Addr]int{}}
	d.crowd.each = max(d.crowd.all/4, 1)
	d.flows.all = map[flowKey]*flow{}
	return d
}

// crowd bounds what is under way, in all and for each station.
type crowd struct {
	mu        sync.Mutex
	all, each int
	total     int
	here      map[netip.Addr]int
}

func (c *crowd) enter(a netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total >= c.all || c.here[a] >= c.each {
		return false
	}
	c.total++
	c.here[a]++
	return true
}

func (c *crowd) leave(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.here[a]--; c.here[a] == 0 {
		delete(c.here, a)
	}
}

// set works from a configuration of a keeper. One goroutine at a time may call
// it. After an error all is as before.
func (d *divert) set(from *session, config *Config) error {
	if config.Divert != d.port {
		var socks []interface{ Close() error }
		if config.Divert != 0 {
			var err error
			if socks, err = d.listen(config.Divert); err != nil {
				return err
			}
		}
		for _, s := range d.socks {
			s.Close()
		}
		d.socks, d.port = socks, config.Divert
	}
	g := d.gate.Load()
	if g == nil && config.Divert != 0 && len(config.Own) > 0 {
		var err error
		if g, err = openGate(d); err != nil {
			return err
		}
		d.gate.Store(g)
	}
	if g != nil {
		g.own.Store(&config.Own)
		for _, a := range config.DNS.Listen {
			proto := uint16(unix.ETH_P_IP)
			if a.Is6() {
				proto = unix.ETH_P_IPV6
			}
			if err := g.watch(proto); err != nil {
				return err
			}
		}
	}
	own := map[netip.Addr]bool{}
	for _, a := range config.DNS.Listen {
		own[a] = true
	}
	d.own.Store(&own)
	d.keeper.Store(from)
	return nil
}

func (d *divert) close() {
	for _, s := range d.socks {
		s.Close()
	}
	if g := d.gate.Load(); g != nil {
		g.Close()
	}
}

func (d *divert) listen(port uint16) (socks []interface{ Close() error }, err error) {
	defer func() {
		if err != nil {
			for _, s := range socks {
				s.Close()
			}
		}
	}()
	for _, version := range []string{"4", "6"} {
		config := net.ListenConfig{Control: transparent}
		at := net.JoinHostPort(map[string]string{"4": "0.0.0.0", "6": "::"}[version], fmt.Sprint(port))
		l, err := config.Listen(d.ctx, "tcp"+version, at)
		if version == "6" && errors.Is(err, syscall.EAFNOSUPPORT) {
			break // no IPv6 here
		}
		if err != nil {
			return socks, fmt.Errorf("cannot take what leaves: %w", err)
		}
		socks = append(socks, l)
		d.tasks.Go(func() { d.accept(l.(*net.TCPListener)) })
		c, err := config.ListenPacket(d.ctx, "udp"+version, at)
		if err != nil {
			return socks, fmt.Errorf("cannot take what leaves: %w", err)
		}
		socks = append(socks, c)
		d.tasks.Go(func() { d.datagrams(c.(*net.UDPConn)) })
	}
	return socks, nil
}

// transparent lets a socket have addresses that are not the machine's, and tell
// where datagrams were sent to.
func transparent(network, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		level, all := unix.SOL_IP, []int{unix.IP_TRANSPARENT, unix.IP_RECVORIGDSTADDR}
		if network[len(network)-1] == '6' {
			level, all = unix.SOL_IPV6, []int{unix.IPV6_TRANSPARENT, unix.IPV6_RECVORIGDSTADDR}
		}
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return
		}
		for i, option := range all {
			if i == 1 && network[:3] != "udp" {
				return
			}
			if err = unix.SetsockoptInt(int(fd), level, option, 1); err != nil {
				return
			}
		}
	})
	return errors.Join(cerr, err)
}

// outside has the keeper open a socket. Without one it waits a while for the
// next.
func (d *divert) outside(network string, from, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, egressTime)
	defer cancel()
	var f *os.File
	var err error
	for until := time.Now().Add(keeperTime); ; {
		request := &message{Type: msgEgress, Network: network, From: from, Addr: to, Names: d.names.of(to.Addr())}
		if f, err = d.keeper.Load().ask(ctx, request); !errors.Is(err, errNoKeeper) || time.Now().After(until) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileConn(f)
}

// mine tells whether somebody talks to the backbone itself.
func (d *divert) mine(to netip.AddrPort) bool { return (*d.own.Load())[to.Addr()] }

func (d *divert) accept(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		from, to := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
		if g := d.gate.Load(); g != nil && g.take(flowKey{from, to}, c) {
			continue
		}
		if d.mine(to) || !d.crowd.enter(from.Addr()) {
			reset(c)
			continue
		}
		d.tasks.Go(func() {
			defer d.crowd.leave(from.Addr())
			d.connection(c, from, to)
		})
	}
}

// connection serves one that was not held. What fails outside is a reset
// inside: the handshake is over before anybody knows.
func (d *divert) connection(c *net.TCPConn, from, to netip.AddrPort) {
	out, err := d.outside("tcp", from, to)
	if err != nil {
		reset(c)
		return
	}
	other, ok := out.(*net.TCPConn)
	if !ok {
		out.Close()
		reset(c)
		return
	}
	d.relays.join(c, other)
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}

func addrPort(a net.Addr) netip.AddrPort {
	var p netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		p = a.AddrPort()
	case *net.UDPAddr:
		p = a.AddrPort()
	}
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}
