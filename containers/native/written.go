package native

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// OpenWritten opens what a running container has written and its root without
// what is mounted there. root is what it was prepared from. While it is read,
// the container should be frozen: overlayfs does not say what a layer looks like
// when it is written to (Documentation/filesystems/overlayfs.rst).
func OpenWritten(ref containers.ProcessRef, root *containers.Root) (*containers.Written, error) {
	pidfd, err := openRef(ref)
	if err != nil {
		return nil, err
	}
	defer closeFD(pidfd)
	return openWritten(pidfd, root)
}

// Writer is met by prepared containers of this engine.
type Writer interface {
	Written() (*containers.Written, error)
}

// Written does the same for a container that has not started.
func (c *container) Written() (*containers.Written, error) {
	return openWritten(c.ns.mnt, &c.spec.Root)
}

// openWritten goes to where the layers are: in the base, which the container's
// root is mounted over. ns is a mount namespace, or a process that is in it.
func openWritten(ns int, root *containers.Root) (w *containers.Written, err error) {
	w = &containers.Written{}
	err = onThread(func(t *thread) error {
		if root.Host { // while the machine's tree is in sight
			if err := openBeside(w); err != nil {
				return err
			}
		}
		if err := uncoverBase(t, ns); err != nil {
			return fmt.Errorf("cannot reach the container's layers: %w", err)
		}
		if err := openLayers(w, root); err != nil {
			return fmt.Errorf("cannot open the container's layers: %w", err)
		}
		return nil
	})
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// openBeside opens what the composite root shows of the machine beside /usr and
// /etc (openHost), which is mounted there and can't be written to.
func openBeside(w *containers.Written) error {
	for _, name := range systemDirs {
		fd, err := unix.Open("/"+name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		switch err {
		case nil:
			w.Whole = append(w.Whole, containers.Part{At: name, Dir: os.NewFile(uintptr(fd), "/"+name)})
		case unix.ENOENT, unix.ENOTDIR: // a link into /usr
		default:
			return &os.PathError{Op: "open", Path: "/" + name, Err: err}
		}
	}
	return nil
}

// uncoverBase brings the thread, which is thrown away afterwards, into a copy of
// a container's mount namespace from which the container's root and all that is
// mounted below it are taken away.
func uncoverBase(t *thread, ns int) error {
	t.away = true
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot enter its mount namespace: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot copy its mount namespace: %w", err)
	}
	// Volumes may be shared with the machine, from where they must not go.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make its mounts private: %w", err)
	}
	const most = 16 // mounts over "/" that a privileged container may have made
	for range most {
		if isBase() {
			return nil
		}
		if err := unix.Unmount("/", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("cannot take its root away: %w", err)
		}
		// The thread's root is what was taken away; setns(2) gives it the one that
		// is left.
		own, err := t.openNS("mnt")
		if err != nil {
			return err
		}
		err = unix.Setns(own, unix.CLONE_NEWNS)
		closeFD(own)
		if err != nil {
			return fmt.Errorf("cannot enter the base: %w", err)
		}
	}
	return errors.New("it has none any more")
}

// isBase tells whether "/" is the base's root.
func isBase() bool {
	var fs unix.Statfs_t
	if unix.Statfs("/", &fs) != nil || fs.Type != unix.TMPFS_MAGIC {
		return false
	}
	for _, dir := range []string{baseLower, baseUsr, baseEtc, baseHideEtc, baseUpper, baseFiles, baseEmpty, baseNull} {
		var st unix.Stat_t
		if unix.Lstat(dir, &st) != nil {
			return false
		}
	}
	return true
}

// openLayers adds what lies in the base, the root's own part first.
func openLayers(w *containers.Written, root *containers.Root) error {
	part := func(at string, lower ...string) error {
		fd, err := newOverlay(lower, []option{{"source", "overlay"}})
		if err != nil {
			return err
		}
		err = setMount(fd, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, false)
		w.Whole = append(w.Whole, containers.Part{At: at, Dir: os.NewFile(uintptr(fd), "/"+at)})
		return err
	}
	folder := func(path string) (*os.File, error) {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
	if root.Host {
		own, err := folder(baseUpper + "/root")
		if err != nil {
			return err
		}
		w.Whole = slices.Insert(w.Whole, 0, containers.Part{Dir: own})
		if err := part("usr", baseUpper+"/usr/upper", baseUsr); err != nil {
			return err
		}
		return part("etc", baseUpper+"/etc/upper", baseHideEtc, baseEtc)
	}
	lower := []string{baseLower}
	if len(root.Layers) > 0 {
		lower = nil
		for _, l := range root.Layers {
			lower = append(lower, baseLower+"/"+l)
		}
	}
	var err error
	if w.Changes, err = folder(baseUpper + "/upper"); err != nil {
		return err
	}
	return part("", append([]string{baseUpper + "/upper"}, lower...)...)
}
