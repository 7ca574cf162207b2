package backbone

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many packets one system call receives or sends
	// (recvmmsg(2), sendmmsg(2)) when that many wait.
	batchSize = 32
	// maxQuestion is the longest question over UDP that is read: one name, and
	// options of EDNS that come nowhere near it.
	maxQuestion = 1536
	// lingerTime is how long a thread waits for more after a batch.
	lingerTime = 1 // milliseconds
)

// The calls below wait for nothing, or for a moment that is shorter than what
// the runtime does around a call that may wait: they are raw.

// mmsghdr is one message of a batch.
type mmsghdr struct {
	unix.Msghdr
	length uint32
}

// batch is the memory for the packets of one system call. Their addresses lie
// in from, also those that answers go to.
type batch struct {
	conn syscall.RawConn

	questions, answers [batchSize]mmsghdr
	from               [batchSize]unix.RawSockaddrInet6 // the longer of the two
	in, out            [batchSize]unix.Iovec
	packets            [batchSize][maxQuestion]byte
	bufs               [batchSize][udpSize]byte

	receiveFunc, sendFunc func(fd uintptr) bool
	received              int // packets
	waiting, sent         int // answers
	errno                 syscall.Errno
	asked                 question
}

func newBatch(conn *net.UDPConn) (*batch, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	b := &batch{conn: raw}
	for i := range b.questions {
		b.in[i].Base = &b.packets[i][0]
		b.in[i].SetLen(maxQuestion)
		q := &b.questions[i].Msghdr
		q.Name, q.Iov = (*byte)(unsafe.Pointer(&b.from[i])), &b.in[i]
		q.Namelen = unix.SizeofSockaddrInet6
		q.SetIovlen(1)
		b.answers[i].Iov = &b.out[i]
		b.answers[i].SetIovlen(1)
	}
	b.receiveFunc, b.sendFunc = b.tryReceive, b.trySend
	return b, nil
}

// receive waits for packets and tells how many came.
func (b *batch) receive() (int, error) {
	for i := range b.received {
		b.questions[i].Namelen = unix.SizeofSockaddrInet6
	}
	if err := b.conn.Read(b.receiveFunc); err != nil {
		return 0, err
	}
	if b.errno != 0 {
		return 0, b.errno
	}
	return b.received, nil
}

func (b *batch) tryReceive(fd uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.questions)), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EAGAIN && b.received > 0 {
		// Waiting here costs less than through the runtime's poller, and is worth
		// it only while more comes.
		b.received = 0
		soon := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(soon[:], lingerTime); n > 0 {
			return b.tryReceive(fd)
		}
	}
	b.received, b.errno = int(n), errno
	if errno != 0 {
		b.received = 0
	}
	return errno != unix.EAGAIN && errno != unix.EINTR
}

// packet is what came, and from where. One that was cut is none.
func (b *batch) packet(i int) ([]byte, netip.AddrPort) {
	q := &b.questions[i]
	if q.Flags&unix.MSG_TRUNC != 0 {
		return nil, netip.AddrPort{}
	}
	name := &b.from[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	addr := netip.AddrFrom16(name.Addr)
	if name.Family == unix.AF_INET {
		addr = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr)
	}
	return b.packets[i][:q.length], netip.AddrPortFrom(addr, port)
}

// answer puts an answer to the packet into the next batch that is sent.
func (b *batch) answer(i int, packed []byte) {
	a := &b.answers[b.waiting].Msghdr
	a.Name, a.Namelen = (*byte)(unsafe.Pointer(&b.from[i])), b.questions[i].Namelen
	b.out[b.waiting].Base = unsafe.SliceData(packed)
	b.out[b.waiting].SetLen(len(packed))
	b.waiting++
}

// send sends the answers. One that can't be sent is left out: whoever doesn't
// get it asks again.
func (b *batch) send() error {
	for b.sent = 0; b.sent < b.waiting; {
		if err := b.conn.Write(b.sendFunc); err != nil {
			return err
		}
		if b.errno != 0 {
			b.sent++
		}
	}
	b.waiting = 0
	return nil
}

func (b *batch) trySend(fd uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.answers[b.sent])), uintptr(b.waiting-b.sent), unix.MSG_DONTWAIT, 0, 0)
	if b.errno = errno; errno == 0 {
		b.sent += int(n)
	}
	return errno != unix.EAGAIN && errno != unix.EINTR
}

func (s *server) serveUDP(conn *net.UDPConn) {
	b, err := newBatch(conn)
	if err != nil {
		return // closed meanwhile
	}
	moment := unix.NsecToTimespec(1000) // and the kernel's slack of 50 microseconds
	for {
		n, err := b.receive()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// An ICMP error about an earlier answer; a lasting one must not
			// turn into a busy loop.
			time.Sleep(time.Millisecond)
			continue
		}
		z := s.zones.Load()
		for i := range n {
			packet, from := b.packet(i)
			buf := b.bufs[i][:]
			if s.follower.Load() == nil && b.asked.read(packet) {
				if packed := z.answerReady(&b.asked, packet, buf, z.clusterOf(from.Addr())); packed != nil {
					b.answer(i, packed)
					continue
				}
			}
			packed, later := s.handle(packet, buf, transport{from: from.Addr()})
			if later != nil {
				s.tasks.Go(func() { later(func(packed []byte) { _, _ = conn.WriteToUDPAddrPort(packed, from) }) })
			} else if packed != nil {
				b.answer(i, packed)
			}
		}
		if b.send() != nil {
			return
		}
		if n > 1 && n < batchSize {
			// They come faster than one by one: what a moment more brings is
			// answered with fewer system calls and wake-ups.
			unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&moment)), 0, 0)
		}
		runtime.Gosched()
	}
}
