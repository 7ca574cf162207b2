package backbone

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// servedPort serves a socket that listens on loopback, which leads to station.
func servedPort(t *testing.T, network string, places, share int, station netip.AddrPort) (*ports, string) {
	ctx, cancel := context.WithCancel(t.Context())
	held, tasks := new(shelf), new(sync.WaitGroup)
	moving := newRelays(ctx, tasks)
	p := newPorts(held, t.Logf, moving)
	p.connections = newCrowd(places, share)
	t.Cleanup(func() {
		cancel()
		p.close()
		tasks.Wait()
		moving.pipes.close()
	})
	var f *os.File
	var at string
	if network == "udp" {
		c, err := net.ListenPacket(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		at = c.LocalAddr().String()
		if f, err = c.(*net.UDPConn).File(); err != nil {
			t.Fatal(err)
		}
		if err := unix.SetsockoptInt(int(f.Fd()), unix.SOL_IP, unix.IP_PKTINFO, 1); err != nil {
			t.Fatal(err)
		}
	} else {
		l, err := net.Listen(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		at = l.Addr().String()
		if f, err = l.(*net.TCPListener).File(); err != nil {
			t.Fatal(err)
		}
	}
	held.serve(nil, &message{Type: msgHold, Name: "p", file: f})
	p.set(&Config{Ports: []Port{{Name: "p", Network: network, To: []netip.AddrPort{station}}}})
	return p, at
}

// stationTCP serves each connection until the test ends.
func stationTCP(t *testing.T, serve func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go acceptAll(l.(*net.TCPListener), func(c *net.TCPConn) {
		go func() {
			defer c.Close()
			serve(c)
		}()
	})
	return addrPort(l.Addr())
}

// stationUDP answers each datagram until the test ends.
func stationUDP(t *testing.T, answer func(said []byte, from net.Addr) []byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo(answer(buf[:n], from), from)
		}
	}()
	return addrPort(c.LocalAddr())
}

// TestPortCarries moves more than any buffer holds both ways, each side's end
// by itself, over a port that is full and then taken away.
func TestPortCarries(t *testing.T) {
	p, at := servedPort(t, "tcp", 1, 1, stationTCP(t, func(c net.Conn) { // answers when it has all
		all, _ := io.ReadAll(c)
		c.Write(bytes.ToUpper(all))
	}))
	said := strings.Repeat("all aboard ", 1<<20)
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))

	// There is a place for one.
	if second, err := net.Dial("tcp", at); err == nil {
		second.SetDeadline(time.Now().Add(time.Minute))
		if n, err := second.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("a connection too many: %d bytes, error %v", n, err)
		}
		second.Close()
	}
	// A port that is no longer wanted listens no more; its connection goes on.
	p.held.serve(nil, &message{Type: msgDrop, Name: "p"})
	p.set(&Config{})
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("it still listens")
	}
	if _, err := io.WriteString(c, said); err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != strings.ToUpper(said) {
		t.Fatalf("got %d bytes of %d, error %v", len(got), len(said), err)
	}
}

// TestPortShares: a client has half of the places, and what it ends is free again.
func TestPortShares(t *testing.T) {
	_, at := servedPort(t, "tcp", 4, 2, stationTCP(t, func(c net.Conn) { io.Copy(c, c) }))
	echoed := func(from string) (net.Conn, error) {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", at)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(c, "x")
		_, err = c.Read(make([]byte, 1))
		return c, err
	}
	var all []net.Conn
	for _, from := range []string{"127.0.0.2", "127.0.0.2", "127.0.0.3"} {
		c, err := echoed(from)
		if err != nil {
			t.Fatalf("%s has no place: %v", from, err)
		}
		all = append(all, c)
	}
	if _, err := echoed("127.0.0.2"); err == nil {
		t.Error("it has a place too many")
	}
	reset(all[0].(*net.TCPConn))
	err := errors.New("never")
	for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); {
		_, err = echoed("127.0.0.2")
	}
	if err != nil {
		t.Errorf("there is no place again: %v", err)
	}
}

// TestPortDatagramsMakeRoom: the idle one of two clients makes room for a third,
// and comes back.
func TestPortDatagramsMakeRoom(t *testing.T) {
	p, at := servedPort(t, "udp", 1, 1, stationUDP(t, func(said []byte, _ net.Addr) []byte { return said }))
	for len(p.datagrams) < cap(p.datagrams)-1 {
		p.datagrams <- struct{}{}
	}
	say := func(c net.Conn, wait time.Duration) error {
		c.SetDeadline(time.Now().Add(wait))
		io.WriteString(c, "x")
		_, err := c.Read(make([]byte, 9))
		return err
	}
	var clients []net.Conn
	for range 2 {
		c, err := net.Dial("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	if err := say(clients[0], time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{1, 0} { // as soon as the other has been idle
		err := errors.New("never")
		for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); {
			err = say(clients[i], flowSpare/10)
		}
		if err != nil {
			t.Errorf("client %d gets no place: %v", i, err)
		}
	}
	if n := len(p.datagrams); n != cap(p.datagrams) {
		t.Errorf("%d of %d places are taken", n, cap(p.datagrams))
	}
}

// TestPortDatagrams has two clients, whom the station sees apart.
func TestPortDatagrams(t *testing.T) {
	_, at := servedPort(t, "udp", 1, 1, stationUDP(t, func(said []byte, from net.Addr) []byte { return append([]byte(from.String()+" "), said...) }))
	seen := map[string]bool{}
	for _, word := range []string{"one", "two"} {
		c, err := net.Dial("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var last string
		for range 2 {
			c.SetDeadline(time.Now().Add(time.Minute))
			io.WriteString(c, word)
			buf := make([]byte, 1000)
			n, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			from, said, _ := strings.Cut(string(buf[:n]), " ")
			if said != word || last != "" && from != last {
				t.Errorf("%q of %s, before %s", said, from, last)
			}
			last = from
		}
		seen[last] = true
	}
	if len(seen) != 2 {
		t.Errorf("the station saw %v", seen)
	}
}
