package kernel

import (
	"context"
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

// waitForPorts returns once every port that w made is up. The kernel does
// that a moment after its station's end went up (net/core/link_watch.c), and
// drops packets until then.
func (w *wiring) waitForPorts(ctx context.Context) error {
	if len(w.ports) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, portsWait)
	defer cancel()
	s, err := w.openFabric()
	if err != nil {
		return err
	}
	defer s.close()
	for {
		up, err := s.portsUp(w.ports)
		if err != nil {
			return err
		}
		if up == len(w.ports) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot bring up all ports of %s, %d of %d are: %w", w.plan.Fabric.NetNS, up, len(w.ports), ctx.Err())
		case <-time.After(portsPeriod):
		}
	}
}

// portsUp counts those of ports. A dump that a change interrupted counts none,
// so that the caller asks again.
func (s *socket) portsUp(ports map[string]bool) (int, error) {
	up := 0
	whole, err := s.dump(unix.RTM_GETLINK, "links", func(entry []byte) {
		if l, ok := parseLink(entry); ok && ports[l.name] && l.oper == operUp {
			up++
		}
	}, nl.NewIfInfomsg(unix.AF_UNSPEC), attr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	if !whole {
		return 0, err
	}
	return up, err
}
