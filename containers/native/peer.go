package native

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// PeerIsRoot tells whether the process at the other end of a unix socket was
// the machine's root when it connected (unix(7), SO_PEERCRED). Root of a
// container, which could reach the socket through a volume, has the same user
// id and another pid namespace than ours.
func PeerIsRoot(conn syscall.Conn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	root := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		root = err == nil && cred.Uid == 0 && sharesPIDs(int(cred.Pid)) && peerLives(int(fd))
	})
	return err == nil && root
}

// sharesPIDs tells whether a process is in this one's pid namespace.
func sharesPIDs(pid int) bool {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil || pid <= 0 {
		return false
	}
	theirs, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/pid")
	return err == nil && own == theirs
}

// peerLives tells whether the one who connected still has the pid that was
// looked at. Before Linux 6.5 nothing tells.
func peerLives(socket int) bool {
	pidfd, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		return err == unix.ENOPROTOOPT
	}
	defer closeFD(pidfd)
	ended, err := hasEnded(pidfd)
	return err == nil && !ended
}
