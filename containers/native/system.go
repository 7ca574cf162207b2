package native

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// deviceNodes are those that the OCI runtime specification asks for; console
// is the terminal's, which commands get by exec only.
var deviceNodes = [...]struct {
	name  string
	minor uint32
	major uint32
}{
	{"null", 3, 1}, {"zero", 5, 1}, {"full", 7, 1}, {"random", 8, 1}, {"urandom", 9, 1}, {"tty", 0, 5},
}

var deviceLinks = [...][2]string{
	{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}, {"core", "/proc/kcore"},
}

const quiet = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// mountSystem mounts /dev and /sys in the thread's root, with what Docker
// mounts below them.
func (c *container) mountSystem() error {
	for _, dir := range []string{"dev", "proc", "sys"} {
		if err := unix.Mkdirat(unix.AT_FDCWD, dir, 0o755); err != nil && err != unix.EEXIST {
			return fmt.Errorf("cannot make /%s: %w", dir, err)
		}
		// A link here would put our mounts somewhere else in the image.
		fd, err := unix.Openat2(unix.AT_FDCWD, dir, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
		if err != nil {
			return fmt.Errorf("cannot use /%s of the root: %w", dir, err)
		}
		if dir == "proc" {
			// Held until a command mounts on it by its name: while it is in use,
			// who has the root's folder can't have the name lead elsewhere.
			c.procFD = fd
			continue
		}
		closeFD(fd)
	}
	dev, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, option{"mode", "0755"}, option{"size", "64m"})
	if err != nil {
		return err
	}
	defer closeFD(dev)
	if err := populateDev(dev); err != nil {
		return err
	}
	if err := makeDevices(dev, c.devices); err != nil {
		return err
	}
	if c.spec.TTY {
		if err := makeConsole(dev); err != nil {
			return err
		}
	}
	if err := attach(dev, "/dev"); err != nil {
		return err
	}
	shmSize := int64(64 << 20)
	if n := c.spec.Resources.ShmSize; n > 0 {
		shmSize = n
	}
	sys := quiet | unix.MOUNT_ATTR_RDONLY
	if c.spec.Privileged {
		sys = quiet
	}
	for _, m := range []struct {
		path, fstype string
		attr         int
		options      []option
	}{
		{"/dev/pts", "devpts", unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC, []option{{"newinstance", ""}, {"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}}},
		{"/dev/shm", "tmpfs", quiet, []option{{"mode", "1777"}, {"size", strconv.FormatInt(shmSize, 10)}}},
		{"/dev/mqueue", "mqueue", quiet, nil},
		{"/sys", "sysfs", sys, nil},
	} {
		if m.path == "/dev/shm" && c.shm >= 0 {
			if err := attach(c.shm, m.path); err != nil {
				return err
			}
			continue
		}
		if err := mountNew(m.path, m.fstype, m.attr, m.options); err != nil {
			return err
		}
	}
	if c.spec.Privileged {
		return nil
	}
	for _, path := range c.engine.sys {
		if err := c.maskFolder(path); err != nil {
			return err
		}
	}
	return nil
}

func mountNew(path, fstype string, attr int, options []option) error {
	fd, err := newMount(fstype, attr, options...)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return attach(fd, path)
}

func populateDev(dev int) error {
	for _, n := range deviceNodes {
		if err := unix.Mknodat(dev, n.name, unix.S_IFCHR|0o666, int(unix.Mkdev(n.major, n.minor))); err != nil {
			return fmt.Errorf("cannot make the device %s: %w", n.name, err)
		}
	}
	for _, l := range deviceLinks {
		if err := unix.Symlinkat(l[1], dev, l[0]); err != nil {
			return fmt.Errorf("cannot make /dev/%s: %w", l[0], err)
		}
	}
	for _, dir := range []string{"pts", "shm", "mqueue"} {
		if err := unix.Mkdirat(dev, dir, 0o755); err != nil {
			return fmt.Errorf("cannot make /dev/%s: %w", dir, err)
		}
	}
	return nil
}

// maskFolder hides a folder of /sys behind the base's empty one; a missing one
// needs no hiding.
func (c *container) maskFolder(path string) error {
	fd, err := unix.OpenTree(c.baseFD, baseEmpty[1:], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("cannot clone a mask: %w", err)
	}
	defer closeFD(fd)
	err = unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil && err != unix.ENOENT {
		return fmt.Errorf("cannot mask %s: %w", path, err)
	}
	return nil
}
