package native

import (
	"errors"
	"fmt"
	"os"
	"path"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// prepare assembles the root on a thread. Sources are opened as seen from the
// machine, then everything is put together inside the container's namespaces.
func (c *container) prepare(t *thread) (err error) {
	src, err := c.openSources()
	defer src.close()
	if err != nil {
		return err
	}
	if err := c.makeNamespaces(t); err != nil {
		return err
	}
	if err := c.assembleRoot(src); err != nil {
		return err
	}
	if err := c.mountSystem(); err != nil {
		return err
	}
	if err := c.openRoot(t); err != nil {
		return err
	}
	if err := c.writeFiles(); err != nil {
		return err
	}
	if err := c.copyUpSealed(); err != nil {
		return err
	}
	if err := c.mountVolumes(src); err != nil {
		return err
	}
	root := int(c.root.Fd())
	if c.user, err = lookupUser(root, c.spec.User, c.spec.Groups); err != nil {
		return err
	}
	if c.cwd, err = mkdirAllIn(root, orRoot(c.spec.WorkingDir), 0o755); err != nil {
		return fmt.Errorf("cannot make the working folder %s: %w", c.spec.WorkingDir, err)
	}
	if err := t.goHome(); err != nil {
		return err
	}
	for _, path := range []string{c.spec.Stdout, c.spec.Stderr} {
		if err := makeFIFO(path, c.user); err != nil {
			return err
		}
	}
	return nil
}

func orRoot(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

// makeNamespaces enters a copy of the base and new namespaces.
func (c *container) makeNamespaces(t *thread) error {
	t.away = true
	if err := unix.Setns(c.engine.base.ns, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot enter the base namespace: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC); err != nil {
		return fmt.Errorf("cannot make namespaces: %w", err)
	}
	if c.ns.net >= 0 {
		// Before sysfs, which shows the network namespace it is mounted in.
		if err := unix.Setns(c.ns.net, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot enter the network namespace %s: %w", c.spec.NetNSPath, err)
		}
	}
	if err := unix.Sethostname([]byte(c.spec.Hostname)); err != nil {
		return fmt.Errorf("cannot set the host name %q: %w", c.spec.Hostname, err)
	}
	var err error
	if c.baseFD, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("cannot open the base: %w", err)
	}
	return nil
}

func (c *container) openRoot(t *thread) error {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the root: %w", err)
	}
	c.root = os.NewFile(uintptr(fd), c.spec.Name+":/")
	for name, fd := range map[string]*int{"mnt": &c.ns.mnt, "uts": &c.ns.uts, "ipc": &c.ns.ipc} {
		if *fd, err = t.openNS(name); err != nil {
			return err
		}
	}
	return nil
}

// writeFiles gives the container its own names. A link in the root's /etc is
// replaced: it could lead anywhere.
func (c *container) writeFiles() error {
	root := int(c.root.Fd())
	etc, err := mkdirAllIn(root, "/etc", 0o755)
	if err != nil {
		return fmt.Errorf("cannot open /etc: %w", err)
	}
	defer closeFD(etc)
	for _, f := range []struct{ name, text string }{
		{"hosts", c.spec.Hosts},
		{"hostname", c.spec.Hostname + "\n"},
		{"resolv.conf", c.spec.ResolvConf},
	} {
		if strings.TrimSpace(f.text) == "" {
			continue
		}
		if err := writeAt(etc, f.name, f.text); err != nil {
			return fmt.Errorf("cannot write /etc/%s: %w", f.name, err)
		}
	}
	return nil
}

func writeAt(dir int, name, text string) error {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0o644)
	if err == unix.ELOOP {
		if err = unix.Unlinkat(dir, name, 0); err == nil {
			fd, err = unix.Openat(dir, name, flags|unix.O_EXCL, 0o644)
		}
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// mkdirAllIn opens a folder in a root and makes it and its parents if missing.
func mkdirAllIn(root int, path string, mode uint32) (int, error) {
	fd, err := openIn(root, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil || !os.IsNotExist(err) {
		return fd, err
	}
	dir, name := splitPath(path)
	if name == "" || name == ".." {
		return -1, err
	}
	parent, err := mkdirAllIn(root, dir, mode)
	if err != nil {
		return -1, err
	}
	defer closeFD(parent)
	if err := unix.Mkdirat(parent, name, mode); err != nil && err != unix.EEXIST {
		return -1, &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	return openIn(root, path, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// splitPath cuts the last name off; a path ends at "/".
func splitPath(path string) (dir, name string) {
	path = strings.TrimRight(path, "/")
	i := strings.LastIndexByte(path, '/')
	if dir = path[:i+1]; dir == "" {
		dir = "/"
	}
	return dir, path[i+1:]
}

// mountVolumes binds the spec's mounts, parents first.
func (c *container) mountVolumes(src *sources) error {
	order := make([]int, len(c.spec.Mounts))
	for i := range order {
		order[i] = i
	}
	depth := func(i int) int { return strings.Count(strings.TrimRight(c.spec.Mounts[i].Target, "/"), "/") }
	sort.SliceStable(order, func(a, b int) bool { return depth(order[a]) < depth(order[b]) })
	for _, i := range order {
		if err := c.mountVolume(src.volumes[i], &c.spec.Mounts[i]); err != nil {
			return fmt.Errorf("cannot mount %s on %s: %w", c.spec.Mounts[i].Source, c.spec.Mounts[i].Target, err)
		}
	}
	return nil
}

func (c *container) mountVolume(fd int, m *containers.Mount) error {
	if name := path.Clean("/" + m.Target); name == "/" || name == "/dev" || name == "/sys" || name == "/proc" || strings.HasPrefix(name, "/proc/") {
		return errors.New("the engine mounts its own there")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	target, err := c.volumeTarget(m.Target, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer closeFD(target)
	if err := c.checkTarget(target, m.Target); err != nil {
		return err
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
	if fd, err := unix.Openat2(int(c.root.Fd()), name, how); err == nil {
		closeFD(fd)
		return nil // no link on the way: it is where it says
	}
	var st unix.Statx_t
	if err := unix.Statx(target, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return err
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return errors.New("a link in the root leads to another mount")
	}
	return nil
}

// volumeTarget opens the mount point inside the root and makes it if missing.
func (c *container) volumeTarget(path string, folder bool) (int, error) {
	root := int(c.root.Fd())
	if folder {
		return mkdirAllIn(root, path, 0o755)
	}
	fd, err := openIn(root, path, unix.O_PATH, 0)
	if err == nil || !os.IsNotExist(err) {
		return fd, err
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

// makeFIFO makes a log FIFO on the machine or takes over the one of an earlier
// start. The container's user owns it, so that it can be opened again through
// /dev/stderr.
func makeFIFO(path string, u *identity) error {
	if path == "" {
		return nil
	}
	if err := unix.Mkfifo(path, 0o600); err != nil && err != unix.EEXIST {
		return fmt.Errorf("cannot make the FIFO %s: %w", path, err)
	}
	fd, err := openFIFO(path)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	if err := unix.Fchown(fd, int(u.uid), int(u.gid)); err != nil {
		return fmt.Errorf("cannot give the FIFO %s to the container's user: %w", path, err)
	}
	return nil
}

// openFIFO opens for reading too, so that a writer never sees EPIPE.
func openFIFO(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open the FIFO %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		closeFD(fd)
		return -1, fmt.Errorf("cannot use %s: it is not a FIFO", path)
	}
	return fd, nil
}
