package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// makePinDir mounts the tmpfs that holds every pin: one lazy unmount lets go
// of them all. It is shared, for a mount namespace copied meanwhile holds
// copies of the pins, and only an unmount that propagates there drops them.
func makePinDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make %s: %w", dir, err)
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("cannot make %s: %w", dir, err)
	}
	mounted, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	if len(mounted) > 0 {
		return fmt.Errorf("cannot make %s: something is mounted there already", dir)
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("platelayer", dir, "tmpfs", flags, "mode=0700"); err != nil {
		return fmt.Errorf("cannot mount a tmpfs on %s: %w", dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("cannot share the mount on %s: %w", dir, err)
	}
	return nil
}

// freeNames checks before anything is made that no name belongs to somebody
// else. One that points to our own pins is what a killed run left.
func freeNames(o Options, names []string) error {
	if err := os.MkdirAll(o.NetNSDir, 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w", o.NetNSDir, err)
	}
	for _, name := range names {
		path := filepath.Join(o.NetNSDir, name)
		_, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot look at %s: %w", path, err)
		}
		if !pointsInto(path, o.PinDir) {
			return namespaceTaken(path)
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("cannot remove stale %s: %w", path, err)
		}
	}
	return nil
}

// Elsewhere gives the path of a namespace's name that leads to pins of another
// place than o's, or "": it belongs to somebody else.
func Elsewhere(o Options, name string) string {
	path := filepath.Join(o.NetNSDir, name)
	if _, err := os.Lstat(path); err != nil || pointsInto(path, o.PinDir) {
		return ""
	}
	return path
}

// pointsInto tells whether path is a symbolic link to a file of dir.
func pointsInto(path, dir string) bool {
	target, err := os.Readlink(path)
	return err == nil && filepath.Dir(target) == filepath.Clean(dir)
}

// keepPinDir makes the pin directory unless it is there.
func keepPinDir(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return makePinDir(dir)
	}
	if err != nil {
		return fmt.Errorf("cannot make %s: %w", dir, err)
	}
	mounted, err := mountsBelow(real)
	if err != nil {
		return err
	}
	if len(mounted) == 0 {
		return makePinDir(dir)
	}
	// A run may have been killed before this.
	if err := unix.Mount("", real, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("cannot share the mount on %s: %w", dir, err)
	}
	return nil
}

// openPin is a handle on a pinned namespace. One of which a killed run left
// but the file it is to be pinned to does not exist (fs.ErrNotExist).
func openPin(o Options, name string) (*os.File, error) {
	path := filepath.Join(o.PinDir, name)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open network namespace %s: %w", name, err)
	}
	var st unix.Statfs_t
	err = unix.Fstatfs(fd, &st)
	if err == nil && st.Type != unix.NSFS_MAGIC {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("cannot open network namespace %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// pinned tells whether a namespace is, and gives one that is the name a killed
// run did not get to.
func pinned(o Options, name string) (bool, error) {
	path, link := filepath.Join(o.PinDir, name), filepath.Join(o.NetNSDir, name)
	// As openPin does it, but with fewer system calls, for it looks at many.
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.Type != unix.NSFS_MAGIC {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot look at network namespace %s: %w", name, err)
	}
	if target, err := os.Readlink(link); err == nil && target == path {
		return true, nil
	}
	if err := freeNames(o, []string{name}); err != nil {
		return false, err
	}
	return true, nameNetNS(path, link)
}

// unpin lets go of a namespace and of its name.
func unpin(o Options, name string) error {
	path, link := filepath.Join(o.PinDir, name), filepath.Join(o.NetNSDir, name)
	if target, err := os.Readlink(link); err == nil && target == path {
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove the name of a namespace: %w", err)
		}
	}
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove %s: %w", path, err)
	}
	return nil
}
