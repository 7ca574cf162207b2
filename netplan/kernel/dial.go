package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

const dialWait = 5 * time.Second

// Dial is a socket connected from inside the pinned namespace netns, which the
// caller closes. network is one of net.Dial's; address is an abstract name
// ("@name") for "unix" and IP:PORT otherwise: no names are resolved. It gives
// up after five seconds.
func Dial(o Options, netns, network, address string) (*os.File, error) {
	if strings.HasPrefix(network, "unix") {
		// Others are files, which do not belong to a network namespace.
		if !strings.HasPrefix(address, "@") {
			return nil, fmt.Errorf("cannot connect to %q in %s: no abstract name", address, netns)
		}
	} else if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("cannot connect to %q in %s: %w", address, netns, err)
	}
	ns, err := openPin(o, netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	var f *os.File
	err = onOwnThread(func() error {
		if err := enter(ns); err != nil {
			return err
		}
		// For an address and no name, net makes the socket on this thread.
		c, err := net.DialTimeout(network, address, dialWait)
		if err != nil {
			return fmt.Errorf("cannot connect in %s: %w", netns, err)
		}
		defer c.Close()
		f, err = c.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			return fmt.Errorf("cannot connect to %s in %s: %w", address, netns, err)
		}
		return nil
	})
	return f, err
}
