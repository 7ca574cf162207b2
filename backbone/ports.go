package backbone

import (
	"errors"
	"net/netip"
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
	held *shelf
	logf func(format string, args ...any)
	open map[string]*openPort // by name: the loop's in run

	relays      *relays
	connections crowd
	datagrams   chan struct{} // a place for each
}

// openPort is one that is served. Where it leads may change meanwhile.
type openPort struct {
	all   *ports
	close func()

	mu  sync.Mutex
	to  []netip.AddrPort
	own []netip.Prefix // addresses that are stations', or led to others
}

func newPorts(held *shelf, logf func(format string, args ...any), r *relays) *ports {
	return &ports{held: held, logf: logf, open: map[string]*openPort{}, relays: r,
		connections: newCrowd(int(min(openFiles()/2/2, maxClients)), clientShare), datagrams: make(chan struct{}, min(openFiles()/8, maxDatagrams))}
}

// set serves these ports and no others. What is established goes on.
func (p *ports) set(config *Config) {
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
			if err := o.serve(port); err != nil {
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

func (o *openPort) serve(port Port) error {
	fd, err := o.all.held.copyOf(port.Name)
	if err != nil {
		return err
	}
	if port.Network == "udp" {
		err = o.serveUDP(fd)
	} else {
		err = o.serveTCP(fd)
	}
	if err != nil {
		unix.Close(fd)
	}
	return err
}

// reachWay is an address of the station, and from which one of the client's; an
// invalid one is the backbone's own.
type reachWay struct{ from, to netip.AddrPort }

// ways are in the order to be tried: from the client's own address, where that
// can be: not from the machine's loopback, nor from what the backbone has a way to,
// on which the answers would go. Then the backbone's own is taken, and the IP
// version of the station.
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

// reach makes a socket and begins to connect it to the station.
func (o *openPort) reach(kind int, client netip.AddrPort) (fd int, err error) {
	err = errors.New("the station has no address")
	for _, w := range o.ways(client) {
		if fd, err = begin(kind, w); err == nil || !taken(err) {
			return fd, err
		}
	}
	return -1, err
}

func begin(kind int, w reachWay) (int, error) {
	family := unix.AF_INET
	if w.to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if w.from.IsValid() {
		if err = transparentSocket(family, fd); err == nil {
			err = unix.Bind(fd, sockAddr(w.from))
		}
	}
	if err == nil {
		err = unix.Connect(fd, sockAddr(w.to))
	}
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
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

// transparentSocket lets a socket have an address that is not the namespace's
// (IP_TRANSPARENT, ip(7)). Several may have one client's address and port: they
// lead to different stations.
func transparentSocket(family, fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if family == unix.AF_INET6 {
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
}

// copyOf is a duplicate of what the shelf holds.
func (s *shelf) copyOf(name string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, ok := s.files[name]
	if !ok {
		return -1, errors.New("the keeper has given no socket")
	}
	return unix.FcntlInt(uintptr(held), unix.F_DUPFD_CLOEXEC, 0)
}
