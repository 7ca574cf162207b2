package backbone

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestIdleConnections: one that opens connections and says nothing, or half of
// a question, loses them as others come; what those ask is answered.
func TestIdleConnections(t *testing.T) {
	s := start(t, shop())
	dial := func(from string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
		c, err := d.DialContext(t.Context(), "tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	asker := &dns.Conn{Conn: dial("127.0.0.9")}
	ask := func() {
		t.Helper()
		_ = asker.SetDeadline(time.Now().Add(5 * time.Second))
		if err := asker.WriteMsg(new(dns.Msg).SetQuestion("lb.shop.example.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if r, err := asker.ReadMsg(); err != nil || len(r.Answer) == 0 {
			t.Fatalf("%v, %v", r, err)
		}
	}
	ask()
	var first net.Conn
	for i := range maxConns + 10 {
		c := dial("127.0.0.8")
		if first == nil {
			first = c
		}
		if i%2 == 0 {
			_, _ = c.Write([]byte{0, 30, 1})
		}
	}
	ask()
	other := dial("127.0.0.7")
	asker = &dns.Conn{Conn: other}
	ask()
	_ = first.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the oldest of too many connections: %v", err)
	}
	// A question of this length is none.
	long := dial("127.0.0.7")
	_, _ = long.Write([]byte{255, 255})
	_ = long.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := long.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a question of 65535 bytes: %v", err)
	}
}
