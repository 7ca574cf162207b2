package native

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filler copies a tree into an empty volume: owners, modes, times, extended
// attributes and links. Nothing is followed on either side; device nodes stay
// behind.
type filler struct {
	links map[inode]string // first names of files with several
	top   int              // the volume
}

type inode struct{ dev, ino uint64 }

// fill copies the folder from into the folder to, unless that has something.
func fill(from, to int) error {
	var err error
	if from, err = unix.Openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	defer closeFD(from)
	if to, err = unix.Openat(to, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	defer closeFD(to)
	names, err := listFD(to)
	if err != nil || len(names) > 0 {
		return err
	}
	f := &filler{links: map[inode]string{}, top: to}
	return f.folder(from, to, "")
}

// listFD lists a folder without moving a shared descriptor's position.
func listFD(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), "folder")
	defer d.Close()
	return d.Readdirnames(-1)
}

func (f *filler) folder(from, to int, path string) error {
	names, err := listFD(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := f.entry(from, to, name, path+name); err != nil {
			return fmt.Errorf("cannot copy %s: %w", path+name, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	return attributes(from, to, &st)
}

func (f *filler) entry(from, to int, name, path string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, ok := f.links[id]; ok {
			return f.link(first, to, name)
		}
		f.links[id] = path
	}
	switch kind {
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, name, target)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(target[:n]), to, name); err != nil {
			return err
		}
		if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		return unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
	case unix.S_IFDIR, unix.S_IFREG, unix.S_IFIFO:
		return f.node(from, to, name, path, &st)
	}
	return nil
}

// link opens the folder of the first name with no link on the way: a process
// that has the volume too could exchange a folder for one.
func (f *filler) link(first string, to int, name string) error {
	dir, base := splitPath(first)
	fd, err := unix.Openat2(f.top, "./"+strings.TrimPrefix(dir, "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return unix.Linkat(fd, base, to, name, 0)
}

func (f *filler) node(from, to int, name, path string, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT == unix.S_IFIFO {
		// The thread has no umask; fchmodat(2) would follow a link put in its place.
		if err := unix.Mkfifoat(to, name, st.Mode&0o777); err != nil {
			return err
		}
		return unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	const flags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	old, err := unix.Openat(from, name, unix.O_RDONLY|flags, 0)
	if err != nil {
		return err
	}
	source := os.NewFile(uintptr(old), name)
	defer source.Close()
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := unix.Mkdirat(to, name, 0o700); err != nil {
			return err
		}
		fd, err := unix.Openat(to, name, unix.O_RDONLY|unix.O_DIRECTORY|flags, 0)
		if err != nil {
			return err
		}
		defer closeFD(fd)
		return f.folder(old, fd, path+"/")
	}
	fd, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|flags, 0o600)
	if err != nil {
		return err
	}
	copied := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(copied, source)
	if err == nil {
		err = attributes(old, fd, st)
	}
	return errors.Join(err, copied.Close())
}

// attributes gives a file or folder another's: the owner first, as a change of
// it takes setuid bits and capabilities away.
func attributes(from, to int, st *unix.Stat_t) error {
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	names := make([]byte, 64<<10)
	n, err := unix.Flistxattr(from, names)
	if err != nil && err != unix.EOPNOTSUPP {
		return err
	}
	for name := range strings.SplitSeq(string(names[:max(n, 0)]), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(from, name, value)
		if err == nil {
			err = unix.Fsetxattr(to, name, value[:n], 0)
		}
		if err != nil && err != unix.EOPNOTSUPP && err != unix.ENODATA {
			return fmt.Errorf("cannot copy the attribute %s: %w", name, err)
		}
	}
	// The library's ways go through /proc/self/fd, which isn't there.
	times := [2]unix.Timespec{st.Atim, st.Mtim}
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(to), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
