package backbone

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcpPair is the two ends of a connection.
func tcpPair(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// TestMoverHoldsPipesForBytesAlone moves megabytes both ways, to a reader that
// takes its time, and has no pipe while nothing is said.
func TestMoverHoldsPipesForBytesAlone(t *testing.T) {
	before := descriptors(t)
	m := newMover()
	m.few = 0
	client, a := tcpPair(t)
	b, station := tcpPair(t)
	done := make(chan bool)
	go func() {
		m.join(a, b)
		close(done)
	}()
	ask := func(text string) {
		t.Helper()
		if _, err := io.WriteString(client, text); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(station, got); err != nil || string(got) != text {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	ask("x")
	held := func() int {
		m.close() // those for others
		return descriptors(t) - before - 4
	}
	n := held()
	for deadline := time.Now().Add(time.Minute); n > 0 && time.Now().Before(deadline); n = held() {
		time.Sleep(time.Millisecond) // the byte arrives before its pipe is given back
	}
	if n > 0 {
		t.Errorf("an idle connection has %d descriptors beside its sockets", n)
	}
	sent := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(sent)
	go func() {
		_, _ = client.Write(sent)
		_ = client.CloseWrite()
	}()
	got, err := io.ReadAll(slowReader{station})
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes came: %v", len(got), len(sent), err)
	}
	// The other direction goes on.
	if _, err := station.Write(sent); err != nil {
		t.Fatal(err)
	}
	_ = station.CloseWrite()
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes came back: %v", len(got), len(sent), err)
	}
	<-done
	m.close()
	if m.pipes != 0 {
		t.Errorf("%d pipes are left", m.pipes)
	}
	if n := descriptors(t); n > before+2 {
		t.Errorf("%d descriptors are left, of two sockets", n-before)
	}
}

type slowReader struct{ r io.Reader }

func (s slowReader) Read(b []byte) (int, error) { return s.r.Read(b[:min(len(b), 5000)]) }

// TestMoverWithoutDescriptors moves the bytes itself where there is none for a
// pipe.
func TestMoverWithoutDescriptors(t *testing.T) {
	m := newMover()
	client, a := tcpPair(t)
	b, station := tcpPair(t)
	go m.join(a, b)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	sent := bytes.Repeat([]byte("all aboard "), 1<<18)
	go func() {
		_, _ = client.Write(sent)
		_ = client.CloseWrite()
	}()
	got, err := io.ReadAll(station)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came: %v", len(got), len(sent), err)
	}
	if len(m.idle) > 0 {
		t.Error("there was a pipe")
	}
	reset(station)
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset the other side reads %v", err)
	}
}
