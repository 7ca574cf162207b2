package native

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// PeerIsRoot tells whether the process at the other end of a unix socket was
// root's when it connected (unix(7), SO_PEERCRED).
func PeerIsRoot(conn syscall.Conn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	root := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		root = err == nil && cred.Uid == 0
	})
	return err == nil && root
}
