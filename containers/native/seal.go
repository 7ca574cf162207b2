package native

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// copyUpSealed copies the sealed paths into the writable layer, so that an edit
// of a lower folder can't follow the check. What lies in a bind volume is live
// by the user's wish and stays as it is; so does what is missing, which the
// check reports.
func (c *container) copyUpSealed() error {
	for _, path := range c.spec.Sealed {
		if err := c.copyUpPath(path); err != nil {
			return fmt.Errorf("cannot copy the sealed path %s: %w", path, err)
		}
	}
	return nil
}

func (c *container) copyUpPath(path string) error {
	root := int(c.root.Fd())
	dir, name := splitPath(path)
	parent, err := openIn(root, dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return ignoreMissing(err)
	}
	defer closeFD(parent)
	if name != "" && name != ".." {
		// The link itself too, if it is one.
		var st unix.Stat_t
		err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			if err := c.copyUpLink(parent, name, &st); err != nil {
				return err
			}
		}
	}
	// Non-blocking, for a FIFO; not O_PATH, for fchmod.
	fd, err := openIn(root, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return ignoreMissing(err)
	}
	return c.copyUp(fd)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

// copyUp owns fd. Setting the mode that a file has copies it up and changes
// nothing else but its ctime; chown would clear set-id bits.
func (c *container) copyUp(fd int) error {
	f := os.NewFile(uintptr(fd), "sealed")
	defer f.Close()
	id, err := mountID(fd)
	if err != nil || !c.mounts[id] {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	if kind == unix.S_IFREG {
		return nil
	}
	entries, err := f.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.copyUpEntry(fd, e); err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	return nil
}

func (c *container) copyUpEntry(dir int, e os.DirEntry) error {
	switch {
	case e.Type()&os.ModeSymlink != 0:
		var st unix.Stat_t
		if err := unix.Fstatat(dir, e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return ignoreMissing(err)
		}
		return c.copyUpLink(dir, e.Name(), &st)
	case e.IsDir(), e.Type().IsRegular():
		fd, err := unix.Openat(dir, e.Name(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			return ignoreMissing(err)
		}
		return c.copyUp(fd)
	}
	return nil
}

func (c *container) copyUpLink(dir int, name string, st *unix.Stat_t) error {
	id, err := mountID(dir)
	if err != nil || !c.mounts[id] {
		return err
	}
	return unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
}
