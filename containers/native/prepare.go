package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// prepare assembles the root on a thread. Sources are opened as seen from the
// machine, then everything is put together inside the container's namespaces.
func (c *container) prepare(ctx context.Context, t *thread) (err error) {
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
	if err := c.mountVolumes(ctx, src); err != nil {
		return err
	}
	root := int(c.root.Fd())
	if c.user, err = lookupUser(root, c.spec.User, c.spec.Groups); err != nil {
		return impossible("user", c.spec.User, err)
	}
	if err := c.completeFiles(); err != nil {
		return err
	}
	if c.cwd, err = mkdirAllIn(root, orRoot(c.spec.WorkingDir), 0o755); err != nil {
		return fmt.Errorf("cannot make the working folder %s: %w", c.spec.WorkingDir, err)
	}
	if c.spec.ReadOnly {
		if err := c.lockRoot(); err != nil {
			return fmt.Errorf("cannot make the root read-only: %w", err)
		}
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
	if err := c.joinIPC(); err != nil {
		return err
	}
	if err := unix.Setns(c.engine.base.ns, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot enter the base namespace: %w", err)
	}
	own := unix.CLONE_NEWNS | unix.CLONE_NEWUTS
	if c.spec.IPCOf == nil {
		own |= unix.CLONE_NEWIPC
	}
	if err := unix.Unshare(own); err != nil {
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
	if err := c.setSysctls(t); err != nil {
		return err
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

// writeFiles gives the container its own names. What the root's /etc has there is
// replaced: a link could lead anywhere, and a private file keep users from names.
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
	if len(c.spec.Root.Layers) == 0 {
		return nil
	}
	// Images lack it: Docker makes it.
	if err := unix.Symlinkat("/proc/mounts", etc, "mtab"); err != nil && err != unix.EEXIST {
		return fmt.Errorf("cannot make /etc/mtab: %w", err)
	}
	return nil
}

func writeAt(dir int, name, text string) error {
	if err := unix.Unlinkat(dir, name, 0); err != nil && err != unix.ENOENT {
		return err
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// mkdirAllIn opens a folder in a root and makes it and its parents if missing,
// where a link leads to what is missing too.
func mkdirAllIn(root int, path string, mode uint32) (int, error) {
	const mostLinks = 40 // the kernel's own limit
	return mkdirThrough(root, path, mode, mostLinks)
}

func mkdirThrough(root int, path string, mode uint32, links int) (int, error) {
	fd, err := openIn(root, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil || !os.IsNotExist(err) {
		return fd, err
	}
	dir, name := splitPath(path)
	if name == "" || name == ".." {
		return -1, err
	}
	parent, err := mkdirThrough(root, dir, mode, links)
	if err != nil {
		return -1, err
	}
	defer closeFD(parent)
	if err := unix.Mkdirat(parent, name, mode); err != nil && err != unix.EEXIST {
		return -1, &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	fd, err = openIn(root, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil || !os.IsNotExist(err) || links == 0 {
		return fd, err
	}
	buffer := make([]byte, unix.PathMax)
	n, bad := unix.Readlinkat(parent, name, buffer)
	if bad != nil {
		return -1, err // somebody has removed it again
	}
	target := string(buffer[:n])
	if !filepath.IsAbs(target) {
		target = dir + "/" + target
	}
	if strings.HasPrefix(filepath.Clean(target)+"/", "/proc/") { // which is mounted later
		return -1, err
	}
	return mkdirThrough(root, target, mode, links-1)
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

// openInput makes a pipe of the container's user that nobody writes to, open
// for both so that it has no end.
func openInput(u *identity) (int, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return -1, fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer closeFD(ends[0])
	defer closeFD(ends[1])
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(ends[0]), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open a pipe: %w", err)
	}
	if err := unix.Fchown(fd, int(u.uid), int(u.gid)); err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("cannot give a pipe to the container's user: %w", err)
	}
	return fd, nil
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
