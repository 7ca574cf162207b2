package backbone

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// takeTime is how long a station may take to finish a handshake that it began.
const takeTime = 10 * time.Second

// gate sees the first packet (SYN) of each connection to the outside, which the
// kernel drops, has the other side opened, and then either sends the packet
// on, to the listener, or answers it with a reset.
type gate struct {
	divert  *divert
	own     atomic.Pointer[[]netip.Prefix]
	origins atomic.Pointer[[]netplan.Origin]
	sniff   map[uint16]*os.File // by Ethernet's number of the protocol
	send4   int                 // raw sockets
	send6   int

	mu      sync.Mutex
	waiting map[flowKey]chan net.Conn // nil until the other side is there
	pings   pings
	devices map[int]string // names of interfaces, by index
}

// openGate opens its sockets in the calling process's namespace.
func openGate(d *divert) (g *gate, err error) {
	g = &gate{divert: d, send4: -1, send6: -1, sniff: map[uint16]*os.File{}, waiting: map[flowKey]chan net.Conn{}, devices: map[int]string{}}
	g.pings.all = map[flowKey]chan []byte{}
	defer func() {
		if err != nil {
			g.Close()
			err = fmt.Errorf("cannot hold connections: %w", err)
		}
	}()
	if g.send4, err = openRaw(unix.AF_INET); err != nil {
		return g, err
	}
	if g.send6, err = openRaw(unix.AF_INET6); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return g, err
	}
	return g, nil
}

// watch begins to look at the packets of an IP version. Each socket costs as
// much as an RCU grace period when it closes, which `down` waits for, hence none
// that nobody needs.
func (g *gate) watch(proto uint16) error {
	if g.sniff[proto] != nil {
		return nil
	}
	filter := firstOf4()
	if proto == unix.ETH_P_IPV6 {
		filter = firstOf6()
	}
	s, err := openSniffer(proto, filter)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil // then nothing is held: netplan/kernel looks before
	}
	if err != nil {
		return fmt.Errorf("cannot hold connections: %w", err)
	}
	g.sniff[proto] = s
	g.divert.tasks.Go(func() { g.run(s) })
	return nil
}

func openSniffer(proto uint16, filter []bpf.Instruction) (*os.File, error) {
	// Without a protocol it sees nothing until the filter is there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	s := os.NewFile(uintptr(fd), "sniffer")
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto<<8 | proto>>8}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func openRaw(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW) // with the header
	return fd, err
}

const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
	// longest packet that is looked at: a SYN with all options, and data.
	maxFirst = 2048
)

// firstOf4 lets SYNs and echo requests of IPv4 through; offsets are of RFC 791,
// RFC 9293 and RFC 792.
func firstOf4() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 11}, // a fragment, first or later
		bpf.LoadMemShift{Off: 0},
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMP, SkipTrue: 5},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 7},
		bpf.LoadIndirect{Off: 13, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: flagSYN | flagACK},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: flagSYN, SkipTrue: 4},
		bpf.RetConstant{Val: maxFirst},
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: echoRequest4, SkipTrue: 1},
		bpf.RetConstant{Val: maxUDP},
		bpf.RetConstant{Val: 0},
	}
}

// firstOf6 does so for IPv6 (RFC 8200), where they come at once.
func firstOf6() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 5},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 7},
		bpf.LoadAbsolute{Off: 40 + 13, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: flagSYN | flagACK},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: flagSYN, SkipTrue: 4},
		bpf.RetConstant{Val: maxFirst},
		bpf.LoadAbsolute{Off: 40, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: echoRequest6, SkipTrue: 1},
		bpf.RetConstant{Val: maxUDP},
		bpf.RetConstant{Val: 0},
	}
}

// Close ends the sniffers; connections that wait go on.
func (g *gate) Close() error {
	for _, s := range g.sniff {
		s.Close()
	}
	return nil
}

// run takes what one sniffer sees until it closes.
func (g *gate) run(s *os.File) {
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, maxUDP)
	for {
		var n int
		var from unix.Sockaddr
		var read error
		err := raw.Read(func(fd uintptr) bool {
			n, from, read = unix.Recvfrom(int(fd), buf, 0)
			return read != syscall.EAGAIN && read != syscall.EINTR
		})
		if err != nil {
			return
		}
		at, ok := from.(*unix.SockaddrLinklayer)
		if read != nil || !ok || at.Ifindex == 1 || at.Pkttype != unix.PACKET_HOST { // lo: sent by us
			continue
		}
		key, ok := ends(buf[:n])
		if !ok || !g.comes(at.Ifindex, key.from.Addr()) || slices.ContainsFunc(*g.own.Load(), func(p netip.Prefix) bool { return p.Contains(key.to.Addr()) }) {
			continue
		}
		if isTCP(buf) {
			g.arrived(key, slices.Clone(buf[:n]))
		} else {
			g.pinged(key.from.Addr(), key.to.Addr(), slices.Clone(buf[:n]))
		}
	}
}

// comes tells whether a packet with that sender may have come in by an
// interface. The filter that says so for sockets (netplan.Origin) is behind this
// one. An interface without an origin is the uplink.
func (g *gate) comes(index int, from netip.Addr) bool {
	all := *g.origins.Load()
	g.mu.Lock()
	name, known := g.devices[index]
	g.mu.Unlock()
	if !known && len(all) > 0 {
		f, err := net.InterfaceByIndex(index)
		if err != nil {
			return false // it has just gone
		}
		name = f.Name
		g.mu.Lock()
		g.devices[index] = name
		g.mu.Unlock()
	}
	i := slices.IndexFunc(all, func(o netplan.Origin) bool { return o.Dev == name })
	return i < 0 || all[i].Comes(from)
}

// isTCP tells SYNs from echo requests.
func isTCP(packet []byte) bool {
	return packet[0]>>4 == 4 && packet[9] == unix.IPPROTO_TCP || packet[0]>>4 == 6 && packet[6] == unix.IPPROTO_TCP
}

// ends reads where a packet goes. The ports are TCP's.
func ends(packet []byte) (flowKey, bool) {
	var from, to netip.Addr
	header := headerLength(packet)
	if header == 0 || len(packet) < header+8 || isTCP(packet) && len(packet) < header+20 {
		return flowKey{}, false
	}
	if packet[0]>>4 == 4 {
		from, to = netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
	} else {
		from, to = netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
		if from.Is4In6() || to.Is4In6() { // which to a socket is IPv4 (draft-itojun-v6ops-v4mapped-harmful)
			return flowKey{}, false
		}
	}
	tcp := packet[header:]
	return flowKey{netip.AddrPortFrom(from, binary.BigEndian.Uint16(tcp)), netip.AddrPortFrom(to, binary.BigEndian.Uint16(tcp[2:]))}, true
}

// headerLength is that of the IP header, 0 for what is none.
func headerLength(packet []byte) int {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		if n := int(packet[0]&0xf) * 4; n >= 20 {
			return n
		}
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return 40
	}
	return 0
}

func (g *gate) arrived(key flowKey, packet []byte) {
	g.mu.Lock()
	_, known := g.waiting[key]
	if !known {
		g.waiting[key] = nil
	}
	g.mu.Unlock()
	if known {
		return // sent again, since the answer takes its time
	}
	if !g.divert.crowd.enter(key.from.Addr()) {
		g.forget(key) // as a full queue does: the station tries again
		return
	}
	g.divert.tasks.Go(func() {
		defer g.divert.crowd.leave(key.from.Addr())
		g.serve(key, packet)
	})
}

// unanswered tells what a station hears nothing of, and so tries again: silence
// outside, and what is a matter of too many at a time. The keeper's reasons come
// as words.
func unanswered(err error) bool {
	if isTimeout(err) || errors.Is(err, errNoKeeper) {
		return true
	}
	return slices.ContainsFunc([]string{"timeout", "timed out", "too many", "others wait"}, func(words string) bool {
		return strings.Contains(err.Error(), words)
	})
}

func (g *gate) forget(key flowKey) {
	g.mu.Lock()
	delete(g.waiting, key)
	g.mu.Unlock()
}

// serve opens the other side and moves the bytes of one connection.
func (g *gate) serve(key flowKey, packet []byte) {
	out, err := g.divert.outside("tcp", key.from, key.to)
	other, ok := out.(*net.TCPConn)
	if err != nil || !ok {
		g.forget(key)
		if err == nil || !unanswered(err) {
			g.refuse(key, packet)
		}
		return
	}
	taken := make(chan net.Conn, 1)
	g.mu.Lock()
	g.waiting[key] = taken
	g.mu.Unlock()
	err = g.send(key, packet, netplan.DivertMark)
	wait := time.NewTimer(takeTime)
	defer wait.Stop()
	var c net.Conn
	if err == nil {
		select {
		case c = <-taken:
		case <-wait.C:
		case <-g.divert.ctx.Done():
		}
	}
	g.forget(key)
	if c == nil {
		select {
		case c = <-taken: // at the same moment
		default:
			if err != nil {
				g.divert.logf("cannot send a packet to %s on: %v", key.to, err)
			}
			reset(other)
			return
		}
	}
	g.divert.relays.join(c.(*net.TCPConn), other)
}

// take hands an accepted connection to who waits for it.
func (g *gate) take(key flowKey, c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	taken := g.waiting[key]
	if taken == nil {
		return false
	}
	g.waiting[key] = nil
	taken <- c
	return true
}

// refuse answers a SYN as a host without a listener does (RFC 9293, section
// 3.5.2).
func (g *gate) refuse(key flowKey, packet []byte) {
	header := headerLength(packet)
	answer := make([]byte, header+20)
	copy(answer, packet[:header])
	if packet[0]>>4 == 4 {
		answer = answer[:20+20]
		answer[0] = 4<<4 | 5
		binary.BigEndian.PutUint16(answer[2:], 40)
		binary.BigEndian.PutUint32(answer[4:], 0) // no fragment
		copy(answer[12:], packet[16:20])
		copy(answer[16:], packet[12:16])
		answer[8] = 64
		header = 20
	} else {
		binary.BigEndian.PutUint16(answer[4:], 20)
		copy(answer[8:], packet[24:40])
		copy(answer[24:], packet[8:24])
		answer[7] = 64
	}
	in, tcp := packet[headerLength(packet):], answer[header:]
	copy(tcp, in[2:4])
	copy(tcp[2:], in[:2])
	binary.BigEndian.PutUint32(tcp[8:], binary.BigEndian.Uint32(in[4:])+1)
	tcp[12], tcp[13] = 5<<4, flagRST|flagACK
	back := flowKey{from: key.to, to: key.from}
	if err := g.send(back, answer, 0); err != nil {
		g.divert.logf("cannot refuse %s: %v", key.from, err)
	}
}

// send sends a packet with its checksum, which one from a veth lacks. A marked
// one comes in again by lo.
func (g *gate) send(key flowKey, packet []byte, mark int) error {
	header := headerLength(packet)
	tcp := packet[header:]
	tcp[16], tcp[17] = 0, 0
	binary.BigEndian.PutUint16(tcp[16:], checksum(key, unix.IPPROTO_TCP, tcp))
	return g.write(key, packet, mark)
}

func (g *gate) write(key flowKey, packet []byte, mark int) error {
	fd, to := g.send4, unix.Sockaddr(nil)
	if key.to.Addr().Is4() {
		to = &unix.SockaddrInet4{Addr: key.to.Addr().As4()}
	} else {
		fd, to = g.send6, &unix.SockaddrInet6{Addr: key.to.Addr().As16()}
	}
	g.mu.Lock() // for the mark
	defer g.mu.Unlock()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
		return err
	}
	return unix.Sendto(fd, packet, 0, to)
}

// checksum is that of TCP and ICMPv6 (RFC 9293, section 3.1; RFC 8200, section
// 8.1).
func checksum(key flowKey, proto int, data []byte) uint16 {
	pseudo := append(key.from.Addr().AsSlice(), key.to.Addr().AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(data)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(proto))
	return sum(uint32(^sum(0, pseudo)), data)
}

// sum is the internet's (RFC 1071), on top of another.
func sum(sum uint32, b []byte) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
