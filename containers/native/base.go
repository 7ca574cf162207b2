package native

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The base is a mount namespace with one small read-only tmpfs as its root.
// Every container's mount namespace is a copy of it, as a copy costs about a
// microsecond for each mount seen, and gets the container's own root mounted
// over "/". The folders in it are mount points for the layers of that root and
// stay below it, out of reach.
type base struct {
	ns int // the namespace
	rw int // a writable mount of the same tmpfs
}

// Names in the base.
const (
	baseLower   = "/lower"    // a folder root's lower layer
	baseUsr     = "/usr"      // the machine's /usr
	baseEtc     = "/etc"      // the machine's /etc
	baseHideEtc = "/hide-etc" // a layer of whiteouts above it
	baseUpper   = "/upper"    // the writable layers
	baseFiles   = "/files"    // the files of a container
	baseEmpty   = "/empty"    // masks a folder
	baseNull    = "/null"     // masks a file
)

// newBase is called on a thread that is thrown away.
func newBase(t *thread) (*base, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("cannot unshare the mount namespace: %w", err)
	}
	// No mount of ours may propagate to the machine.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("cannot make the mounts private: %w", err)
	}
	fd, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID, option{"mode", "0755"}, option{"size", "16m"})
	if err != nil {
		return nil, err
	}
	defer closeFD(fd)
	for _, dir := range []string{baseLower, baseUsr, baseEtc, baseHideEtc, baseUpper, baseFiles, baseEmpty} {
		if err := unix.Mkdirat(fd, dir[1:], 0o755); err != nil {
			return nil, fmt.Errorf("cannot make %s in the base: %w", dir, err)
		}
	}
	if err := makeNull(fd); err != nil {
		return nil, err
	}
	// The machine's whole tree is left behind by mounting over its root,
	// entering the new one and letting go of the old.
	if err := attach(fd, "/"); err != nil {
		return nil, err
	}
	if err := unix.Fchdir(fd); err != nil {
		return nil, fmt.Errorf("cannot enter the base: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return nil, fmt.Errorf("cannot pivot into the base: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return nil, fmt.Errorf("cannot let go of the machine's mounts: %w", err)
	}
	b := &base{ns: -1, rw: -1}
	if b.rw, err = cloneMount(unix.AT_FDCWD, "/", false); err != nil {
		return nil, err
	}
	if err := setMount(fd, unix.MOUNT_ATTR_RDONLY, false); err != nil {
		b.close()
		return nil, err
	}
	if b.ns, err = t.openNS("mnt"); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// makeNull makes the null device, which masks files; where nodes can't be made
// an empty file does it.
func makeNull(dir int) error {
	err := unix.Mknodat(dir, baseNull[1:], unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	if err == unix.EPERM {
		err = unix.Mknodat(dir, baseNull[1:], unix.S_IFREG|0o444, 0)
	}
	if err != nil {
		return fmt.Errorf("cannot make the null device: %w", err)
	}
	return nil
}

func (b *base) close() {
	closeFD(b.ns)
	closeFD(b.rw)
}
