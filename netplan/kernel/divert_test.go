package kernel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// TestDivert has a socket of the backbone accept what a station sends outside,
// and nothing of what stations send each other.
func TestDivert(t *testing.T) {
	l := up(t, "divert")
	open := *l.plan
	open.Nodes = slices.Clone(l.plan.Nodes)
	through := *open.Nodes[0].Divert
	through.Hold = false
	open.Nodes[0].Divert = &through
	l.changeTo(&open)
	outside := []string{"198.51.100.7:443", "169.254.169.254:80", "[2001:db8:ffff::7]:443"}
	connect := func(node, to string) error {
		return l.try(node, func() error {
			c, err := net.DialTimeout("tcp", to, 5*time.Second)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	for _, to := range outside {
		if connect("app.b", to) == nil {
			t.Errorf("%s answers with nobody at the divert's port", to)
		}
	}
	// Nor does the node answer what no socket is for, or ARP for it, or reach it.
	for _, to := range []string{"198.51.100.7", "2001:db8:ffff::7"} {
		if err := l.try("app.b", func() error { return sendSCTP(netip.MustParseAddr(to)) }); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("SCTP to %s: %v", to, err)
		}
		if err := l.try("backbone", func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(to, "443"), 5*time.Second)
			if err == nil {
				c.Close()
			}
			return err
		}); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("the backbone itself to %s: %v", to, err)
		}
	}
	for to, want := range map[string]bool{"198.51.100.7": false, "10.20.0.1": true} {
		err := l.try("app.b", func() error { return askARP(netip.MustParseAddr("10.20.0.11"), netip.MustParseAddr(to)) })
		if (err == nil) != want {
			t.Errorf("ARP for %s: %v", to, err)
		}
	}
	transparent := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1) })
		if cerr != nil {
			return cerr
		}
		return err
	}}
	accepted := make(chan string, 10)
	l.in("backbone", func() error {
		listener, err := transparent.Listen(context.Background(), "tcp", netip.AddrPortFrom(netip.IPv6Unspecified(), netplan.DivertPort).String())
		if err != nil {
			return err
		}
		t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				accepted <- c.LocalAddr().String() + " from " + strings.TrimSuffix(c.RemoteAddr().String(), ":"+portOf(c.RemoteAddr()))
				c.Close()
			}
		}()
		return nil
	})
	from := map[string]string{"app.b": "10.20.0.11", "web.a": "203.0.113.11", "plain.c": "10.30.0.11"}
	for node, addr := range from {
		for _, to := range outside {
			six := strings.HasPrefix(to, "[")
			if six && node == "plain.c" {
				continue
			}
			if six {
				addr = map[string]string{"app.b": "[fd00:20::11]", "web.a": "[2001:db8:1::11]"}[node]
			}
			_ = connect(node, to)
			select {
			case got := <-accepted:
				if want := to + " from " + addr; got != want {
					t.Errorf("accepted %s, want %s", got, want)
				}
			case <-time.After(5 * time.Second):
				t.Errorf("%s of %s was not accepted", to, node)
			}
		}
	}
	l.serve("plain.c", "10.30.0.11:80")
	l.wantAnswer("app.b", "10.30.0.11:80", "10.20.0.11")
	for _, to := range []string{"10.20.0.77:80", "203.0.113.77:80"} {
		_ = connect("app.b", to) // nobody is there
	}
	select {
	case got := <-accepted:
		t.Errorf("accepted %s", got)
	default:
	}
}

// answerTime is enough for a node beside us.
var answerTime = unix.Timeval{Sec: 1}

// sendSCTP sends a packet of SCTP, and returns what is said about it.
func sendSCTP(to netip.Addr) error {
	family, level, errorsOf := unix.AF_INET, unix.SOL_IP, unix.IP_RECVERR
	var at unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(to.AsSlice()[:4])}
	if to.Is6() {
		family, level, errorsOf = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_RECVERR
		at = &unix.SockaddrInet6{Addr: to.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.SetsockoptInt(fd, level, errorsOf, 1), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &answerTime),
		unix.Connect(fd, at)); err != nil {
		return err
	}
	if _, err := unix.Write(fd, make([]byte, 16)); err != nil {
		return err
	}
	_, err = unix.Read(fd, make([]byte, 100))
	return err
}

// askARP asks for an address on the first interface (RFC 826).
func askARP(from, to netip.Addr) error {
	const arp = unix.ETH_P_ARP<<8&0xff00 | unix.ETH_P_ARP>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, arp)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &answerTime); err != nil {
		return err
	}
	dev, err := net.InterfaceByIndex(firstInside)
	if err != nil {
		return err
	}
	ask := slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 1}, dev.HardwareAddr, from.AsSlice(), make([]byte, 6), to.AsSlice())
	everybody := &unix.SockaddrLinklayer{Protocol: arp, Ifindex: dev.Index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	if err := unix.Sendto(fd, ask, 0, everybody); err != nil {
		return err
	}
	for buf := make([]byte, 100); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return err
		}
		if n >= 28 && buf[7] == 2 && slices.Equal(buf[14:18], to.AsSlice()) {
			return nil
		}
	}
}

func portOf(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

// TestIntervals has sets of prefixes that touch each other, and the last
// address, as the kernel takes and shows them.
func TestIntervals(t *testing.T) {
	own := prefixes("10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/23", "240.0.0.0/4", "::/127", "ff00::/8")
	four := intervals(own[:4])
	if n := len(four); n != 7 || !slices.Equal(four[n-1].Key, []byte{240, 0, 0, 0}) {
		t.Errorf("intervals are %v", four)
	}
	for _, d := range []*netplan.Divert{{Mark: 1, Port: 5, Own: own}, {Mark: 1, Port: 5, Own: own[1:]}, {Mark: 2, Port: 5, Own: own[1:]}, {Mark: 1, Port: 5, Hold: true, Own: own[1:2]}, nil} {
		err := onOwnThread(func() error {
			if _, err := enterNewNetNS("intervals", nil); err != nil {
				return err
			}
			n := &netplan.Node{NetNS: "intervals", Divert: &netplan.Divert{Mark: 1, Port: 5, Own: own[1:2]}}
			if _, _, err := settleFilter(n); err != nil {
				return err
			}
			n.Divert = d
			for i, want := range []int{1, 0} {
				if _, sent, err := settleFilter(n); err != nil || sent != want {
					t.Errorf("round %d of %v sent %d: %v", i, d, sent, err)
				}
			}
			conn, err := nftables.New()
			if err != nil {
				return err
			}
			tables, err := conn.ListTables()
			if (len(tables) == 1) != (d != nil) {
				t.Errorf("%d tables for %v", len(tables), d)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
