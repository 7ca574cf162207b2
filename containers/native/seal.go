package native

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// copyUpSealed copies the sealed paths into the writable layer, so that nothing
// done to a lower folder can follow the check: files and links by copying them
// up, folders by replacing them with new ones that hold the same and hide the
// lower one. It runs before volumes are mounted: what lies in those is live by
// the user's wish. What is missing is left to the check.
func (c *container) copyUpSealed() error {
	s := sealer{c: c, root: int(c.root.Fd()), done: map[string]bool{}}
	for _, p := range c.spec.Sealed {
		if err := s.copy(p); err != nil {
			return fmt.Errorf("cannot copy the sealed path %s: %w", p, err)
		}
	}
	return nil
}

// sealer copies the sealed paths of one root.
type sealer struct {
	c    *container
	root int
	done map[string]bool // by path without links; links may form loops
}

// copy copies what a path leads to, and every link on the way.
func (s *sealer) copy(name string) error {
	name, err := s.resolve(name)
	if err != nil || s.done[name] {
		return ignoreMissing(err)
	}
	s.done[name] = true
	dir, base := splitPath(name)
	fd, err := openIn(s.root, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return ignoreMissing(err)
	}
	defer closeFD(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st); err != nil {
		return err
	}
	if !s.c.mounts[st.Mnt_id] {
		return nil
	}
	kind := uint32(st.Mode) & unix.S_IFMT
	switch {
	case kind == unix.S_IFREG:
		return s.copyFile(name, uint32(st.Mode))
	case kind != unix.S_IFDIR:
		return nil
	case st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0:
		return s.copyBelow(name) // the root of a layer can't be replaced
	}
	parent, err := openIn(s.root, dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer closeFD(parent)
	return s.replace(parent, base, name)
}

// resolve gives the path without links and copies those it meets.
func (s *sealer) resolve(name string) (string, error) {
	at, rest := "/", path.Clean("/" + name)[1:]
	for links := 0; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		next := path.Join(at, part)
		parent, err := openIn(s.root, at, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return "", err
		}
		var buffer [unix.PathMax]byte
		n, err := unix.Readlinkat(parent, part, buffer[:])
		if err == nil {
			if links++; links > 40 { // as the kernel's own limit, path_resolution(7)
				err = unix.ELOOP
			} else {
				err = s.copyLink(parent, part)
			}
		}
		closeFD(parent)
		if err == unix.EINVAL { // not a link
			at = next
			continue
		}
		if err != nil {
			return "", &os.PathError{Op: "follow", Path: next, Err: err}
		}
		target := string(buffer[:n])
		if !path.IsAbs(target) {
			target = path.Join(at, target)
		}
		at, rest = "/", strings.TrimPrefix(path.Join(path.Clean("/"+target), rest), "/")
	}
	return at, nil
}

// copyFile sets the mode that a file has, which copies it up and changes
// nothing else but its ctime; chown would clear set-id bits.
func (s *sealer) copyFile(name string, mode uint32) error {
	fd, err := openIn(s.root, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return unix.Fchmod(fd, mode&0o7777)
}

func (s *sealer) copyLink(dir int, name string) error {
	id, err := mountID(dir)
	if err != nil || !s.c.mounts[id] {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
}

// copyBelow copies all that is in a folder.
func (s *sealer) copyBelow(name string) error {
	fd, err := openIn(s.root, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := s.copy(path.Join(name, n)); err != nil {
			return err
		}
	}
	return nil
}

// replace puts a new folder with the same content in a folder's place. An
// overlay makes a new folder over a lower one opaque: nothing of the lower one
// shows any more (Documentation/filesystems/overlayfs.rst).
func (s *sealer) replace(parent int, base, name string) error {
	old, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(old), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(old, &st); err != nil {
		return err
	}
	// An earlier run may have left or made any other name.
	fresh := ".sealed." + rand.Text()
	if err := unix.Mkdirat(parent, fresh, 0o700); err != nil {
		return err
	}
	into, err := unix.Openat(parent, fresh, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeFD(into)
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	var links []string
	for _, n := range names {
		below := path.Join(name, n)
		var entry unix.Stat_t
		if err := unix.Fstatat(old, n, &entry, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		switch entry.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			s.done[below] = true
			err = s.replace(old, n, below)
		case unix.S_IFLNK:
			links = append(links, below)
		}
		if err == nil {
			err = unix.Renameat(old, n, into, n)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", below, err)
		}
	}
	if err := errors.Join(unix.Fchown(into, int(st.Uid), int(st.Gid)), unix.Fchmod(into, st.Mode&0o7777)); err != nil {
		return err
	}
	if err := unix.Unlinkat(parent, base, unix.AT_REMOVEDIR); err != nil {
		return err
	}
	if err := unix.Renameat(parent, fresh, parent, base); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(parent, base, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	// What links in the folder lead to is checked with it.
	for _, l := range links {
		if err := s.copy(l); err != nil {
			return err
		}
	}
	return nil
}

func ignoreMissing(err error) error {
	for _, missing := range []error{os.ErrNotExist, unix.ENXIO, unix.ELOOP, unix.ENOTDIR} {
		if errors.Is(err, missing) {
			return nil
		}
	}
	return err
}
