package backbone

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"platelayer/netplan"
)

// TestShelf has a backbone hold one end of a pipe for keepers that end.
func TestShelf(t *testing.T) {
	s := start(t, netplan.DNS{})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if err := s.keeper.Hold("a.b.c", write); err != nil {
		t.Fatal(err)
	}
	write.Close()
	ended := func() bool {
		read.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := read.Read(make([]byte, 1))
		return err == io.EOF
	}
	if ended() {
		t.Fatal("the backbone does not hold the file")
	}

	// Another keeper finds it, as often as it asks.
	a := s.adopt(t, Config{DNS: listening(netplan.DNS{})})
	if _, err := a.keeper.Take(ctx, "nobody"); err == nil {
		t.Error("the backbone gives what nobody gave it")
	}
	for range 2 {
		f, err := a.keeper.Take(ctx, "a.b.c")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		f.Close()
		read.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadFull(read, make([]byte, 1)); err != nil {
			t.Fatalf("it is another file: %v", err)
		}
	}
	if ended() {
		t.Fatal("the backbone does not hold the file any more")
	}
	if err := a.keeper.Drop("a.b.c"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.keeper.Take(ctx, "a.b.c"); err == nil || !ended() {
		t.Errorf("what was dropped is still held (%v)", err)
	}
	a.cancel()
	<-a.end
	if _, err := a.keeper.Take(ctx, "a.b.c"); err == nil {
		t.Error("a keeper whose connection ended takes a file")
	}
}
