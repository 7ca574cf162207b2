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

// TestPipesAreForBytesAlone moves megabytes both ways, to a reader that takes its
// time, and has no pipe while nothing is said.
func TestPipesAreForBytesAlone(t *testing.T) {
	r := moving(t)
	r.pipes.few = 0
	client, station := joined(t, r, func(near, far *net.TCPConn) {})
	pass := func(from, to net.Conn, sent []byte) {
		t.Helper()
		go from.Write(sent)
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(slowReader{to}, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("not all of %d bytes came: %v", len(sent), err)
		}
	}
	held := func() int {
		made, idle := count(r.pipes)
		return made - idle
	}
	pass(client, station, []byte("x"))
	if n, _ := count(r.pipes); n != 0 {
		t.Errorf("%d pipes are for one byte", n)
	}
	before := descriptors(t)
	sent := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(sent)
	for range 2 {
		pass(client, station, sent)
		pass(station, client, sent)
		if made, _ := count(r.pipes); made == 0 {
			t.Error("there was no pipe")
		}
		for deadline := time.Now().Add(10 * time.Second); held() > 0 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond) // the bytes arrive before their pipe is given back
		}
		if n := held(); n > 0 {
			t.Errorf("an idle connection has %d pipes", n)
		}
		r.pipes.close()
		if n := descriptors(t); n > before {
			t.Errorf("%d descriptors are left", n-before)
		}
	}
	// Who ends in the middle leaves none either.
	_ = station.SetReadBuffer(1 << 10)
	said := make(chan error, 1)
	go func() {
		_, err := client.Write(sent)
		said <- err
	}()
	for deadline := time.Now().Add(time.Minute); held() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	reset(station)
	if err := <-said; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset the other side says %v", err)
	}
}

func count(p *pipes) (made, idle int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made, len(p.idle)
}

type slowReader struct{ r io.Reader }

func (s slowReader) Read(b []byte) (int, error) { return s.r.Read(b[:min(len(b), 5000)]) }

// TestStreamWithoutDescriptors copies the bytes where there is none for a pipe.
func TestStreamWithoutDescriptors(t *testing.T) {
	r := moving(t)
	client, station := joined(t, r, func(near, far *net.TCPConn) {})
	first := make([]byte, 1)
	if _, err := client.Write(first); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(station, first); err != nil { // it is under way
		t.Fatal(err)
	}
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
	if made, _ := count(r.pipes); made > 0 {
		t.Error("there was a pipe")
	}
	reset(station)
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset the other side reads %v", err)
	}
}
