package native

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// option is a file system's mount option; an empty value makes it a flag.
type option struct{ key, value string }

// newMount makes a mount that is attached nowhere (fsopen(2), fsconfig(2),
// fsmount(2)). Only string options are used: descriptors as overlay layers
// need Linux 6.13.
func newMount(fstype string, attr int, options ...option) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		if errors.Is(err, unix.ENODEV) {
			return -1, &containers.Unsupported{Feature: "the file system " + fstype, Err: err}
		}
		return -1, fmt.Errorf("cannot open the file system %s: %w", fstype, err)
	}
	defer closeFD(fs)
	for _, o := range options {
		if o.value == "" {
			err = unix.FsconfigSetFlag(fs, o.key)
		} else {
			err = unix.FsconfigSetString(fs, o.key, o.value)
		}
		if err != nil {
			return -1, fmt.Errorf("cannot set %s of a new %s: %w", o.key, fstype, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("cannot create a %s: %w", fstype, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return -1, fmt.Errorf("cannot mount a %s: %w", fstype, err)
	}
	return fd, nil
}

// cloneMount copies the mount that holds an existing path, starting there. The
// copy is private, so that what is mounted on the machine later stays there.
func cloneMount(dir int, path string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	set := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
		set |= unix.AT_RECURSIVE
	}
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	fd, err := unix.OpenTree(dir, path, flags)
	if err != nil {
		return -1, fmt.Errorf("cannot clone the mount of %q: %w", path, err)
	}
	if err := unix.MountSetattr(fd, "", set, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("cannot make the mount of %q private: %w", path, err)
	}
	return fd, nil
}

// shareMount copies a mount that stays in touch with the machine's: a slave of
// it, or with MS_SHARED its peer, which only a shared one can have. What is
// mounted below goes with it.
func shareMount(dir int, path string, spread uint64) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	fd, err := unix.OpenTree(dir, path, flags)
	if err != nil {
		return -1, fmt.Errorf("cannot clone the mount of %q: %w", path, err)
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: spread}); err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("cannot change the propagation of %q: %w", path, err)
	}
	return fd, nil
}

// attach puts a detached mount on path.
func attach(mount int, path string) error {
	if err := unix.MoveMount(mount, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot mount on %s: %w", path, err)
	}
	return nil
}

// attachTo puts a detached mount on an open file or folder.
func attachTo(mount, target int, name string) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(mount, "", target, "", flags); err != nil {
		return fmt.Errorf("cannot mount on %s: %w", name, err)
	}
	return nil
}

// setMount adds attributes to a mount, and with recursive to those below.
func setMount(fd int, attr uint64, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: attr}); err != nil {
		return fmt.Errorf("cannot change a mount's attributes: %w", err)
	}
	return nil
}
