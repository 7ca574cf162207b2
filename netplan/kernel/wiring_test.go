package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/netplan"
	"platelayer/topology"
)

// lab is one applied plan of a test.
type lab struct {
	*testing.T
	plan    *netplan.Plan
	options Options
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
}

func optionsFor(name string) Options {
	return Options{PinDir: filepath.Join("/run/platelayer-test", name), NetNSDir: "/run/netns", Owner: name}
}

func labName(what string) string { return fmt.Sprintf("t%d-%s", os.Getpid(), what) }

// up applies sample under a name of the test's own.
func up(t *testing.T, what string) *lab {
	t.Helper()
	return upWith(t, what, sample)
}

// in runs f on a thread in the namespace of "cluster.station".
func (l *lab) in(node string, f func() error) {
	l.Helper()
	if err := l.try(node, f); err != nil {
		l.Fatalf("in %s: %v", node, err)
	}
}

func (l *lab) try(node string, f func() error) error {
	ns, err := os.Open(filepath.Join(l.options.NetNSDir, l.plan.Topology+"."+node))
	if err != nil {
		return err
	}
	defer ns.Close()
	return onOwnThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// serve echoes UDP at addr in node, with the asker's address before it.
func (l *lab) serve(node, addr string) {
	l.Helper()
	l.in(node, func() error {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		if err != nil {
			return err
		}
		l.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteToUDPAddrPort(append([]byte(from.Addr().Unmap().String()+" "), buf[:n]...), from)
			}
		}()
		return nil
	})
}

// ask sends one packet from node to addr with a TTL (0: the default) and
// returns the answer.
func (l *lab) ask(node, addr string, ttl int) (string, error) {
	answer := ""
	err := l.try(node, func() error {
		c, err := net.Dial("udp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		if ttl > 0 {
			if err := setTTL(c.(*net.UDPConn), ttl); err != nil {
				return err
			}
		}
		if err := c.SetDeadline(time.Now().Add(700 * time.Millisecond)); err != nil {
			return err
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		buf := make([]byte, 2048)
		n, err := c.Read(buf)
		answer = string(buf[:n])
		return err
	})
	return answer, err
}

func (l *lab) wantAnswer(node, addr, from string) {
	l.Helper()
	got, err := l.ask(node, addr, 0)
	if err != nil || got != from+" hello" {
		l.Errorf("%s asked %s: %q, %v; want it seen as %s", node, addr, got, err, from)
	}
}

func setTTL(c *net.UDPConn, ttl int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TTL, ttl),
			unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1))
		if set != nil { // an IPv6 socket
			set = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, ttl),
				unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVERR, 1))
		} else {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, ttl)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
		}
	})
	return errors.Join(err, set)
}

func addrs(list ...string) []netip.Addr {
	var as []netip.Addr
	for _, s := range list {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

func prefixes(list ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// sample has a dual-stack cluster behind a gateway, a dual-stack one without,
// a station in both, and a cluster of IPv4 alone with a small MTU.
func sample(name string) *topology.Topology {
	station := func(cluster, name string, as ...string) topology.Station {
		return topology.Station{Name: name, Cluster: cluster, Addresses: addrs(as...)}
	}
	multi := station("app", "multi", "10.20.0.12", "fd00:20::12")
	multi.Interfaces = []topology.Interface{{Cluster: "plain", Addresses: addrs("10.30.0.12")}}
	gw := station("web", "gw", "203.0.113.1", "2001:db8:1::1")
	gw.Interfaces = []topology.Interface{{Cluster: "plain", Addresses: addrs("10.30.0.2")}}
	return &topology.Topology{Name: name, Clusters: []topology.Cluster{
		{Name: "web", Domain: "web.test", Gateway: "gw", MTU: 1500,
			Subnets:           prefixes("203.0.113.0/24", "2001:db8:1::/64"),
			BackboneAddresses: addrs("203.0.113.254", "2001:db8:1::fe"),
			Stations:          []topology.Station{gw, station("web", "a", "203.0.113.11", "2001:db8:1::11")}},
		{Name: "app", Domain: "app.test", MTU: 1500,
			Subnets:           prefixes("10.20.0.0/24", "fd00:20::/64"),
			BackboneAddresses: addrs("10.20.0.1", "fd00:20::1"),
			Stations:          []topology.Station{station("app", "b", "10.20.0.11", "fd00:20::11"), multi}},
		{Name: "plain", Domain: "plain.test", MTU: 1400,
			Subnets:           prefixes("10.30.0.0/24"),
			BackboneAddresses: addrs("10.30.0.1"),
			Stations:          []topology.Station{station("plain", "c", "10.30.0.11")}},
	}}
}
