package kernel

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Ask is an ICMP echo request (RFC 792, RFC 4443) from a namespace.
type Ask struct {
	NetNS string
	To    netip.Addr
}

// asking is a socket in a namespace and all that is sent from it.
type asking struct {
	netns string
	six   bool
	conn  *net.IPConn
	asks  []int // indexes
}

// patience is how long Echo waits for a further answer when it has sent all:
// longer than the kernel waits before it asks again who has an address.
const patience = 1200 * time.Millisecond

// Echo sends an echo request for each of asks and tells which were answered.
// No program of the namespaces takes part: their kernels answer. A lost packet
// is not sent again. Namespaces that are not there answer nothing.
func Echo(ctx context.Context, o Options, asks []Ask) ([]bool, error) {
	answered := make([]bool, len(asks))
	near := newNeighbours()
	defer near.close()
	all, err := openAsking(o, asks, near)
	defer func() {
		for _, a := range all {
			a.conn.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	e := &echo{asks: asks, answered: answered, near: near, heard: make(chan struct{}, 1), token: uint64(time.Now().UnixNano())}
	var readers sync.WaitGroup
	for id, a := range all {
		readers.Go(func() { e.read(a, uint16(id)) })
	}
	for id, a := range all {
		if err = e.send(ctx, a, uint16(id)); err != nil {
			break
		}
	}
	if err == nil {
		e.wait(ctx, patience)
	}
	for _, a := range all {
		a.conn.SetReadDeadline(time.Unix(1, 0))
	}
	readers.Wait()
	return answered, cmp.Or(err, ctx.Err())
}

// openAsking opens a socket for each namespace and IP version. A raw socket
// stays in the namespace that it was made in.
func openAsking(o Options, asks []Ask, near *neighbours) ([]*asking, error) {
	type place struct {
		netns string
		six   bool
	}
	at := map[place]*asking{}
	var order []place
	for i, q := range asks {
		p := place{q.NetNS, q.To.Is6()}
		if at[p] == nil {
			at[p] = &asking{netns: p.netns, six: p.six}
			order = append(order, p)
		}
		at[p].asks = append(at[p].asks, i)
	}
	var all []*asking
	seen := map[string]bool{}
	err := onOwnThread(func() error {
		for _, p := range order {
			ns, err := openPin(o, p.netns)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			err = enter(ns)
			ns.Close()
			if err != nil {
				return err
			}
			if !seen[p.netns] {
				seen[p.netns] = true
				if err := near.open(); err != nil {
					return err
				}
			}
			if at[p].conn, err = openEcho(p.six); err != nil {
				if p.six && errors.Is(err, unix.EAFNOSUPPORT) {
					continue
				}
				return fmt.Errorf("cannot open a socket in %s: %w", p.netns, err)
			}
			all = append(all, at[p])
		}
		return nil
	})
	return all, err
}

// openEcho opens a raw socket that hears echo replies alone.
func openEcho(six bool) (*net.IPConn, error) {
	domain, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if six {
		domain, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "echo")
	defer f.Close()
	if six {
		filter := &unix.ICMPv6Filter{}
		for i := range filter.Data {
			filter.Data[i] = ^uint32(0)
		}
		filter.Data[echoReply6/32] &^= 1 << (echoReply6 % 32)
		err = unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, filter)
	} else {
		const icmpFilter = 1 // ICMP_FILTER of linux/icmp.h
		err = unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << echoReply4))
	}
	// Of a short queue replies are lost; so they are asked for again.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	if err != nil {
		return nil, err
	}
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.IPConn), nil
}

const (
	echoReply4, echoRequest4 = 0, 8
	echoReply6, echoRequest6 = 129, 128
)

// echo is one run of Echo.
type echo struct {
	asks  []Ask
	token uint64 // tells its packets from those of others
	near  *neighbours
	since int // packets, since it had the neighbours forgotten
	sent  int
	heard chan struct{}

	mu       sync.Mutex
	answered []bool
	done     int
}

func (e *echo) send(ctx context.Context, a *asking, id uint16) error {
	const (
		burst  = 32                    // packets
		moment = 50 * time.Millisecond // for answers that are on their way
	)
	for k, i := range a.asks {
		if k%burst == burst-1 {
			time.Sleep(time.Millisecond) // the receivers' queues are short
			if e.near.crowded(e.since) {
				e.wait(ctx, moment)
				if err := e.near.forget(); err != nil {
					return err
				}
				e.since = 0
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		e.since++
		e.sent++
		m := make([]byte, 8, 24)
		m[0] = echoRequest4
		if a.six {
			m[0] = echoRequest6 // its checksum is the kernel's work
		}
		binary.BigEndian.PutUint16(m[4:], id)
		binary.BigEndian.PutUint16(m[6:], uint16(k))
		m = binary.BigEndian.AppendUint64(m, e.token)
		m = binary.BigEndian.AppendUint64(m, uint64(i))
		if !a.six {
			binary.BigEndian.PutUint16(m[2:], checksum(m))
		}
		if _, err := a.conn.WriteToIP(m, &net.IPAddr{IP: e.asks[i].To.AsSlice()}); err != nil {
			e.settle(i, false) // no route, for one
		}
	}
	return nil
}

// checksum is that of the Internet (RFC 1071); b is of an even length.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func (e *echo) read(a *asking, id uint16) {
	b := make([]byte, 128)
	for {
		n, from, err := a.conn.ReadFromIP(b)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != 24 || binary.BigEndian.Uint16(b[4:]) != id || binary.BigEndian.Uint64(b[8:]) != e.token {
			continue
		}
		i := binary.BigEndian.Uint64(b[16:])
		addr, ok := netip.AddrFromSlice(from.IP)
		if ok && i < uint64(len(e.asks)) && e.asks[i].NetNS == a.netns && e.asks[i].To == addr.Unmap() {
			e.settle(int(i), true)
		}
	}
}

func (e *echo) settle(i int, answered bool) {
	e.mu.Lock()
	if !e.answered[i] {
		e.answered[i] = answered
		e.done++
	}
	e.mu.Unlock()
	select {
	case e.heard <- struct{}{}:
	default:
	}
}

// wait ends when all that was sent is settled, or nothing was heard for a while.
func (e *echo) wait(ctx context.Context, patience time.Duration) {
	quiet := time.NewTimer(patience)
	defer quiet.Stop()
	for {
		e.mu.Lock()
		all := e.done == e.sent
		e.mu.Unlock()
		if all {
			return
		}
		select {
		case <-e.heard:
			quiet.Reset(patience)
		case <-quiet.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
