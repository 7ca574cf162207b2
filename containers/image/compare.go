package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// comparison compares a layer's tree with one that was just unpacked: types,
// modes, owners, sizes, times of change, extended attributes, content and hard
// links of all that is in either. Times of access and holes may differ.
type comparison struct {
	ctx    context.Context
	differ func(name, how string)
	here   map[uint64]uint64 // inodes of files with several names: the right one's to the other's
	there  map[uint64]uint64 // the other way
	a, b   []byte
}

// compareTrees calls differ for each difference between the tree that is right
// and the other.
func compareTrees(ctx context.Context, right, other string, differ func(name, how string)) error {
	c := &comparison{ctx: ctx, differ: differ, here: map[uint64]uint64{}, there: map[uint64]uint64{}, a: make([]byte, 128<<10), b: make([]byte, 128<<10)}
	a, err := openTree(right)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := openTree(other)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		differ(".", "is missing")
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Close()
	var as, bs unix.Stat_t
	if err := errors.Join(unix.Fstat(int(a.Fd()), &as), unix.Fstat(int(b.Fd()), &bs)); err != nil {
		return err
	}
	if err := c.attributes(".", procPath(a, ""), procPath(b, ""), &as, &bs); err != nil {
		return err
	}
	return c.folders(".", a, b)
}

func openTree(dir string) (*os.File, error) {
	return os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// procPath leads to an entry of an open folder however long its own path is.
func procPath(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
}

func (c *comparison) folders(name string, a, b *os.File) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	right, err := a.Readdirnames(-1)
	if err != nil {
		return err
	}
	other, err := b.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(right)
	slices.Sort(other)
	for len(right) > 0 || len(other) > 0 {
		switch {
		case len(other) == 0 || len(right) > 0 && right[0] < other[0]:
			c.differ(path.Join(name, right[0]), "is missing")
			right = right[1:]
		case len(right) == 0 || other[0] < right[0]:
			c.differ(path.Join(name, other[0]), "is there and should not be")
			other = other[1:]
		default:
			if err := c.entry(path.Join(name, right[0]), right[0], a, b); err != nil {
				return fmt.Errorf("cannot compare %q: %w", path.Join(name, right[0]), err)
			}
			right, other = right[1:], other[1:]
		}
	}
	return nil
}

func (c *comparison) entry(name, base string, a, b *os.File) error {
	var as, bs unix.Stat_t
	if err := errors.Join(unix.Fstatat(int(a.Fd()), base, &as, unix.AT_SYMLINK_NOFOLLOW), unix.Fstatat(int(b.Fd()), base, &bs, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return err
	}
	if as.Mode&unix.S_IFMT != bs.Mode&unix.S_IFMT {
		c.differ(name, fmt.Sprintf("is a %s instead of a %s", kindOf(&bs), kindOf(&as)))
		return nil
	}
	if err := c.attributes(name, procPath(a, base), procPath(b, base), &as, &bs); err != nil {
		return err
	}
	switch as.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.inside(base, a, b, func(a, b *os.File) error { return c.folders(name, a, b) })
	case unix.S_IFLNK:
		right, err := os.Readlink(procPath(a, base))
		if err != nil {
			return err
		}
		if got, err := os.Readlink(procPath(b, base)); err != nil || got != right {
			c.differ(name, fmt.Sprintf("leads to %q instead of %q", got, right))
			return err
		}
	case unix.S_IFREG:
		return c.file(name, base, a, b, &as, &bs)
	}
	return nil
}

func (c *comparison) file(name, base string, a, b *os.File, as, bs *unix.Stat_t) error {
	if as.Nlink > 1 || bs.Nlink > 1 {
		ino, seen := c.here[as.Ino]
		back, taken := c.there[bs.Ino]
		if seen != taken || seen && (ino != bs.Ino || back != as.Ino) {
			c.differ(name, "is a hard link to another file than it should be, or to none")
			return nil
		}
		if seen { // compared under another name
			return nil
		}
		c.here[as.Ino], c.there[bs.Ino] = bs.Ino, as.Ino
	}
	if as.Size != bs.Size {
		return nil // told already
	}
	return c.inside(base, a, b, func(a, b *os.File) error {
		for {
			if c.ctx.Err() != nil {
				return context.Cause(c.ctx)
			}
			n, err := io.ReadFull(a, c.a)
			m, err2 := io.ReadFull(b, c.b)
			if n != m || !bytes.Equal(c.a[:n], c.b[:m]) {
				c.differ(name, "has other content")
				return nil
			}
			for _, err := range []error{err, err2} {
				if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
					return err
				}
			}
			if err != nil {
				return nil
			}
		}
	})
}

// inside opens an entry of both.
func (c *comparison) inside(base string, a, b *os.File, do func(a, b *os.File) error) error {
	var in [2]*os.File
	for n, dir := range []*os.File{a, b} {
		fd, err := openat2(int(dir.Fd()), base, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC})
		if err != nil {
			return err
		}
		in[n] = os.NewFile(uintptr(fd), base)
		defer in[n].Close()
	}
	return do(in[0], in[1])
}

// attributes compares what the inodes say. The paths end at the entries and
// aren't followed there, except at the roots.
func (c *comparison) attributes(name, a, b string, as, bs *unix.Stat_t) error {
	if as.Mode != bs.Mode {
		c.differ(name, fmt.Sprintf("has the mode %04o instead of %04o", bs.Mode&0o7777, as.Mode&0o7777))
	}
	if as.Uid != bs.Uid || as.Gid != bs.Gid {
		c.differ(name, fmt.Sprintf("belongs to %d:%d instead of %d:%d", bs.Uid, bs.Gid, as.Uid, as.Gid))
	}
	if as.Size != bs.Size && as.Mode&unix.S_IFMT == unix.S_IFREG {
		c.differ(name, fmt.Sprintf("has %d bytes instead of %d", bs.Size, as.Size))
	}
	if as.Mtim != bs.Mtim {
		c.differ(name, fmt.Sprintf("was changed at %s instead of %s", moment(bs.Mtim), moment(as.Mtim)))
	}
	if as.Rdev != bs.Rdev {
		c.differ(name, "is another device")
	}
	right, err := xattrsOf(a)
	if err != nil {
		return err
	}
	other, err := xattrsOf(b)
	if err != nil {
		return err
	}
	for key, value := range right {
		if got, ok := other[key]; !ok {
			c.differ(name, "lacks the attribute "+key)
		} else if got != value {
			c.differ(name, "has another attribute "+key)
		}
	}
	for key := range other {
		if _, ok := right[key]; !ok {
			c.differ(name, "has the attribute "+key+", which it should not")
		}
	}
	return nil
}

func moment(t unix.Timespec) string {
	return time.Unix(t.Unix()).UTC().Format(time.RFC3339Nano)
}

func kindOf(st *unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "folder"
	case unix.S_IFLNK:
		return "link"
	case unix.S_IFREG:
		return "file"
	case unix.S_IFIFO:
		return "FIFO"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			return "whiteout"
		}
	}
	return "device"
}

func xattrsOf(path string) (map[string]string, error) {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err == unix.ENOTSUP {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list its attributes: %w", err)
	}
	if n == 0 {
		return nil, nil
	}
	all := map[string]string{}
	for key := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, key, value)
		if err != nil {
			return nil, fmt.Errorf("cannot read its attribute %s: %w", key, err)
		}
		all[key] = string(value[:n])
	}
	return all, nil
}
