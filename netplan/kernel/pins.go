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
			return &NameTaken{Path: path}
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("cannot remove stale %s: %w", path, err)
		}
	}
	return nil
}

// pointsInto tells whether path is a symbolic link to a file of dir.
func pointsInto(path, dir string) bool {
	target, err := os.Readlink(path)
	return err == nil && filepath.Dir(target) == filepath.Clean(dir)
}
