package backbone

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// acceptPause is for how long nobody is accepted after a failure, such as of too
// many files.
const acceptPause = 50 * time.Millisecond

// streamPort is a TCP port. It is its loop's.
type streamPort struct {
	*openPort
	loop      *loop
	listening int
	number    uint64
	over      bool
}

func (o *openPort) serveTCP(listening int) error {
	l, err := o.all.relays.loop(nil)
	if err != nil {
		return err
	}
	p := &streamPort{openPort: o, loop: l, listening: listening}
	if err := unix.SetNonblock(listening, true); err != nil {
		return err
	}
	l.do(p.start)
	o.close = func() { l.call(p.stop) }
	return nil
}

func (p *streamPort) start() {
	var err error
	if p.number, err = p.loop.watch(p.listening, unix.EPOLLIN, watch{ready: p.accept, stop: p.stop}); err != nil {
		p.all.logf("cannot serve a TCP port: %v", err)
		p.stop()
	}
}

func (p *streamPort) stop() {
	if !p.over {
		p.over = true
		p.loop.forget(p.listening, p.number)
	}
}

// accept leads clients to the station.
func (p *streamPort) accept(uint32) {
	for range streamTurn {
		fd, from, err := unix.Accept4(p.listening, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EAGAIN, unix.EINTR:
			return
		case unix.ECONNABORTED:
			continue
		default:
			p.pause()
			return
		}
		client := sockAddrPort(from)
		if !p.all.connections.enter(client.Addr()) {
			resetSocket(fd)
			continue
		}
		p.lead(fd, client)
	}
}

func (p *streamPort) pause() {
	_ = p.loop.control(unix.EPOLL_CTL_MOD, p.listening, p.number, 0)
	time.AfterFunc(acceptPause, func() {
		p.loop.do(func() {
			if !p.over {
				_ = p.loop.control(unix.EPOLL_CTL_MOD, p.listening, p.number, unix.EPOLLIN)
			}
		})
	})
}

// lead connects to the station and joins both.
func (p *streamPort) lead(client int, from netip.AddrPort) {
	over := func() { p.all.connections.leave(from.Addr()) }
	fail := func(station int) {
		resetSocket(client)
		resetSocket(station)
		over()
	}
	station, err := p.reach(unix.SOCK_STREAM, from)
	if err != nil || smooth(client) != nil || smooth(station) != nil {
		fail(station)
		return
	}
	finish := func() {
		if code, err := unix.GetsockoptInt(station, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			fail(station)
			return
		}
		p.all.relays.joinSockets(p.loop, client, station, over)
	}
	if writable(station) { // most are there at once
		finish()
		return
	}
	var number uint64
	settled := false
	settle := func(end func()) func() {
		return func() {
			if !settled {
				settled = true
				p.loop.release(station, number)
				end()
			}
		}
	}
	giveUp := settle(func() { fail(station) })
	number, err = p.loop.watch(station, unix.EPOLLOUT, watch{
		ready: func(uint32) { settle(finish)() },
		stop:  giveUp,
	})
	if err != nil {
		giveUp()
		return
	}
	time.AfterFunc(reachTimeout, func() { p.loop.do(giveUp) })
}

// smooth sets what the net package does for a connection: no delay, and looks
// after a peer that has been silent for long.
func smooth(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
		unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_KEEPIDLE, 15),
		unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_KEEPINTVL, 15),
	)
}

func writable(fd int) bool {
	now := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(now[:], 0)
	return n > 0 && err == nil
}

func sockAddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func sockAddrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
