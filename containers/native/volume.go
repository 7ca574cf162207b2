package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// mounting is something of the spec's to mount in the root.
type mounting struct {
	target string
	mount  func() error
}

// mountVolumes mounts the spec's mounts, memory file systems and files,
// parents first.
func (c *container) mountVolumes(ctx context.Context, src *sources) error {
	var all []mounting
	for i := range c.spec.Tmpfs {
		m := &c.spec.Tmpfs[i]
		all = append(all, mounting{m.Target, func() error { return c.mountTmpfs(m) }})
	}
	for i := range c.spec.Mounts {
		m := &c.spec.Mounts[i]
		all = append(all, mounting{m.Target, func() error {
			if err := c.mountVolume(ctx, src.volumes[i], m); err != nil {
				return fmt.Errorf("cannot mount %s on %s: %w", m.Source, m.Target, err)
			}
			return nil
		}})
	}
	files, err := c.holdFiles()
	if err != nil {
		return err
	}
	all = append(all, files...)
	depth := func(i int) int { return strings.Count(path.Clean("/"+all[i].target), "/") }
	sort.SliceStable(all, func(a, b int) bool { return depth(a) < depth(b) })
	for _, m := range all {
		if err := m.mount(); err != nil {
			return err
		}
	}
	return nil
}

// openVolume clones a source as the machine shows it. A path below it is found
// as a process would whose root the source is.
func openVolume(m *containers.Mount) (int, error) {
	if err := seLinux(m.SELinux); err != nil {
		return -1, fmt.Errorf("cannot relabel %s: %w", m.Source, err)
	}
	spread, err := propagation(m.Propagation)
	if err != nil {
		return -1, err
	}
	dir, from := unix.AT_FDCWD, m.Source
	if m.NoLinks {
		if dir, err = openPlain(m.Source, unix.O_PATH); err != nil {
			return -1, err
		}
		defer closeFD(dir)
		from = ""
	}
	if m.Subpath != "" {
		base, err := unix.Open(m.Source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("cannot open %s: %w", m.Source, err)
		}
		defer closeFD(base)
		if dir, err = openIn(base, m.Subpath, unix.O_PATH, 0); err != nil {
			return -1, fmt.Errorf("cannot open the subpath %q of %s for %s: %w", m.Subpath, m.Source, m.Target, err)
		}
		defer closeFD(dir)
		from = ""
	}
	if spread == unix.MS_PRIVATE {
		return cloneMount(dir, from, true)
	}
	return shareMount(dir, from, spread)
}

// openPlain opens a path in which there are no links: one that is there was put
// there to lead elsewhere.
func openPlain(path string, flags uint64) (int, error) {
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR, unix.EAGAIN: // a rename raced with it (openat2(2))
		case unix.ELOOP:
			return -1, fmt.Errorf("cannot open %s: there is a link in it now", path)
		default:
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// OpenPlain opens a file for reading by a path in which there are no links. A
// FIFO does not block.
func OpenPlain(path string) (*os.File, error) {
	fd, err := openPlain(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Holds tells whether a path below a folder, never left through links, is there.
func Holds(dir, path string) bool {
	base, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer closeFD(base)
	fd, err := openIn(base, path, unix.O_PATH, 0)
	closeFD(fd)
	return err == nil
}

// propagation is the type of a mount (mount_namespaces(7)).
func propagation(name string) (uint64, error) {
	switch strings.TrimPrefix(name, "r") {
	case "", "private":
		return unix.MS_PRIVATE, nil
	case "slave":
		return unix.MS_SLAVE, nil
	case "shared":
		return unix.MS_SHARED, nil
	}
	return 0, fmt.Errorf("unknown propagation %q", name)
}

func (c *container) mountVolume(ctx context.Context, fd int, m *containers.Mount) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	folder := st.Mode&unix.S_IFMT == unix.S_IFDIR
	target, err := c.mountPoint(m.Target, folder)
	if m.Yield && errors.Is(err, errOtherMount) {
		return nil
	}
	if err != nil {
		return err
	}
	defer closeFD(target)
	if m.Fill && folder {
		if err := fill(ctx, target, fd, m.Target); err != nil {
			return fmt.Errorf("cannot fill the volume: %w", err)
		}
	}
	attr := uint64(unix.MOUNT_ATTR_NODEV)
	if m.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if err := setMount(fd, attr, true); err != nil {
		return err
	}
	return attachTo(fd, target, m.Target)
}

// mountPoint opens a place for a mount, makes it if missing, and refuses those
// that are the engine's.
func (c *container) mountPoint(target string, folder bool) (int, error) {
	if name := path.Clean("/" + target); name == "/" || name == "/dev" || name == "/sys" || name == "/proc" || strings.HasPrefix(name, "/proc/") {
		return -1, errors.New("the engine mounts its own there")
	}
	fd, err := c.volumeTarget(target, folder)
	if err != nil {
		return -1, err
	}
	if err := c.checkTarget(fd, target); err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

var errOtherMount = errors.New("a link in the root leads to another mount")

// checkTarget refuses a target that links lead to the root of a mount or into a
// kernel file system: the volume would replace what others were checked on.
func (c *container) checkTarget(target int, name string) error {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(target, &fs); err != nil {
		return err
	}
	switch fs.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC:
		return errors.New("the engine mounts its own there")
	}
	var st unix.Statx_t
	if err := unix.Statx(target, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID|unix.STATX_INO, &st); err != nil {
		return err
	}
	fd, err := unix.Openat2(int(c.root.Fd()), name, how)
	if err == nil {
		var plain unix.Statx_t
		err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID|unix.STATX_INO, &plain)
		closeFD(fd)
		// Who has a volume too could exchange a link for a folder between the two.
		if err != nil || plain.Mnt_id == st.Mnt_id && plain.Ino == st.Ino {
			return err // no link on the way: it is where it says
		}
	} else if err != unix.ELOOP {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return errOtherMount
	}
	return nil
}

// volumeTarget opens the mount point inside the root and makes it if missing.
func (c *container) volumeTarget(path string, folder bool) (int, error) {
	root := int(c.root.Fd())
	fd, err := openTarget(root, path, folder)
	if err == nil || !os.IsNotExist(err) {
		return fd, err
	}
	if folder {
		return mkdirAllIn(root, path, 0o755)
	}
	dir, _ := splitPath(path)
	parent, err := mkdirAllIn(root, dir, 0o755)
	if err != nil {
		return -1, err
	}
	closeFD(parent)
	if fd, err = openIn(root, path, unix.O_WRONLY|unix.O_CREAT, 0o644); err != nil {
		return -1, err
	}
	closeFD(fd)
	return openIn(root, path, unix.O_PATH, 0)
}

// openTarget opens what a root has in the place of a mount: of a folder on a
// folder, or of a file on anything else.
func openTarget(root int, path string, folder bool) (int, error) {
	fd, err := openIn(root, path, unix.O_PATH, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return -1, errors.New("the root has a file in the place of a folder above it")
	}
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && folder != (st.Mode&unix.S_IFMT == unix.S_IFDIR) {
		if err = errors.New("the root has a folder there, and this is a file"); folder {
			err = errors.New("the root has a file there, and this is a folder")
		}
	}
	if err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

// lockRoot makes the root read-only, and with it the overlays that the
// composite root has of its own. Volumes and what lies in memory stay as they are.
func (c *container) lockRoot() error {
	if err := setMount(int(c.root.Fd()), unix.MOUNT_ATTR_RDONLY, false); err != nil {
		return err
	}
	if !c.spec.Root.Host {
		return nil
	}
	for _, dir := range append([]string{"usr", "etc"}, systemDirs[:]...) {
		fd, err := unix.Openat2(int(c.root.Fd()), dir, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot open /%s: %w", dir, err)
		}
		var st unix.Statx_t
		err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &st)
		if err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			err = setMount(fd, unix.MOUNT_ATTR_RDONLY, false)
		}
		closeFD(fd)
		if err != nil {
			return err
		}
	}
	return nil
}
