package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// streamPatience is how long a datagram may be on its way: what a busy machine
// delays is not lost.
const streamPatience = 10 * time.Second

// stream sends a numbered datagram each millisecond from one container to
// another, which sends it back.
type stream struct {
	from, to string
	near     *net.UDPConn // connected to far
	far      *net.UDPConn
	sent     atomic.Uint64
	stop     chan struct{}
	once     sync.Once
	sending  sync.WaitGroup
	mu       sync.Mutex
	back     map[uint64]bool
	refused  map[uint64]error // by the kernel, which is a loss too
	seen     map[uint64]bool  // by the far end
	when     []time.Time      // each was sent
}

// openStream begins a stream and returns when its first datagrams are back.
func openStream(from, to, address string) (*stream, error) {
	s := &stream{from: from, to: to, stop: make(chan struct{}), back: map[uint64]bool{}, refused: map[uint64]error{}, seen: map[uint64]bool{}}
	var err error
	if s.far, err = udpIn(to, func() (*net.UDPConn, error) {
		return net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(address)})
	}); err != nil {
		return nil, err
	}
	if s.near, err = udpIn(from, func() (*net.UDPConn, error) {
		return net.DialUDP("udp", nil, s.far.LocalAddr().(*net.UDPAddr))
	}); err != nil {
		s.far.Close()
		return nil, err
	}
	go s.reflect()
	go s.receive()
	s.sending.Go(s.send)
	if !s.await(func() bool { return s.returned() >= 20 }) {
		s.close()
		return nil, fmt.Errorf("%s: of %d datagrams %d came back", s, s.sent.Load(), s.returned())
	}
	return s, nil
}

func (s *stream) String() string { return s.from + " to " + s.to }

func (s *stream) send() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		n := s.sent.Load()
		now := time.Now()
		_, err := s.near.Write(binary.BigEndian.AppendUint64(nil, n))
		s.mu.Lock()
		s.when = append(s.when, now)
		if err != nil {
			s.refused[n] = err
		}
		s.mu.Unlock()
		s.sent.Add(1)
	}
}

func (s *stream) reflect() {
	buffer := make([]byte, 8)
	for {
		n, addr, err := s.far.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		_, err = s.far.WriteToUDPAddrPort(buffer[:n], addr)
		s.mu.Lock()
		s.seen[binary.BigEndian.Uint64(buffer)] = err == nil
		s.mu.Unlock()
	}
}

func (s *stream) receive() {
	buffer := make([]byte, 8)
	for {
		n, err := s.near.Read(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != len(buffer) {
			continue // the error is that of a datagram which does not come back
		}
		s.mu.Lock()
		s.back[binary.BigEndian.Uint64(buffer)] = true
		s.mu.Unlock()
	}
}

func (s *stream) returned() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.back))
}

// losses tells of each datagram that never came back when it was sent and where
// it was last seen.
func (s *stream) losses() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for n, at := range s.when {
		if n := uint64(n); !s.back[n] {
			fmt.Fprintf(&b, "%d, sent after %v (%s), by the far end: %v, refused: %v\n", n, at.Sub(s.when[0]), at.Format("05.000000"), s.seen[n], s.refused[n])
		}
	}
	return b.String()
}

// await polls until the condition is met, and tells whether it was.
func (s *stream) await(condition func() bool) bool {
	for deadline := time.Now().Add(streamPatience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// awaitSent waits until n more datagrams have been sent.
func (s *stream) awaitSent(n uint64) {
	until := s.sent.Load() + n
	s.await(func() bool { return s.sent.Load() >= until })
}

// overtaken waits until something that is sent from now on has come back, and
// tells how many sent before have not.
func (s *stream) overtaken() (missing uint64) {
	next := s.sent.Load()
	s.await(func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for n := next; n < s.sent.Load(); n++ {
			if s.back[n] {
				return true
			}
		}
		return false
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range next {
		if !s.back[n] {
			missing++
		}
	}
	return missing
}

// end stops sending and tells how many of all datagrams never came back.
func (s *stream) end() (sent, lost uint64) {
	s.once.Do(func() { close(s.stop) })
	s.sending.Wait()
	sent = s.sent.Load()
	s.await(func() bool { return s.returned() == sent })
	s.close()
	return sent, sent - s.returned()
}

func (s *stream) close() {
	s.once.Do(func() { close(s.stop) })
	s.sending.Wait()
	s.near.Close()
	s.far.Close()
}

// udpIn opens a socket in a container's network namespace, with room for what
// comes while this process does not get a processor.
func udpIn(container string, open func() (*net.UDPConn, error)) (*net.UDPConn, error) {
	const room = 16 << 20 // bytes
	var conn *net.UDPConn
	err := inNetNS(container, func() (err error) {
		conn, err = open()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open a socket in %q: %w", container, err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		if controlErr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room)
		}); controlErr != nil {
			err = controlErr
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot enlarge a socket's buffer: %w", err)
	}
	return conn, nil
}

// inNetNS runs f in a network namespace, on a thread that is thrown away. The
// main thread cannot be: where the goroutine lands on it, another one does the
// work.
func inNetNS(name string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- inNetNS(name, f)
			runtime.UnlockOSThread()
			return
		}
		fd, err := unix.Open("/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- err
			return
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}
