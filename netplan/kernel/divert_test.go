package kernel

import (
	"context"
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
			if _, err := settleFilter(n); err != nil {
				return err
			}
			n.Divert = d
			for i, want := range []int{1, 0} {
				if sent, err := settleFilter(n); err != nil || sent != want {
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
