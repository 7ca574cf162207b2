package backbone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

const (
	// egressTime is how long a connection to the outside may take, and
	// keeperTime how much of it passes without a keeper.
	egressTime = 15 * time.Second
	keeperTime = 5 * time.Second
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
	d.crowd = newCrowd(int(min(openFiles()/4/2, maxClients)), 4) // of two sockets
	d.crowd.network = d.network
	d.flows.all, d.flows.of = map[flowKey]*flow{}, map[netip.Addr]map[*flow]bool{}
	return d
}

// crowd bounds what is under way: in all, for each address, and where network is
// set for each of the networks that it tells addresses to be in, for within one
// a station can send under any.
type crowd struct {
	network func(netip.Addr) string // "" is none

	mu        sync.Mutex
	all, each int
	total     int
	here      map[netip.Addr]*seats
	networks  map[string]int
}

// seats are what one address has.
type seats struct {
	taken   int
	network string
}

// newCrowd lets so many in, and of one address a share of them; of one network
// half.
func newCrowd(all, share int) crowd {
	return crowd{all: max(all, 1), each: max(all/share, 1), here: map[netip.Addr]*seats{}, networks: map[string]int{}}
}

func (c *crowd) enter(a netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.here[a]
	if s == nil {
		s = &seats{}
		if c.network != nil {
			s.network = c.network(a)
		}
	}
	if c.total >= c.all || s.taken >= c.each || s.network != "" && c.networks[s.network] >= max(c.all/2, 1) {
		return false
	}
	c.total++
	s.taken++
	c.here[a] = s
	if s.network != "" {
		c.networks[s.network]++
	}
	return true
}

func (c *crowd) leave(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	s := c.here[a]
	if s.taken--; s.taken == 0 {
		delete(c.here, a)
	}
	if s.network == "" {
		return
	}
	if c.networks[s.network]--; c.networks[s.network] == 0 {
		delete(c.networks, s.network)
	}
}

// openFiles are the descriptors that connections may have: a quarter is for
// those to the outside, half for those of ports, an eighth for the UDP of ports,
// the rest for the pipes through which bytes move. 1024 are for all else.
func openFiles() uint64 {
	const others = 1024
	limit := unix.Rlimit{Cur: others}
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return max(limit.Cur, 2*others) - others
}

// network names the networks behind one leg that an address is in, where there
// are others.
func (d *divert) network(a netip.Addr) string {
	g := d.gate.Load()
	if g == nil || g.origins.Load() == nil {
		return ""
	}
	all := *g.origins.Load()
	for i := range all {
		if all[i].Comes(a) {
			// Legs that hang together have the same.
			apart := func(o netplan.Origin) bool { return !slices.Equal(o.From, all[i].From) }
			if !slices.ContainsFunc(all, apart) {
				return ""
			}
			return all[i].Dev
		}
	}
	return ""
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
		g.origins.Store(&config.Origins)
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
	acceptAll(l, func(c *net.TCPConn) {
		from, to := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
		if g := d.gate.Load(); g != nil && g.take(flowKey{from, to}, c) {
			return
		}
		if d.mine(to) || !d.crowd.enter(from.Addr()) {
			reset(c)
			return
		}
		d.tasks.Go(func() {
			defer d.crowd.leave(from.Addr())
			d.connection(c, from, to)
		})
	})
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
