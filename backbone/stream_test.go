package backbone

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// moving are relays that end with the test.
func moving(t *testing.T) *relays {
	ctx, cancel := context.WithCancel(t.Context())
	r := newRelays(ctx, new(sync.WaitGroup))
	t.Cleanup(func() {
		cancel()
		r.tasks.Wait()
		r.pipes.close()
		if made, _ := count(r.pipes); made != 0 {
			t.Errorf("%d pipes are left", made)
		}
	})
	return r
}

// joined is a connection of two ends that a stream leads to each other.
func joined(t *testing.T, r *relays, before func(near, far *net.TCPConn)) (near, far *net.TCPConn) {
	near, a := connected(t)
	far, b := connected(t)
	before(near, far)
	r.tasks.Go(func() { r.join(a, b) })
	return near, far
}

func connected(t *testing.T) (one, other *net.TCPConn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{c, d} {
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(time.Minute))
		c.(*net.TCPConn).SetReadBuffer(256 << 10) // soon full
		c.(*net.TCPConn).SetWriteBuffer(256 << 10)
	}
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// TestStreamBothWays has both sides talk at once, more than all buffers hold,
// in parts from one byte to more than a buffer, and nobody listens until both
// can say no more.
func TestStreamBothWays(t *testing.T) {
	said := make([]byte, 8<<20)
	source := rand.NewChaCha8([32]byte{})
	source.Read(said)
	var talk sync.WaitGroup
	var total atomic.Int64
	say := func(c *net.TCPConn) {
		pick := rand.New(rand.NewPCG(1, 2))
		for rest := said; len(rest) > 0; {
			n := min(1+pick.IntN(1<<pick.IntN(20)), len(rest))
			if _, err := c.Write(rest[:n]); err != nil {
				t.Error(err)
				return
			}
			rest = rest[n:]
			total.Add(int64(n))
		}
		c.CloseWrite()
	}
	near, far := joined(t, moving(t), func(near, far *net.TCPConn) {
		if _, err := near.Write(said[:firstBuffer*2]); err != nil { // what is there at first
			t.Fatal(err)
		}
		said = said[firstBuffer*2:]
		talk.Go(func() { say(near) })
		talk.Go(func() { say(far) })
	})
	first := make([]byte, firstBuffer*2)
	if _, err := io.ReadFull(far, first); err != nil {
		t.Fatal(err)
	}
	for before := int64(-1); before != total.Load(); time.Sleep(20 * time.Millisecond) {
		before = total.Load()
	}
	for _, c := range []*net.TCPConn{near, far} {
		talk.Go(func() {
			got := sha256.New()
			n, err := io.Copy(got, c)
			if want := sha256.Sum256(said); err != nil || !bytes.Equal(got.Sum(nil), want[:]) {
				t.Errorf("got %d bytes of %d, error %v", n, len(said), err)
			}
		})
	}
	talk.Wait()
}

// TestStreamReset has one side break off.
func TestStreamReset(t *testing.T) {
	near, far := joined(t, moving(t), func(near, far *net.TCPConn) {})
	if _, err := near.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(far, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	reset(near)
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other side got %v", err)
	}
}
