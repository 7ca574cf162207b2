package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// maxSend keeps one sendmsg well below the default socket buffer
// (net.core.wmem_default, 212992).
const maxSend = 64 << 10

// batch collects rtnetlink requests to send as one message. Only the last of
// them asks for an acknowledgement; the kernel reports the error of any
// (netlink_rcv_skb in net/netlink/af_netlink.c) and goes on with the next.
type batch struct {
	buf  []byte
	last int             // where the last request starts
	what []func() string // by sequence number, for errors alone
}

// add appends a request. what tells the operation: "add route ...".
func (b *batch) add(kind uint16, flags uint16, what func() string, data ...nl.NetlinkRequestData) {
	req := nl.NetlinkRequest{NlMsghdr: unix.NlMsghdr{
		Type:  kind,
		Flags: unix.NLM_F_REQUEST | flags,
		Seq:   uint32(len(b.what)),
	}}
	for _, d := range data {
		req.AddData(d)
	}
	b.last = len(b.buf)
	b.buf = append(b.buf, req.Serialize()...)
	b.what = append(b.what, what)
}

// again appends a request of what a dump brought, such as to delete it.
func (b *batch) again(kind uint16, entry []byte, what func() string) {
	b.add(kind, 0, what, raw(entry))
}

// raw is a request's payload as it is.
type raw []byte

func (r raw) Len() int          { return len(r) }
func (r raw) Serialize() []byte { return r }

func (b *batch) empty() bool { return len(b.what) == 0 }

// socket is an rtnetlink socket. It stays in the namespace of the thread that
// opened it.
type socket struct {
	fd  int
	buf []byte
}

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket: %w", err)
	}
	// Without them errors come with the whole request and without the kernel's
	// words; both are conveniences, so a refusal is no failure.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	return &socket{fd: fd, buf: make([]byte, 32<<10)}, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// send does all requests of b, in as few messages as fit.
func (s *socket) send(b *batch) error {
	for at := 0; at < len(b.buf); {
		end, last := at, at
		for end < len(b.buf) {
			n := int(binary.NativeEndian.Uint32(b.buf[end:]))
			if end > at && end+n-at > maxSend {
				break
			}
			last, end = end, end+n
		}
		flags := b.buf[last+6:]
		binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
		final := binary.NativeEndian.Uint32(b.buf[last+8:])
		if err := unix.Sendto(s.fd, b.buf[at:end], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("cannot send to netlink: %w", err)
		}
		if err := s.results(b, final); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// results reads answers up to that of request final, and returns the first
// error.
func (s *socket) results(b *batch, final uint32) error {
	var first error
	for {
		msgs, err := s.receive()
		if err != nil {
			return errors.Join(first, err)
		}
		for _, m := range msgs {
			if m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				continue
			}
			code := int32(binary.NativeEndian.Uint32(m.Data))
			if code != 0 && first == nil {
				first = b.failure(m, syscall.Errno(-code))
			}
			if m.Header.Seq == final {
				return first
			}
		}
	}
}

func (s *socket) receive() ([]syscall.NetlinkMessage, error) {
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read from netlink: %w", err)
		}
		msgs, err := syscall.ParseNetlinkMessage(s.buf[:n])
		if err != nil {
			return nil, fmt.Errorf("cannot read from netlink: %w", err)
		}
		return msgs, nil
	}
}

func (b *batch) failure(m syscall.NetlinkMessage, errno syscall.Errno) error {
	what := "do a netlink request"
	if int(m.Header.Seq) < len(b.what) {
		what = b.what[m.Header.Seq]()
	}
	if words := extendedError(m); words != "" {
		return fmt.Errorf("cannot %s: %w (%s)", what, errno, words)
	}
	return fmt.Errorf("cannot %s: %w", what, errno)
}

// extendedError is the kernel's own explanation, attribute NLMSGERR_ATTR_MSG.
func extendedError(m syscall.NetlinkMessage) string {
	const header = 4 + unix.SizeofNlMsghdr // struct nlmsgerr, capped
	if m.Header.Flags&unix.NLM_F_ACK_TLVS == 0 || m.Header.Flags&unix.NLM_F_CAPPED == 0 || len(m.Data) < header {
		return ""
	}
	attrs, err := nl.ParseRouteAttr(m.Data[header:])
	if err != nil {
		return ""
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.NLMSGERR_ATTR_MSG {
			return nl.BytesToString(a.Value)
		}
	}
	return ""
}
