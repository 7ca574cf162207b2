package backbone

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Port is a socket of the machine's namespace, on the shelf, whose clients are
// led to a station.
type Port struct {
	Name    string           `json:"name"`    // on the shelf
	Network string           `json:"network"` // tcp or udp
	To      []netip.AddrPort `json:"to"`      // the station's, at most one of each IP version
}

const (
	// maxClients bounds the connections of all ports together, and those to the
	// outside; maxDatagrams the UDP clients.
	maxClients   = 20480
	maxDatagrams = 4096
	// clientShare is the part of the connections that one client may have.
	clientShare = 2
	// reachTimeout is how long a station may take to accept a connection.
	reachTimeout = 10 * time.Second
)

// ports are the machine's ports that are served.
type ports struct {
	held  *shelf
	tasks *sync.WaitGroup
	logf  func(format string, args ...any)
	open  map[string]*openPort // by name: the loop's in run

	mover       *mover
	connections crowd
	datagrams   chan struct{} // a place for each
	buffers     sync.Pool     // of datagrams
}

// openPort is one that is served. Where it leads may change meanwhile.
type openPort struct {
	all   *ports
	close func()

	mu  sync.Mutex
	to  []netip.AddrPort
	own []netip.Prefix // addresses that are stations', or led to others
}

func newPorts(held *shelf, tasks *sync.WaitGroup, logf func(format string, args ...any)) *ports {
	return &ports{held: held, tasks: tasks, logf: logf, open: map[string]*openPort{}, mover: newMover(),
		connections: newCrowd(int(min(openFiles()/2/2, maxClients)), clientShare), datagrams: make(chan struct{}, min(openFiles()/8, maxDatagrams)),
		buffers: sync.Pool{New: func() any { return new([1 << 16]byte) }}}
}

// set serves these ports and no others. What is established goes on.
func (p *ports) set(ctx context.Context, config *Config) {
	own := slices.Clone(config.Own)
	for _, c := range config.DNS.Clusters {
		own = append(own, c.Subnets...)
	}
	wanted := map[string]bool{}
	for _, port := range config.Ports {
		wanted[port.Name] = true
		o := p.open[port.Name]
		if o == nil {
			o = &openPort{all: p}
			o.lead(port.To, own)
			if err := o.serve(ctx, port); err != nil {
				p.logf("cannot serve port %s: %v", port.Name, err)
				continue
			}
			p.open[port.Name] = o
		}
		o.lead(port.To, own)
	}
	for name, o := range p.open {
		if !wanted[name] {
			o.close()
			delete(p.open, name)
		}
	}
}

func (p *ports) close() {
	for _, o := range p.open {
		o.close()
	}
}

func (o *openPort) lead(to []netip.AddrPort, own []netip.Prefix) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to, o.own = to, own
}

func (o *openPort) serve(ctx context.Context, port Port) error {
	f, err := o.all.held.copyOf(port.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	if port.Network == "udp" {
		return o.serveUDP(ctx, f)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	o.close = func() { l.Close() }
	o.all.tasks.Go(func() { o.accept(ctx, l) })
	return nil
}

// accept leads one client after another to the station.
func (o *openPort) accept(ctx context.Context, l net.Listener) {
	for pause := time.Millisecond; ; {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // too many files, for example
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = time.Millisecond
		client := c.(*net.TCPConn)
		from := addrPort(client.RemoteAddr())
		if !o.all.connections.enter(from.Addr()) {
			reset(client)
			continue
		}
		o.all.tasks.Go(func() {
			defer o.all.connections.leave(from.Addr())
			o.carry(ctx, client, from)
		})
	}
}

// carry leads one connection to the station and moves bytes until both
// directions have ended.
func (o *openPort) carry(ctx context.Context, client *net.TCPConn, from netip.AddrPort) {
	c, err := o.reach(ctx, "tcp", from)
	if err != nil {
		reset(client)
		return
	}
	station := c.(*net.TCPConn)
	stop := context.AfterFunc(ctx, func() {
		client.Close()
		station.Close()
	})
	defer stop()
	o.all.mover.join(client, station)
}

// reach connects to the station from the client's own address, where that can
// be: not from the machine's loopback, nor from what the backbone has a way to,
// on which the answers would go. Then the backbone's own is taken, and the IP version of the station.
func (o *openPort) reach(ctx context.Context, network string, client netip.AddrPort) (net.Conn, error) {
	o.mu.Lock()
	to, own := o.to, o.own
	o.mu.Unlock()
	client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	var d net.Dialer
	for _, t := range to {
		if t.Addr().Is4() != client.Addr().Is4() || !seenAs(client.Addr(), own) {
			continue
		}
		d := net.Dialer{Control: bindTransparent}
		// Its port may still be in use from a connection that has just ended.
		for _, port := range []uint16{client.Port(), 0} {
			d.LocalAddr = address(network, netip.AddrPortFrom(client.Addr(), port))
			c, err := d.DialContext(ctx, network, t.String())
			if err == nil || !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EADDRINUSE) {
				return c, err
			}
		}
	}
	err := errors.New("the station has no address")
	for _, same := range []bool{true, false} {
		for _, t := range to {
			if t.Addr().Is4() == client.Addr().Is4() == same {
				return d.DialContext(ctx, network, t.String())
			}
		}
	}
	return nil, err
}

func seenAs(a netip.Addr, own []netip.Prefix) bool {
	if a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() {
		return false
	}
	for _, p := range own {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

func address(network string, a netip.AddrPort) net.Addr {
	if network == "udp" {
		return net.UDPAddrFromAddrPort(a)
	}
	return net.TCPAddrFromAddrPort(a)
}

// bindTransparent lets a socket have an address that is not the namespace's
// (IP_TRANSPARENT, ip(7)). Several may have one client's address and port: they
// lead to different stations.
func bindTransparent(network, _ string, raw syscall.RawConn) error {
	var err error
	cerr := raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return
		}
		if network == "tcp6" || network == "udp6" {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
		}
	})
	return errors.Join(cerr, err)
}

// copyOf is a duplicate of what the shelf holds.
func (s *shelf) copyOf(name string) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, ok := s.files[name]
	if !ok {
		return nil, errors.New("the keeper has given no socket")
	}
	fd, err := unix.FcntlInt(uintptr(held), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
