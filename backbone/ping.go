package backbone

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pingIdle is how long a socket for the echo requests of one program lasts
// without one, or an answer.
const pingIdle = 10 * time.Second

// ICMP's types, of RFC 792 and RFC 4443.
const (
	echoRequest4, echoReply4, unreachable4, filtered4 = 8, 0, 3, 13
	echoRequest6, echoReply6, unreachable6, filtered6 = 128, 129, 1, 1
)

// pings are the programs that ask for echoes from outside: who and whom, with
// ICMP's identifier as the port.
type pings struct {
	mu  sync.Mutex
	all map[flowKey]chan []byte
}

// pinged takes an echo request, which the kernel has dropped.
func (g *gate) pinged(from, to netip.Addr, packet []byte) {
	icmp := packet[headerLength(packet):]
	key := flowKey{netip.AddrPortFrom(from, binary.BigEndian.Uint16(icmp[4:])), netip.AddrPortFrom(to, 0)}
	g.pings.mu.Lock()
	defer g.pings.mu.Unlock()
	requests := g.pings.all[key]
	if requests == nil {
		if !g.divert.crowd.enter(from) {
			return
		}
		requests = make(chan []byte, maxEarly)
		g.pings.all[key] = requests
		g.divert.tasks.Go(func() {
			defer g.divert.crowd.leave(from)
			g.ping(key, requests)
		})
	}
	select {
	case requests <- packet:
	default: // lost, as echo requests are
	}
}

// ping serves one program until it is idle.
func (g *gate) ping(key flowKey, requests chan []byte) {
	defer func() {
		g.pings.mu.Lock()
		delete(g.pings.all, key)
		g.pings.mu.Unlock()
	}()
	out, err := g.divert.outside("icmp", key.from, key.to)
	if err != nil {
		g.filtered(key, <-requests)
		return
	}
	defer out.Close()
	stop := make(chan struct{})
	g.divert.tasks.Go(func() {
		defer close(stop)
		buf := make([]byte, maxUDP)
		for {
			_ = out.SetReadDeadline(time.Now().Add(pingIdle))
			n, err := out.Read(buf)
			if err != nil && !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
				return
			}
			if n >= 8 {
				g.echoed(key, buf[:n])
			}
		}
	})
	for {
		select {
		case packet := <-requests:
			// The kernel puts its own identifier and the checksum in.
			_, _ = out.Write(packet[headerLength(packet):])
		case <-stop:
			return
		case <-g.divert.ctx.Done():
			return
		}
	}
}

// echoed passes an answer on, under the program's identifier.
func (g *gate) echoed(key flowKey, icmp []byte) {
	kind := byte(echoReply4)
	if key.to.Addr().Is6() {
		kind = echoReply6
	}
	if icmp[0] != kind {
		return
	}
	binary.BigEndian.PutUint16(icmp[4:], key.from.Port())
	g.sendICMP(key, icmp)
}

// filtered says that an echo request is administratively prohibited.
func (g *gate) filtered(key flowKey, packet []byte) {
	quoted := packet[:min(len(packet), headerLength(packet)+8)]
	icmp := append([]byte{unreachable4, filtered4, 0, 0, 0, 0, 0, 0}, quoted...)
	if key.to.Addr().Is6() {
		icmp[0], icmp[1] = unreachable6, filtered6
	}
	g.sendICMP(key, icmp)
}

// sendICMP sends a message to a program as from its destination.
func (g *gate) sendICMP(key flowKey, icmp []byte) {
	back := flowKey{from: key.to, to: key.from}
	icmp[2], icmp[3] = 0, 0
	var packet []byte
	if key.to.Addr().Is4() {
		binary.BigEndian.PutUint16(icmp[2:], sum(0, icmp))
		packet = []byte{4<<4 | 5, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_ICMP, 0, 0} // the kernel does length and checksum
	} else {
		binary.BigEndian.PutUint16(icmp[2:], checksum(back, unix.IPPROTO_ICMPV6, icmp))
		packet = []byte{6 << 4, 0, 0, 0, byte(len(icmp) >> 8), byte(len(icmp)), unix.IPPROTO_ICMPV6, 64}
	}
	packet = append(packet, back.from.Addr().AsSlice()...)
	packet = append(packet, back.to.Addr().AsSlice()...)
	if err := g.write(back, append(packet, icmp...), 0); err != nil {
		g.divert.logf("cannot answer the ping of %s: %v", back.to.Addr(), err)
	}
}

// dialPing opens a ping socket (icmp(7)).
func dialPing(to netip.Addr) (*os.File, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	at := unix.Sockaddr(nil)
	if to.Is4() {
		at = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		family, proto, at = unix.AF_INET6, unix.IPPROTO_ICMPV6, &unix.SockaddrInet6{Addr: to.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if errors.Is(err, unix.EACCES) {
		return nil, errors.New("the machine's net.ipv4.ping_group_range lets nobody ping")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open a ping socket: %w", err)
	}
	if err := unix.Connect(fd, at); err != nil {
		_ = unix.Close(fd)
		return nil, &net.OpError{Op: "dial", Net: "icmp", Err: err}
	}
	return os.NewFile(uintptr(fd), "ping"), nil
}
