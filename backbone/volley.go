package backbone

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// volley is the memory for datagrams of any size that one system call receives,
// and one sends on (recvmmsg(2), sendmmsg(2)). Pages of it that nobody has used
// are none.
type volley struct {
	messages, sent [batchSize]mmsghdr
	data           [batchSize]unix.Iovec
	from           [batchSize]unix.RawSockaddrInet6 // the longer of the two
	control        [batchSize][64]byte
	bytes          [batchSize][maxUDP]byte
}

// datagrams is the loop's volley.
func (l *loop) datagrams() *volley {
	if l.volley == nil {
		v := &volley{}
		for i := range v.messages {
			m := &v.messages[i].Msghdr
			m.Iov, m.Name, m.Control = &v.data[i], (*byte)(unsafe.Pointer(&v.from[i])), &v.control[i][0]
			m.SetIovlen(1)
			v.sent[i].Iov = &v.data[i]
			v.sent[i].SetIovlen(1)
			v.data[i].Base = &v.bytes[i][0]
		}
		l.volley = v
	}
	return l.volley
}

// receive takes what has come; none is no error.
func (v *volley) receive(fd int) (int, error) {
	for i := range v.messages {
		m := &v.messages[i].Msghdr
		m.Namelen = unix.SizeofSockaddrInet6
		m.SetControllen(len(v.control[i]))
		v.data[i].SetLen(maxUDP)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.messages)), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EAGAIN || errno == unix.EINTR { // the socket is looked at again
		return 0, nil
	}
	if errno != 0 {
		return 0, errno
	}
	for i := range int(n) {
		v.data[i].SetLen(int(v.messages[i].length))
	}
	return int(n), nil
}

// sender is where datagram i came from.
func (v *volley) sender(i int) netip.AddrPort {
	name := &v.from[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	if name.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(name.Addr), port)
}

// name and oob are that as the kernel has it, and what came along with it.
func (v *volley) name(i int) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&v.from[i])), v.messages[i].Namelen)
}

func (v *volley) oob(i int) []byte { return v.control[i][:v.messages[i].Controllen] }

// alike tells whether two have one sender and came to one address.
func (v *volley) alike(i, j int) bool {
	return bytes.Equal(v.name(i), v.name(j)) && bytes.Equal(v.oob(i), v.oob(j))
}

// send sends datagrams from first until before end on, to the address name
// where there is one. As the network, it may lose some: the error is the last
// of those.
func (v *volley) send(fd, first, end int, name, control []byte) (lost error) {
	for i := first; i < end; i++ {
		m := &v.sent[i].Msghdr
		m.Name, m.Namelen = unsafe.SliceData(name), uint32(len(name))
		m.Control = unsafe.SliceData(control)
		m.SetControllen(len(control))
	}
	for first < end {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.sent[first])), uintptr(end-first), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			first += int(n)
		case unix.EINTR:
		default:
			lost = errno
			first++
		}
	}
	return lost
}
