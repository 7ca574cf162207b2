package native

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// treeTop is what the folders of a copy have in common.
type treeTop struct {
	c    *copier
	side *CopySide
	fd   int // the folder that paths of items begin in; not ours
	// follow has links in the folder be followed inside it.
	follow bool
}

// treeFolder is a folder that a copy goes to. Whoever may write to it may
// exchange what is in it at any time: all is made under a name that is not
// there, and changed through descriptors only.
type treeFolder struct {
	*treeTop
	fd   int
	made bool // by the copy
}

func newTreeTop(c *copier, side *CopySide, fd int) *treeFolder {
	return &treeFolder{treeTop: &treeTop{c: c, side: side, fd: fd}, fd: fd}
}

// failed is an error of the destination's side.
func (t *treeTop) failed(it *copyItem, err error) error {
	return fmt.Errorf("cannot write %s: %w", shortPath(t.side.show(t.side.Path)+"/"+strings.TrimPrefix(it.path, "./")), err)
}

// vacant makes sure that a name can be given to something that is not a folder.
// A file mounted there must stay: seen from outside its mount namespace, the
// kernel would take the mount away with the name.
func (f *treeFolder) vacant(it *copyItem) error {
	var st unix.Statx_t
	err := unix.Statx(f.fd, it.name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	switch {
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return f.failed(it, err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return f.failed(it, errors.New("there is a folder of that name"))
	case st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0:
		return f.failed(it, errors.New("it is a mount of its own"))
	}
	return nil
}

// place makes something under a name of its own and then gives it the right one.
func (f *treeFolder) place(it *copyItem, make func(name string) error) error {
	if err := f.vacant(it); err != nil {
		return err
	}
	fresh := ".platelayer-" + rand.Text()
	err := make(fresh)
	if err == nil {
		if err = unix.Renameat(f.fd, fresh, f.fd, it.name); err != nil {
			err = f.failed(it, err)
		}
	}
	if err != nil {
		_ = unix.Unlinkat(f.fd, fresh, 0)
	}
	return err
}

// file makes a file that has no name until it is complete: whoever kills the
// program leaves nothing. Not every file system knows such files.
func (f *treeFolder) file(it *copyItem, content *copySource) error {
	fill := func(fd int) error {
		if err := content.writeFile(fd, func(err error) error { return f.failed(it, err) }); err != nil {
			return err
		}
		return f.attributes(fd, it)
	}
	fd, err := unix.Openat(f.fd, ".", unix.O_WRONLY|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return f.place(it, func(name string) error {
			fd, err := unix.Openat(f.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
			if err != nil {
				return f.failed(it, err)
			}
			defer closeFD(fd)
			return fill(fd)
		})
	}
	defer closeFD(fd)
	if err := f.vacant(it); err != nil {
		return err
	}
	if err := fill(fd); err != nil {
		return err
	}
	name := func(name string) error {
		return unix.Linkat(unix.AT_FDCWD, procFD(fd), f.fd, name, unix.AT_SYMLINK_FOLLOW)
	}
	switch err := name(it.name); err {
	case nil:
		return nil
	case unix.EEXIST: // only a rename replaces what is there
		return f.place(it, func(fresh string) error {
			if err := name(fresh); err != nil {
				return f.failed(it, err)
			}
			return nil
		})
	default:
		return f.failed(it, err)
	}
}

// attributes gives a new file or folder what it is to have: the owner first, as
// a change of it takes set-ID bits and capabilities away.
func (f *treeFolder) attributes(fd int, it *copyItem) error {
	uid, gid := f.c.owner(it)
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return f.failed(it, err)
	}
	if err := unix.Fchmod(fd, it.mode&0o7777); err != nil {
		return f.failed(it, err)
	}
	for _, a := range it.attrs {
		err := unix.Fsetxattr(fd, a.name, []byte(a.value), 0)
		if err == unix.EOPNOTSUPP && f.c.o.Notice != nil {
			f.c.o.Notice("without the attribute " + a.name + ", which the file system can't hold: " + f.c.shown(it))
		} else if err != nil {
			return f.failed(it, fmt.Errorf("the attribute %s: %w", a.name, err))
		}
	}
	// The library takes no descriptor.
	times := [2]unix.Timespec{it.atime, it.mtime}
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0); errno != 0 {
		return f.failed(it, errno)
	}
	return nil
}

// owner is whose a copy is.
func (c *copier) owner(it *copyItem) (uid, gid int) {
	if c.o.Archive {
		return it.uid, it.gid
	}
	return c.o.UID, c.o.GID
}

func (f *treeFolder) link(it *copyItem, target string) error {
	return f.place(it, func(name string) error {
		if err := unix.Symlinkat(target, f.fd, name); err != nil {
			return f.failed(it, err)
		}
		return f.own(it, name, unix.S_IFLNK, func(fd int) bool {
			now, err := readLink(fd)
			return err == nil && now == target
		})
	})
}

func (f *treeFolder) fifo(it *copyItem) error {
	return f.place(it, func(name string) error {
		if err := unix.Mkfifoat(f.fd, name, 0o600); err != nil {
			return f.failed(it, err)
		}
		return f.own(it, name, unix.S_IFIFO, func(fd int) bool {
			return unix.Chmod(procFD(fd), it.mode&0o7777) == nil
		})
	})
}

var errExchanged = errors.New("it was exchanged while it was made")

// own gives what has just been made and can't be opened its owner and times.
// What was put in its place meanwhile is not given away.
func (f *treeFolder) own(it *copyItem, name string, kind uint32, is func(fd int) bool) error {
	fd, err := unix.Openat(f.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return f.failed(it, err)
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return f.failed(it, err)
	}
	if st.Mode&unix.S_IFMT != kind || st.Nlink != 1 || int(st.Uid) != os.Geteuid() || !is(fd) {
		return f.failed(it, errExchanged)
	}
	uid, gid := f.c.owner(it)
	if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return f.failed(it, err)
	}
	if err := unix.UtimesNanoAt(fd, "", []unix.Timespec{it.atime, it.mtime}, unix.AT_EMPTY_PATH); err != nil {
		return f.failed(it, err)
	}
	return nil
}

// again links to the first name. Where that was found by a walk, no link was on
// the way.
func (f *treeFolder) again(it *copyItem, first string) error {
	dir, base := splitPath("/" + first)
	how := &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	if f.follow {
		how.Resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	}
	from, err := unix.Openat2(f.treeTop.fd, "."+dir, how)
	if err != nil {
		return errCopyAnew
	}
	defer closeFD(from)
	if err := f.vacant(it); err != nil {
		return err
	}
	fresh := ".platelayer-" + rand.Text()
	if err := unix.Linkat(from, base, f.fd, fresh, 0); err != nil {
		return errCopyAnew
	}
	err = unix.Renameat(f.fd, fresh, f.fd, it.name)
	// Where the file has the name already, rename(2) leaves both.
	_ = unix.Unlinkat(f.fd, fresh, 0)
	if err != nil {
		return f.failed(it, err)
	}
	return nil
}

func (f *treeFolder) folder(it *copyItem) (receiver, error) {
	err := unix.Mkdirat(f.fd, it.name, 0o700)
	if err != nil && err != unix.EEXIST {
		return nil, f.failed(it, err)
	}
	made := err == nil
	fd, err := unix.Openat(f.fd, it.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if !made && (err == unix.ENOTDIR || err == unix.ELOOP) {
		return nil, f.failed(it, errors.New("there is something else of that name, no folder"))
	}
	if err != nil {
		return nil, f.failed(it, err)
	}
	if err := f.usable(fd, made); err != nil {
		closeFD(fd)
		return nil, f.failed(it, err)
	}
	return &treeFolder{treeTop: f.treeTop, fd: fd, made: made}, nil
}

// usable makes sure that a folder can hold files, and that one just made is
// the one.
func (f *treeFolder) usable(fd int, made bool) error {
	if err := f.side.holds(fd); err != nil || !made {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	names, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(names), "folder")
	defer d.Close()
	if _, err := d.Readdirnames(1); err != io.EOF || int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return errExchanged
	}
	return nil
}

// close finishes a folder. One that was there before keeps what it had, unless
// all is to be as in the source.
func (f *treeFolder) close(it *copyItem) error {
	defer closeFD(f.fd)
	if !f.made && !f.c.o.Archive {
		return nil
	}
	return f.attributes(f.fd, it)
}
