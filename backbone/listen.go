package backbone

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tcpIdle     = 10 * time.Second // RFC 7766, section 6.2.3
	tcpWrite    = 5 * time.Second
	udpBuffer   = 4 << 20
	maxPipeline = 64 // questions of one connection that are under way
)

// listener serves one address over UDP and TCP. It has a socket for UDP per
// processor, among which the kernel spreads the askers (SO_REUSEPORT,
// socket(7)): readers of one socket would wait for each other.
type listener struct {
	udp []*net.UDPConn
	tcp *net.TCPListener
}

func listen(ctx context.Context, addr netip.AddrPort) (*listener, error) {
	config := net.ListenConfig{Control: freeBind}
	config.SetMultipathTCP(false)
	network := "4"
	if addr.Addr().Is6() {
		network = "6"
	}
	tcp, err := config.Listen(ctx, "tcp"+network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("cannot answer DNS on %s: %w", addr, err)
	}
	l := &listener{tcp: tcp.(*net.TCPListener)}
	config.Control = sharedBind
	for range runtime.NumCPU() {
		udp, err := config.ListenPacket(ctx, "udp"+network, addr.String())
		if err != nil {
			l.close()
			return nil, fmt.Errorf("cannot answer DNS on %s: %w", addr, err)
		}
		l.udp = append(l.udp, udp.(*net.UDPConn))
		// A burst waits rather than being lost and asked again seconds later; the
		// kernel gives what net.core.rmem_max allows.
		_ = udp.(*net.UDPConn).SetReadBuffer(udpBuffer)
	}
	return l, nil
}

func sharedBind(network, address string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(cerr, err, freeBind(network, address, c))
}

// freeBind allows an address that is not there yet, or not yet past duplicate
// address detection.
func freeBind(network, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		if network[len(network)-1] == '6' {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		}
	})
	return errors.Join(cerr, err)
}

func (l *listener) close() {
	for _, udp := range l.udp {
		udp.Close()
	}
	l.tcp.Close()
}

// serve starts answering on l, until it is closed.
func (s *server) serve(l *listener) {
	for _, udp := range l.udp {
		s.tasks.Go(func() { s.serveUDP(udp) })
	}
	s.tasks.Go(func() { s.serveTCP(l.tcp) })
}

// acceptAll gives each connection of l to take, until l is closed.
func acceptAll(l *net.TCPListener, take func(*net.TCPConn)) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		take(c)
	}
}

func (s *server) serveTCP(l *net.TCPListener) {
	acceptAll(l, func(conn *net.TCPConn) {
		c := s.conns.add(conn)
		s.tasks.Go(func() {
			defer s.conns.remove(c)
			s.serveConn(c)
		})
	})
}

// serveConn answers the questions of one connection as they get ready, in any
// order (RFC 7766, section 6.2.1.1).
func (s *server) serveConn(conn *askingConn) {
	stop := context.AfterFunc(s.ctx, func() { conn.Close() })
	defer stop()
	var later sync.WaitGroup
	defer conn.Close()
	defer later.Wait()
	var writeMu sync.Mutex
	write := func(packed []byte) {
		frame := append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(packed)), uint16(len(packed))), packed...)
		writeMu.Lock()
		defer writeMu.Unlock()
		_ = conn.SetWriteDeadline(time.Now().Add(tcpWrite))
		if _, err := conn.Write(frame); err != nil {
			conn.Close()
		}
	}
	pipeline := make(chan struct{}, maxPipeline)
	via := transport{from: conn.from, tcp: true}
	var read [2 + maxQuestion]byte
	for {
		_ = conn.SetReadDeadline(time.Now().Add(tcpIdle))
		if _, err := io.ReadFull(conn, read[:2]); err != nil {
			return
		}
		length := int(binary.BigEndian.Uint16(read[:]))
		if length > maxQuestion {
			return
		}
		if _, err := io.ReadFull(conn, read[2:2+length]); err != nil {
			return
		}
		s.conns.asks(conn)
		packed, wait := s.handle(read[2:2+length], nil, via)
		if wait == nil {
			if packed != nil {
				write(packed)
			}
			continue
		}
		pipeline <- struct{}{}
		later.Go(func() {
			wait(write)
			<-pipeline
		})
	}
}
