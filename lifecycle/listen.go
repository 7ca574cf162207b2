package lifecycle

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"platelayer/topology"
)

// listenOn opens the socket of a port and, with port 0, tells which it got. That
// of all addresses takes IPv4 and IPv6.
func listenOn(p *PublishedPort) (*os.File, error) { return listenOnWith(p, nil) }

func listenOnWith(p *PublishedPort, control func(network, address string, raw syscall.RawConn) error) (*os.File, error) {
	network := p.Protocol
	if p.HostIP.IsValid() {
		network += map[bool]string{true: "4", false: "6"}[p.HostIP.Is4()]
	}
	lc := net.ListenConfig{Control: control}
	if p.Protocol == "udp" {
		lc.Control = func(network, address string, raw syscall.RawConn) error {
			if control != nil {
				if err := control(network, address, raw); err != nil {
					return err
				}
			}
			return withPacketInfo(network, address, raw)
		}
		c, err := lc.ListenPacket(context.Background(), network, p.listen())
		if err != nil {
			return nil, err
		}
		defer c.Close()
		p.Port = c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		return c.(*net.UDPConn).File()
	}
	l, err := lc.Listen(context.Background(), network, p.listen())
	if err != nil {
		return nil, err
	}
	defer l.Close()
	p.Port = l.Addr().(*net.TCPAddr).AddrPort().Port()
	return l.(*net.TCPListener).File()
}

// listenBeside opens the socket of a port that the topology's own sockets are in
// the way of, at other addresses: those of ports that the file has no longer,
// which go on until the new one is served. They share the port for that moment
// (SO_REUSEPORT, socket(7)). cause is why it can't be opened without.
//
// Where there are no sockets to share with, none is made.
func listenBeside(p *PublishedPort, have []PublishedPort, files map[string]*os.File, cause error) (*os.File, error) {
	const soReusePort = 0xf // of asm-generic/socket.h, which package syscall leaves out
	var beside []*os.File
	for _, h := range have {
		if h.Protocol != p.Protocol || h.Port != p.Port || !topology.Overlap(h.HostIP, p.HostIP) {
			continue
		}
		if files == nil {
			return nil, nil
		}
		if f := files[h.socket()]; f != nil {
			beside = append(beside, f)
		}
	}
	if len(beside) == 0 {
		return nil, cause
	}
	share := func(on int, all ...*os.File) (err error) {
		for _, f := range all {
			raw, rerr := f.SyscallConn()
			if rerr != nil {
				return rerr
			}
			cerr := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort, on) })
			if err = errors.Join(err, cerr); err != nil {
				return err
			}
		}
		return nil
	}
	if err := share(1, beside...); err != nil {
		return nil, cause
	}
	f, err := listenOnWith(p, func(_, _ string, raw syscall.RawConn) error {
		var err error
		cerr := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort, 1) })
		return errors.Join(err, cerr)
	})
	if err == nil {
		beside = append(beside, f)
	}
	return f, errors.Join(err, share(0, beside...))
}

// withPacketInfo has a socket tell to which address of the machine a datagram
// came, and that of the answer be the same.
func withPacketInfo(network, _ string, raw syscall.RawConn) error {
	var err error
	cerr := raw.Control(func(fd uintptr) {
		if network == "udp6" { // and both versions
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO, 1)
		} else {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1)
		}
	})
	return errors.Join(cerr, err)
}

func plainSocketError(err error) error {
	if of := new(net.OpError); errors.As(err, &of) {
		err = of.Err
	}
	if of := new(os.SyscallError); errors.As(err, &of) {
		return of.Err
	}
	return err
}
