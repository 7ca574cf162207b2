package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// file makes a regular file; where its content is zero it has holes.
func (u *unpacker) file(dir int, base string, h *tar.Header, content io.Reader) error {
	if h.Size < 0 || h.Size > u.limits.Bytes {
		return bad("it is said to hold %d bytes", h.Size)
	}
	fd := -1
	err := place(dir, base, func() (err error) {
		fd, err = unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := u.fill(fd, h.Size, content); err != nil {
		return err
	}
	return setAttributes(fd, h)
}

func (u *unpacker) fill(fd int, size int64, content io.Reader) error {
	const block = 4096
	var zeros [block]byte
	at, written := int64(0), int64(0)
	for at < size {
		n, err := io.ReadFull(content, u.buffer[:min(int64(len(u.buffer)), size-at)])
		var wrong *BadImageError
		switch {
		case errors.As(err, &wrong), errors.Is(err, errStopped):
			return err
		case err != nil:
			return bad("the layer ends within it: %v", err)
		}
		for run := u.buffer[:n]; len(run) > 0; {
			skip := 0
			for skip < len(run) && bytes.Equal(run[skip:min(skip+block, len(run))], zeros[:min(block, len(run)-skip)]) {
				skip = min(skip+block, len(run))
			}
			at, run = at+int64(skip), run[skip:]
			end := 0
			for end < len(run) && !bytes.Equal(run[end:min(end+block, len(run))], zeros[:min(block, len(run)-end)]) {
				end = min(end+block, len(run))
			}
			if err := writeAt(fd, run[:end], at); err != nil {
				return err
			}
			at, run = at+int64(end), run[end:]
			if end > 0 {
				written = at
			}
		}
	}
	if written < size {
		return unix.Ftruncate(fd, size)
	}
	return nil
}

func writeAt(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot write: %w", err)
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// hardLink gives a file of the image a second name. One of a layer below is
// copied into this one first, under both.
func (u *unpacker) hardLink(dir int, name string, h *tar.Header) error {
	base := path.Base(name)
	target, err := within(h.Linkname)
	if err != nil {
		return fmt.Errorf("its target: %w", err)
	}
	from, err := openFolder(u.root, path.Dir(target))
	if err == nil {
		defer unix.Close(from)
		var st unix.Stat_t
		if err = unix.Fstatat(from, path.Base(target), &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
			switch st.Mode & unix.S_IFMT {
			case unix.S_IFDIR:
				return bad("it is a hard link to the folder %q", shorten(target))
			case unix.S_IFCHR:
				return bad("it is a hard link to %q, which the layer deletes", shorten(target))
			}
			return place(dir, base, func() error { return unix.Linkat(from, path.Base(target), dir, base, 0) })
		}
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := u.copyUp(target); err != nil {
		return err
	}
	// Making the target's folders may have closed the entry's own.
	if dir, err = u.enter(path.Dir(name)); err != nil {
		return err
	}
	return place(dir, base, func() error { return u.linkInside(target, dir, base) })
}

func (u *unpacker) linkInside(target string, dir int, base string) error {
	from, err := openFolder(u.root, path.Dir(target))
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return unix.Linkat(from, path.Base(target), dir, base, 0)
}

// copyUp brings a file of a layer below into this one.
func (u *unpacker) copyUp(name string) error {
	for _, below := range u.parents {
		from, err := openat2(below, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			break
		}
		defer unix.Close(from)
		var st unix.Stat_t
		if err := unix.Fstat(from, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			break
		}
		dir, err := u.enter(path.Dir(name))
		if err != nil {
			return err
		}
		return u.copyFile(from, &st, dir, path.Base(name))
	}
	return bad("it is a hard link to %q, which is not there", shorten(name))
}

func (u *unpacker) copyFile(from int, st *unix.Stat_t, dir int, base string) error {
	to, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	if err := u.fill(to, st.Size, fdReader(from)); err != nil {
		return err
	}
	return copyNodeAttributes(from, to, st)
}

type fdReader int

func (r fdReader) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(r), p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// copyNodeAttributes gives a file or folder what another of a layer has.
func copyNodeAttributes(from, to int, st *unix.Stat_t) error {
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	names, err := listAttributes(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(from, name, value)
		if err == nil && keptAttribute(name) {
			err = unix.Fsetxattr(to, name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("cannot copy the attribute %s: %w", name, err)
		}
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	return setTimes(to, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}

func listAttributes(fd int) ([]string, error) {
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, list)
	if err == unix.ENOTSUP {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(string(list[:n]), func(c rune) bool { return c == 0 }), nil
}

// keptAttribute: an image may not say what overlayfs is to make of its files.
func keptAttribute(name string) bool {
	return !strings.HasPrefix(name, "trusted.overlay.") && !strings.HasPrefix(name, "user.overlay.")
}

const tarAttribute = "SCHILY.xattr." // the PAX records of extended attributes, as GNU tar's

// attributesOf lists an entry's extended attributes, in order.
func attributesOf(h *tar.Header) (names []string, err error) {
	for key := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, tarAttribute)
		if !ok {
			continue
		}
		if !keptAttribute(name) {
			return nil, bad("it has the attribute %q, which is overlayfs's own", shorten(name))
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// lostAttribute tells which failure leaves an attribute out: the machine's file
// system has none of its kind, or its security module doesn't let it be set.
func lostAttribute(name string, err error) bool {
	return err == unix.ENOTSUP && name != "security.capability" || strings.HasPrefix(name, "security.") && name != "security.capability" && (err == unix.EPERM || err == unix.EINVAL) ||
		strings.HasPrefix(name, "user.") && err == unix.EPERM // of a node that is neither file nor folder
}

// checkOwner: -1 would leave the owner as it is (chown(2)).
func checkOwner(h *tar.Header) error {
	for _, id := range []int{h.Uid, h.Gid} {
		if id < 0 || int64(id) >= 1<<32-1 {
			return bad("its owner is %d:%d, which no file can have", h.Uid, h.Gid)
		}
	}
	return nil
}

// setAttributes gives an open file or folder what its entry says: the owner
// first, as a change of it takes set-ID bits and capabilities away.
func setAttributes(fd int, h *tar.Header) error {
	if err := checkOwner(h); err != nil {
		return err
	}
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return fmt.Errorf("cannot set the owner %d:%d: %w", h.Uid, h.Gid, err)
	}
	names, err := attributesOf(h)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := unix.Fsetxattr(fd, name, []byte(h.PAXRecords[tarAttribute+name]), 0); err != nil && !lostAttribute(name, err) {
			if name == "security.capability" {
				err = unfit("files' capabilities", err)
			}
			return fmt.Errorf("cannot set the attribute %q: %w", shorten(name), err)
		}
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
		return fmt.Errorf("cannot set the mode: %w", err)
	}
	return setTimes(fd, h.AccessTime, h.ModTime)
}

// nodeAttributes does it for what can't be opened.
func (u *unpacker) nodeAttributes(dir int, base string, h *tar.Header) error {
	if err := checkOwner(h); err != nil {
		return err
	}
	if err := unix.Fchownat(dir, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("cannot set the owner %d:%d: %w", h.Uid, h.Gid, err)
	}
	names, err := attributesOf(h)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Lsetxattr("/proc/self/fd/"+strconv.Itoa(dir)+"/"+base, name, []byte(h.PAXRecords[tarAttribute+name]), 0)
		if err != nil && !lostAttribute(name, err) {
			return fmt.Errorf("cannot set the attribute %q: %w", shorten(name), err)
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(dir, base, uint32(h.Mode)&0o7777, 0); err != nil {
			return fmt.Errorf("cannot set the mode: %w", err)
		}
	}
	times, err := timesOf(h.AccessTime, h.ModTime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, base, times, unix.AT_SYMLINK_NOFOLLOW)
}

func (u *unpacker) folderAttributes(fd int, name string, h *tar.Header) error {
	if err := setAttributes(fd, h); err != nil {
		return err
	}
	u.folders = append(u.folders, folderTimes{name, h.AccessTime, h.ModTime})
	return nil
}

// setTimes sets those of the folders, as nothing is written to them any more.
func (u *unpacker) setTimes() error {
	for _, f := range u.folders {
		fd, err := openFolder(u.root, f.name)
		if err != nil {
			return err
		}
		err = setTimes(fd, f.atime, f.mtime)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("cannot set the time of %q: %w", shorten(f.name), err)
		}
	}
	return nil
}

// setTimes uses the descriptor alone.
func setTimes(fd int, atime, mtime time.Time) error {
	times, err := timesOf(atime, mtime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
}

// timesOf: an archive without access times has them zero.
func timesOf(atime, mtime time.Time) ([]unix.Timespec, error) {
	if mtime.IsZero() { // nobody says
		mtime = time.Unix(0, 0)
	}
	if atime.Before(mtime) {
		atime = mtime
	}
	var times []unix.Timespec
	for _, t := range []time.Time{atime, mtime} {
		ts, err := unix.TimeToTimespec(t)
		if err != nil {
			return nil, bad("its time is out of range")
		}
		times = append(times, ts)
	}
	return times, nil
}

// lstatBelow looks at a name without following a link of it.
func lstatBelow(dir int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := openat2(dir, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	err = unix.Fstat(fd, &st)
	return st, err
}
