package kernel

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStationsReachEachOther(t *testing.T) {
	l := up(t, "reach")
	for node, addr := range map[string]string{
		"web.a": "203.0.113.11", "app.b": "10.20.0.11", "plain.c": "10.30.0.11", "backbone": "203.0.113.254",
	} {
		l.serve(node, net.JoinHostPort(addr, "53"))
	}
	l.serve("web.a", "[2001:db8:1::11]:53")
	l.serve("app.b", "[fd00:20::11]:53")
	// IPv6 first: it has to be usable at once.
	l.wantAnswer("web.a", "[fd00:20::11]:53", "2001:db8:1::11")
	l.wantAnswer("app.b", "[2001:db8:1::11]:53", "fd00:20::11")
	l.wantAnswer("web.a", "10.20.0.11:53", "203.0.113.11")
	l.wantAnswer("app.b", "203.0.113.11:53", "10.20.0.11")
	l.wantAnswer("plain.c", "203.0.113.11:53", "10.30.0.11")
	l.wantAnswer("app.multi", "10.30.0.11:53", "10.30.0.12")
	l.wantAnswer("web.gw", "10.20.0.11:53", "203.0.113.1")
	l.wantAnswer("app.b", "203.0.113.254:53", "10.20.0.11")
}

// TestPathsThroughGateway looks at every hop, both ways.
func TestPathsThroughGateway(t *testing.T) {
	l := up(t, "hops")
	l.serve("web.a", "203.0.113.11:53")
	l.serve("app.b", "10.20.0.11:53")
	l.serve("plain.c", "10.30.0.11:53")
	l.serve("web.a", "[2001:db8:1::11]:53")
	l.serve("app.b", "[fd00:20::11]:53")
	for _, path := range []struct{ from, to, hops string }{
		{"web.a", "10.20.0.11:53", "203.0.113.1 203.0.113.254"},
		{"app.b", "203.0.113.11:53", "10.20.0.1 203.0.113.1"},
		// The gateway has an interface in plain as well and reports with that.
		{"plain.c", "203.0.113.11:53", "10.30.0.1 10.30.0.2"},
		{"web.a", "10.30.0.11:53", "203.0.113.1 203.0.113.254"},
		{"plain.c", "10.20.0.11:53", "10.30.0.1"},
		{"web.a", "[fd00:20::11]:53", "2001:db8:1::1 2001:db8:1::fe"},
		{"app.b", "[2001:db8:1::11]:53", "fd00:20::1 2001:db8:1::1"},
	} {
		if got := strings.Join(l.hops(path.from, path.to), " "); got != path.hops {
			t.Errorf("%s to %s goes over %q, want %q", path.from, path.to, got, path.hops)
		}
	}
}

// TestBackboneAnswersOnLink asks the backbone with TTL 1 from behind a gateway
// that drops whatever it would forward: neither question nor answer crosses it.
func TestBackboneAnswersOnLink(t *testing.T) {
	l := up(t, "onlink")
	l.serve("backbone", "203.0.113.254:53")
	l.serve("backbone", "[2001:db8:1::fe]:53")
	l.in("web.gw", func() error {
		for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+key, []byte("0"), 0); err != nil {
				return err
			}
		}
		return nil
	})
	for _, addr := range []string{"203.0.113.254:53", "[2001:db8:1::fe]:53"} {
		if got, err := l.ask("web.a", addr, 1); err != nil {
			t.Errorf("asked %s: %q, %v", addr, got, err)
		}
	}
	l.serve("app.b", "10.20.0.11:53")
	if got, err := l.ask("web.a", "10.20.0.11:53", 0); err == nil {
		t.Errorf("the gateway still forwards: %q", got)
	}
}

func TestNamesMTUAndSettings(t *testing.T) {
	l := up(t, "names")
	out, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		t.Skip("needs iproute2: ", err)
	}
	for _, name := range l.plan.NetNSNames() {
		if !strings.Contains(string(out), name) {
			t.Errorf("ip netns does not list %s", name)
		}
	}
	l.in("plain.c", func() error {
		f, err := net.InterfaceByName("eth0")
		if err == nil && f.MTU != 1400 {
			t.Errorf("MTU is %d", f.MTU)
		}
		return err
	})
	for _, n := range l.plan.Nodes {
		l.in(strings.TrimPrefix(n.NetNS, l.plan.Topology+"."), func() error {
			for _, s := range n.Sysctls {
				raw, err := os.ReadFile(filepath.Join("/proc/sys", strings.ReplaceAll(s.Key, ".", "/")))
				if got := strings.Join(strings.Fields(string(raw)), " "); err != nil || got != s.Value {
					t.Errorf("%s: %s is %q, %v; want %q", n.NetNS, s.Key, got, err, s.Value)
				}
			}
			for _, f := range n.Interfaces {
				for _, key := range []string{"accept_redirects", "send_redirects", "rp_filter"} {
					raw, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + f.Name + "/" + key)
					if err != nil || string(raw) != "0\n" {
						t.Errorf("%s: %s of %s is %q, %v", n.NetNS, key, f.Name, raw, err)
					}
				}
			}
			return nil
		})
	}
}

func TestSameAddressesSideBySide(t *testing.T) {
	one, two := up(t, "one"), up(t, "two")
	one.serve("app.b", "10.20.0.11:53")
	one.wantAnswer("web.a", "10.20.0.11:53", "203.0.113.11")
	if got, err := two.ask("web.a", "10.20.0.11:53", 0); err == nil {
		t.Errorf("the other copy answered: %q", got)
	}
	if err := Remove(two.options); err != nil {
		t.Fatal(err)
	}
	one.wantAnswer("web.a", "10.20.0.11:53", "203.0.113.11")
}

// hops lists who reports that a packet's time ran out, until the end answers.
func (l *lab) hops(node, addr string) []string {
	l.Helper()
	var hops []string
	for ttl := 1; ttl < 6; ttl++ {
		hop := ""
		l.in(node, func() error {
			c, err := net.Dial("udp", addr)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := setTTL(c.(*net.UDPConn), ttl); err != nil {
				return err
			}
			if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				return err
			}
			if _, err := c.Read(make([]byte, 100)); err == nil {
				return nil // the end
			}
			hop, err = reporter(c.(*net.UDPConn))
			return err
		})
		if hop == "" {
			return hops
		}
		hops = append(hops, hop)
	}
	return hops
}

// reporter reads a socket's error queue, ip(7) IP_RECVERR: the address that
// follows struct sock_extended_err.
func reporter(c *net.UDPConn) (string, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return "", err
	}
	hop := "nobody"
	var read error
	err = raw.Control(func(fd uintptr) {
		oob := make([]byte, 512)
		_, n, _, _, err := unix.Recvmsg(int(fd), make([]byte, 100), oob, unix.MSG_ERRQUEUE)
		if err != nil {
			read = err
			return
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil {
			read = err
			return
		}
		for _, m := range msgs {
			if m.Header.Type != unix.IP_RECVERR && m.Header.Type != unix.IPV6_RECVERR || len(m.Data) < 32 {
				continue
			}
			from := m.Data[16:] // sockaddr_in or sockaddr_in6
			if from[0] == unix.AF_INET {
				hop = netip.AddrFrom4([4]byte(from[4:8])).String()
			} else if len(from) >= 24 {
				hop = netip.AddrFrom16([16]byte(from[8:24])).Unmap().String()
			}
		}
	})
	if err == nil {
		err = read
	}
	return hop, err
}
