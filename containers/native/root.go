package native

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// sources are mounts cloned from the machine's tree, attached nowhere yet.
type sources struct {
	lower   int // the root's lower layer
	usr     int
	etc     int
	upper   int // the folder on disk for what is written, or -1 for memory
	binds   []hostBind
	volumes []int
}

func (s *sources) close() {
	for _, fd := range []int{s.lower, s.usr, s.etc, s.upper} {
		closeFD(fd)
	}
	for _, b := range s.binds {
		closeFD(b.fd)
	}
	for _, fd := range s.volumes {
		closeFD(fd)
	}
}

const overlayMagic = 0x794c7630 // OVERLAYFS_SUPER_MAGIC

// openSources opens all that the root is made of, as the machine shows it.
func (c *container) openSources() (*sources, error) {
	s := &sources{lower: -1, usr: -1, etc: -1, upper: -1}
	var err error
	if c.spec.NetNSPath != "" {
		if c.ns.net, err = unix.Open(c.spec.NetNSPath, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return s, fmt.Errorf("cannot open the network namespace %s: %w", c.spec.NetNSPath, err)
		}
	}
	r := &c.spec.Root
	if r.Host {
		err = c.openHost(s)
	} else {
		s.lower, err = openLower(r)
	}
	if err != nil {
		return s, err
	}
	if err := c.openWritable(s); err != nil {
		return s, err
	}
	for i := range c.spec.Mounts {
		fd, err := openVolume(&c.spec.Mounts[i])
		if err != nil {
			return s, err
		}
		s.volumes = append(s.volumes, fd)
	}
	return s, nil
}

func openLower(r *containers.Root) (int, error) {
	if !r.NoLinks {
		return cloneMount(unix.AT_FDCWD, r.Lower, false)
	}
	dir, err := openPlain(r.Lower, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer closeFD(dir)
	return cloneMount(dir, "", false)
}

// openWritable makes the folders for what is written. A file system that can't
// hold an overlay's writable layer is replaced by memory, and that is said.
func (c *container) openWritable(s *sources) error {
	dir := c.spec.Root.WritableDir
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the writable folder: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("cannot inspect the writable folder: %w", err)
	}
	if fs.Type == overlayMagic {
		c.notices = append(c.notices, "what it writes is kept in memory: the file system of "+dir+" is an overlay itself")
		return nil
	}
	for _, sub := range c.layerDirs() {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return fmt.Errorf("cannot make the writable folder: %w", err)
		}
	}
	var err error
	s.upper, err = cloneMount(unix.AT_FDCWD, dir, false)
	return err
}

// layerDirs are the folders needed below the writable one.
func (c *container) layerDirs() []string {
	if c.spec.Root.Host {
		return []string{"root", "usr/upper", "usr/work", "etc/upper", "etc/work"}
	}
	return []string{"upper", "work"}
}

// assembleRoot puts the root together below the base's root, mounts it over
// "/" and makes it the thread's root.
func (c *container) assembleRoot(s *sources) error {
	if err := c.mountUpper(s); err != nil {
		return err
	}
	root, err := -1, error(nil)
	if c.spec.Root.Host {
		root, err = c.hostRoot(s)
	} else {
		root, err = c.folderRoot(s)
	}
	if err != nil {
		return err
	}
	defer closeFD(root)
	return nil
}

// mountUpper attaches the writable layers' file system in the base. In memory
// it is a tmpfs of the container's own, freed with its mount namespace. It may
// take half of the memory that there is, as tmpfs(5) has it: of the container's
// where that is limited, or a full one would get its programs killed.
func (c *container) mountUpper(s *sources) error {
	if s.upper >= 0 {
		return attach(s.upper, baseUpper)
	}
	options := []option{{"mode", "0755"}}
	if n := c.spec.MemoryBytes; n > 0 {
		options = append(options, option{"size", strconv.FormatInt(n/2, 10)})
	}
	fd, err := newMount("tmpfs", 0, options...)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	for _, dir := range c.layerDirs() {
		for i := 1; i <= len(dir); i++ {
			if i == len(dir) || dir[i] == '/' {
				if err := unix.Mkdirat(fd, dir[:i], 0o755); err != nil && err != unix.EEXIST {
					return fmt.Errorf("cannot make a writable layer: %w", err)
				}
			}
		}
	}
	return attach(fd, baseUpper)
}

func (c *container) folderRoot(s *sources) (int, error) {
	if err := attach(s.lower, baseLower); err != nil {
		return -1, err
	}
	lower := []string{baseLower}
	if layers := c.spec.Root.Layers; len(layers) > 0 {
		lower = nil
		for _, l := range layers {
			if !filepath.IsLocal(l) {
				return -1, fmt.Errorf("the layer %q is not below the folder of the layers", l)
			}
			lower = append(lower, baseLower+"/"+l)
		}
	}
	fd, err := c.overlay(lower, lower[0], baseUpper, s.upper >= 0)
	if err != nil {
		return -1, err
	}
	if err := attach(fd, "/"); err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, enterRoot(fd)
}

// remember notes a mount whose files can be copied up.
func (c *container) remember(fd int) error {
	id, err := mountID(fd)
	if err != nil {
		return err
	}
	if c.mounts == nil {
		c.mounts = map[uint64]bool{}
	}
	c.mounts[id] = true
	return nil
}

func mountID(fd int) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, fmt.Errorf("cannot tell a file's mount: %w", err)
	}
	return st.Mnt_id, nil
}
