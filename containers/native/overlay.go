package native

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// overlay makes an overlay of layers attached in the base, whose names need no
// escaping, the topmost first. like is the one whose root folder's attributes the new
// root has. A disk's is volatile: otherwise each end of a container would sync
// the whole file system below (docs/decisions/0015). What machines may turn on by default is off
// (Documentation/filesystems/overlayfs.rst): with metacopy a sealed file's
// content would stay in the lower layer, and with index a layer of an earlier
// run couldn't be used with the new mount of the same lower folders.
func (c *container) overlay(lower []string, like, writable string, disk bool) (int, error) {
	used, err := clearWork(writable + "/work")
	if err != nil {
		return -1, err
	}
	if !used {
		// The root folder takes its mode and owner from the writable layer;
		// later they are what the container made of them.
		if err := copyAttributes(like, writable+"/upper"); err != nil {
			return -1, err
		}
	}
	options := []option{{"source", "overlay"}, {"upperdir", writable + "/upper"}, {"workdir", writable + "/work"},
		{"index", "off"}, {"metacopy", "off"}}
	if disk {
		options = append(options, option{"volatile", ""})
	}
	fd, err := newOverlay(lower, options)
	if errors.Is(err, unix.ENOENT) {
		for _, l := range lower {
			if _, missing := os.Lstat(l); missing != nil {
				return -1, fmt.Errorf("the layer %s is missing: platelayer up unpacks it again", strings.TrimPrefix(l, baseLower+"/"))
			}
		}
	}
	if err != nil {
		return -1, err
	}
	if err := c.remember(fd); err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

// newOverlay mounts the layers, attached nowhere. fsconfig(2) takes strings of
// 255 bytes: more layers are added one by one (Linux 6.5), or go through
// mount(2), which takes a page of options.
func newOverlay(lower []string, options []option) (int, error) {
	const longest = 255
	joined := strings.Join(lower, ":")
	if len(joined) <= longest {
		return newMount("overlay", unix.MOUNT_ATTR_NODEV, append([]option{{"lowerdir", joined}}, options...)...)
	}
	var each []option
	for _, l := range lower {
		each = append(each, option{"lowerdir+", l})
	}
	fd, err := newMount("overlay", unix.MOUNT_ATTR_NODEV, append(each, options...)...)
	if errors.Is(err, unix.EINVAL) {
		return oldOverlay(lower, options)
	}
	return fd, err
}

// oldOverlay names the layers from within their folder, to get more of them
// into the options, and mounts over that folder for a moment.
func oldOverlay(lower []string, options []option) (int, error) {
	var text strings.Builder
	text.WriteString("lowerdir=")
	for i, l := range lower {
		if i > 0 {
			text.WriteByte(':')
		}
		text.WriteString(strings.TrimPrefix(l, baseLower+"/"))
	}
	for _, o := range options {
		switch {
		case o.key == "source":
		case o.value == "":
			text.WriteString("," + o.key)
		default:
			text.WriteString("," + o.key + "=" + o.value)
		}
	}
	if text.Len() >= os.Getpagesize() {
		return -1, &containers.Unsupported{Feature: fmt.Sprintf("overlays of %d layers", len(lower)), Err: errors.New("the kernel takes more layers than a page can name since Linux 6.5")}
	}
	if err := unix.Chdir(baseLower); err != nil {
		return -1, fmt.Errorf("cannot enter the layers: %w", err)
	}
	if err := unix.Mount("overlay", baseLower, "overlay", unix.MS_NODEV, text.String()); err != nil {
		return -1, fmt.Errorf("cannot mount an overlay of %d layers: %w", len(lower), err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, baseLower, unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("cannot open the overlay: %w", err)
	}
	return fd, nil
}

// clearWork removes what an earlier overlay left: the mark by which a volatile
// layer is refused once it was mounted, and unfinished copies, of which the
// kernel removes only shallow ones. It tells whether there was an earlier one.
func clearWork(dir string) (used bool, err error) {
	work := dir + "/work"
	if _, err := os.Lstat(work); err != nil {
		return false, ignoreMissing(err)
	}
	if err := os.RemoveAll(work); err != nil {
		return true, fmt.Errorf("cannot reuse a writable layer: %w", err)
	}
	if err := os.Mkdir(work, 0o700); err != nil {
		return true, fmt.Errorf("cannot reuse a writable layer: %w", err)
	}
	return true, nil
}

// copyAttributes gives a layer's root folder a lower one's. Whoever may run in a
// root may see it: that of an image is often a temporary folder's, of mode 0700,
// which Docker opens likewise.
func copyAttributes(lower, upper string) error {
	var st unix.Stat_t
	if err := unix.Stat(lower, &st); err != nil {
		return fmt.Errorf("cannot inspect a lower layer: %w", err)
	}
	if err := unix.Chown(upper, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("cannot prepare a writable layer: %w", err)
	}
	if err := unix.Chmod(upper, st.Mode&0o7777|0o555); err != nil {
		return fmt.Errorf("cannot prepare a writable layer: %w", err)
	}
	return nil
}
