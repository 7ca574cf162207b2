package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// machineCommand: `machine` makes two namespaces of the test's own: $MACHINE
// stands for the machine, $OUTSIDE for what is outside, which has
// 198.51.100.7 and 2001:db8:9::7 (HTTP on port 80, where /slow waits for /go, and echo of UDP on port 7) and
// answers DNS on 198.51.100.53. It knows registry.example and *.cdn.example, both there, and says that
// machine.example and metadata.example are the machine's own.
func machineCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: machine")
	}
	// Not with the topology's name in it: `clean` looks for that.
	pid, script, _ := strings.Cut(strings.TrimPrefix(ts.Getenv("NAME"), "t"), "-")
	machine, outside := "machine-"+script+"-"+pid, "outside-"+script+"-"+pid
	ts.Setenv("MACHINE", "/run/netns/"+machine)
	ts.Setenv("OUTSIDE", "/run/netns/"+outside)
	ts.Defer(func() {
		for _, ns := range []string{machine, outside} {
			_ = exec.Command("ip", "netns", "del", ns).Run()
		}
	})
	for _, line := range []string{
		"netns add M", "netns add O", "-n M link set lo up", "-n O link set lo up",
		"-n M link add up0 type veth peer name in0 netns O", "-n M link set up0 up", "-n O link set in0 up",
		"-n M addr add 198.51.100.1/24 dev up0", "-n M addr add 2001:db8:9::1/64 dev up0 nodad",
		"-n O addr add 198.51.100.7/24 dev in0", "-n O addr add 198.51.100.53/24 dev in0", "-n O addr add 2001:db8:9::7/64 dev in0 nodad",
	} {
		words := strings.Fields(strings.NewReplacer("M", machine, "O", outside).Replace(line))
		if out, err := exec.Command("ip", words...).CombinedOutput(); err != nil {
			ts.Fatalf("ip %s: %v\n%s", line, err, out)
		}
	}
	var closers []interface{ Close() error }
	released := make(chan struct{})
	ts.Defer(func() {
		for _, c := range closers {
			c.Close()
		}
	})
	err := inNamespace("/run/netns/"+outside, func() error {
		for _, at := range []string{"198.51.100.7", "[2001:db8:9::7]"} {
			l, err := net.Listen("tcp", at+":80")
			if err != nil {
				return err
			}
			closers = append(closers, l)
			go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/slow":
					<-released
				case "/go":
					released <- struct{}{}
				}
				from := netip.MustParseAddrPort(r.RemoteAddr).Addr()
				fmt.Fprintf(w, "hello from outside, you are %s\n", from)
			}))
			u, err := net.ListenPacket("udp", at+":7")
			if err != nil {
				return err
			}
			closers = append(closers, u)
			go func() {
				buf := make([]byte, 2048)
				for {
					n, from, err := u.ReadFrom(buf)
					if err != nil {
						return
					}
					_, _ = u.WriteTo(buf[:n], from)
				}
			}()
		}
		u, err := net.ListenPacket("udp", "198.51.100.53:53")
		if err != nil {
			return err
		}
		closers = append(closers, u)
		go (&dns.Server{PacketConn: u, Handler: dns.HandlerFunc(answerOutside)}).ActivateAndServe()
		return nil
	})
	if err != nil {
		ts.Fatalf("cannot serve outside: %v", err)
	}
}

func answerOutside(w dns.ResponseWriter, q *dns.Msg) {
	r := new(dns.Msg)
	r.SetReply(q)
	name, address := q.Question[0].Name, net.IP(nil)
	switch lower := strings.ToLower(name); {
	case lower == "registry.example." || strings.HasSuffix(lower, ".cdn.example."):
		address = net.IPv4(198, 51, 100, 7)
	case lower == "machine.example.":
		address = net.IPv4(198, 51, 100, 1)
	case lower == "metadata.example.":
		address = net.IPv4(169, 254, 169, 254)
	}
	if address != nil && q.Question[0].Qtype == dns.TypeA {
		r.Answer = append(r.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: address})
	}
	_ = w.WriteMsg(r)
}

// inNamespace runs f on a thread there; sockets that it opens stay.
func inNamespace(path string, f func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and ends with it
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// sendCommand: `send NETNS NETWORK ADDRESS TEXT` sends a datagram or opens a
// connection from a namespace and prints the answer. With ! it must fail.
func sendCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 4 {
		ts.Fatalf("usage: send netns network address text")
	}
	got := ""
	err := inNamespace("/run/netns/"+args[0], func() error {
		c, err := net.DialTimeout(args[1], args[2], awaitAtMost)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte(args[3])); err != nil {
			return err
		}
		wait := awaitAtMost
		if neg {
			wait /= 10
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		buf := make([]byte, 2048)
		n, err := c.Read(buf)
		got = string(buf[:n])
		return err
	})
	if (err == nil) == neg || !neg && got != args[3] {
		ts.Fatalf("got %q, %v", got, err)
	}
}

// spoofCommand: `spoof NETNS NETWORK FROM ADDRESS` sends a datagram, or the first
// packet of a connection, under an address that is not the namespace's.
func spoofCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: spoof netns network from address")
	}
	err := inNamespace("/run/netns/"+args[0], func() error {
		d := net.Dialer{Timeout: awaitAtMost / 20, Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1) })
			return errors.Join(cerr, err)
		}}
		from := netip.AddrPortFrom(netip.MustParseAddr(args[2]), 0)
		if d.LocalAddr = net.UDPAddrFromAddrPort(from); args[1] == "tcp" {
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
		}
		c, err := d.Dial(args[1], args[3])
		if err != nil && args[1] == "tcp" {
			return nil // nobody can answer
		}
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("spoof"))
		return err
	})
	if err != nil {
		ts.Fatalf("%v", err)
	}
}
