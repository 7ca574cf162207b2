package kernel

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	skipStats   = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	operUp      = 6      // IF_OPER_UP
	portsWait   = 10 * time.Second
	portsPeriod = time.Millisecond
)

// waitForPorts returns once every port of the fabric is up. The kernel does
// that a moment after its station's end went up (net/core/link_watch.c), and
// drops packets until then.
func (w *wiring) waitForPorts(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, portsWait)
	defer cancel()
	s, err := w.openFabric()
	if err != nil {
		return err
	}
	defer s.close()
	for {
		up, err := s.portsUp()
		if err != nil {
			return err
		}
		if up == w.ports {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot bring up all ports of %s, %d of %d are: %w", w.plan.Fabric.NetNS, up, w.ports, ctx.Err())
		case <-time.After(portsPeriod):
		}
	}
}

// portsUp counts them. A dump that a change interrupted counts none, so that
// the caller asks again.
func (s *socket) portsUp() (int, error) {
	req := nl.NetlinkRequest{NlMsghdr: unix.NlMsghdr{Type: unix.RTM_GETLINK, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP}}
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(attr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	if err := unix.Sendto(s.fd, req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("cannot send to netlink: %w", err)
	}
	up, interrupted := 0, false
	for {
		msgs, err := s.receive()
		if err != nil {
			return 0, err
		}
		for _, m := range msgs {
			interrupted = interrupted || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				if interrupted {
					return 0, nil
				}
				return up, nil
			case unix.NLMSG_ERROR:
				code := int32(binary.NativeEndian.Uint32(m.Data))
				return 0, fmt.Errorf("cannot list links: %w", unix.Errno(-code))
			case unix.RTM_NEWLINK:
				if nl.DeserializeIfInfomsg(m.Data).Index >= firstPort && operState(m.Data) == operUp {
					up++
				}
			}
		}
	}
}

func operState(link []byte) byte {
	attrs, err := nl.ParseRouteAttr(link[unix.SizeofIfInfomsg:])
	if err != nil {
		return 0
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.IFLA_OPERSTATE && len(a.Value) > 0 {
			return a.Value[0]
		}
	}
	return 0
}
