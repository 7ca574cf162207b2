package backbone

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
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
	// maxClients bounds the connections and the UDP clients of all ports
	// together, each by itself.
	maxClients = 4096
	// clientFiles is what a connection and a UDP client need: two sockets, a
	// pipe for each direction, and one socket.
	clientFiles = 7
	// otherFiles are left for the rest of the backbone.
	otherFiles = 1024
	// reachTimeout is how long a station may take to accept a connection.
	reachTimeout = 10 * time.Second
)

// ports are the machine's ports that are served.
type ports struct {
	held  *shelf
	tasks *sync.WaitGroup
	logf  func(format string, args ...any)
	open  map[string]*openPort // by name: the loop's in run

	connections chan struct{} // a place for each
	datagrams   chan struct{}
	relays      *relays
}

// openPort is one that is served. Where it leads may change meanwhile.
type openPort struct {
	all   *ports
	close func()

	mu  sync.Mutex
	to  []netip.AddrPort
	own []netip.Prefix // addresses that are stations'
}

func newPorts(held *shelf, tasks *sync.WaitGroup, logf func(format string, args ...any), r *relays) *ports {
	places := uint64(maxClients)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		places = min(places, (max(limit.Cur, otherFiles+clientFiles)-otherFiles)/clientFiles)
	}
	return &ports{held: held, tasks: tasks, logf: logf, relays: r, open: map[string]*openPort{},
		connections: make(chan struct{}, places), datagrams: make(chan struct{}, places)}
}

// set serves these ports and no others. What is established goes on.
func (p *ports) set(ctx context.Context, config *Config) {
	var own []netip.Prefix
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
	fd, err := takeOver(f)
	if err != nil {
		return err
	}
	if err := o.serveTCP(fd); err != nil {
		unix.Close(fd)
		return err
	}
	return nil
}

// reachWay is an address of the station, and from which one of the client's; an
// invalid one is the backbone's own.
type reachWay struct{ from, to netip.AddrPort }

// ways are in the order to be tried: from the client's own address, where that
// can be: not from the machine's loopback, nor from what is an address of a
// station. Then the backbone's own is taken, and the IP version of the station.
func (o *openPort) ways(client netip.AddrPort) []reachWay {
	o.mu.Lock()
	to, own := o.to, o.own
	o.mu.Unlock()
	client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	var all []reachWay
	for _, t := range to {
		if t.Addr().Is4() != client.Addr().Is4() || !seenAs(client.Addr(), own) {
			continue
		}
		// Its port may still be in use from a connection that has just ended.
		all = append(all, reachWay{client, t}, reachWay{netip.AddrPortFrom(client.Addr(), 0), t})
	}
	for _, same := range []bool{true, false} {
		for _, t := range to {
			if t.Addr().Is4() == client.Addr().Is4() == same {
				return append(all, reachWay{to: t})
			}
		}
	}
	return all
}

// taken tells an address that can't be had from other failures.
func taken(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EADDRINUSE)
}

// reach connects a UDP socket to the station.
func (o *openPort) reach(ctx context.Context, client netip.AddrPort) (c net.Conn, err error) {
	err = errors.New("the station has no address")
	for _, w := range o.ways(client) {
		var d net.Dialer
		if w.from.IsValid() {
			d = net.Dialer{Control: bindTransparent, LocalAddr: net.UDPAddrFromAddrPort(w.from)}
		}
		if c, err = d.DialContext(ctx, "udp", w.to.String()); err == nil || !taken(err) {
			break
		}
	}
	return c, err
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

func bindTransparent(network, _ string, raw syscall.RawConn) error {
	var err error
	cerr := raw.Control(func(fd uintptr) { err = transparentSocket(network, int(fd)) })
	return errors.Join(cerr, err)
}

// transparentSocket lets a socket have an address that is not the namespace's
// (IP_TRANSPARENT, ip(7)). Several may have one client's address and port: they
// lead to different stations.
func transparentSocket(network string, fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if network == "tcp6" || network == "udp6" {
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
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
