package backbone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// SocketName is where a running backbone takes another keeper's connection: an
// abstract stream socket (unix(7)), that is, one of the backbone's network
// namespace, which nothing outside of it can reach or occupy.
const SocketName = "@platelayer-backbone"

const (
	// maxPending bounds the connections that have not brought a configuration;
	// others wait in the kernel's queue.
	maxPending = 16
	// introTime is how long they may take for it.
	introTime = 5 * time.Second
)

func openDoor(name string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot wait for keepers on %q: %w", name, err)
	}
	return l, nil
}

// admit takes keepers' connections until door closes.
func (b *backbone) admit(ctx context.Context, door *net.UnixListener) {
	pending := make(chan struct{}, maxPending)
	for {
		select {
		case pending <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := door.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			<-pending
			time.Sleep(10 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		if err := checkPeer(conn); err != nil {
			b.logf("refused a keeper's connection: %v", err)
			conn.Close()
			<-pending
			continue
		}
		b.server.tasks.Go(func() {
			_ = conn.SetReadDeadline(time.Now().Add(introTime))
			b.attend(ctx, newSession(pipeOf(conn), &b.shelf, b.server), func() {
				_ = conn.SetReadDeadline(time.Time{})
				<-pending
			})
		})
	}
}

// checkPeer lets root in, as the backbone's user namespace sees it. The process
// is not looked at: it is outside of the backbone's PID namespace.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(cerr, err); err != nil {
		return err
	}
	if cred.Uid != 0 {
		return fmt.Errorf("it comes from user %d", cred.Uid)
	}
	return nil
}
