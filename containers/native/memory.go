package native

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// tmpfsFlags are the options of a memory file system that its mount has.
var tmpfsFlags = map[string]struct{ set, clear int }{
	"ro": {set: unix.MOUNT_ATTR_RDONLY}, "rw": {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid": {set: unix.MOUNT_ATTR_NOSUID}, "suid": {clear: unix.MOUNT_ATTR_NOSUID},
	"noexec": {set: unix.MOUNT_ATTR_NOEXEC}, "exec": {clear: unix.MOUNT_ATTR_NOEXEC},
	"nodev": {set: unix.MOUNT_ATTR_NODEV}, "noatime": {set: unix.MOUNT_ATTR_NOATIME},
	"relatime": {}, "private": {}, "rprivate": {},
}

// mountTmpfs mounts a memory file system: without setuid programs, devices and
// programs unless its options say otherwise, as Docker does.
func (c *container) mountTmpfs(m *containers.Tmpfs) error {
	attr, options := quiet, []option{}
	set := func(key, value string) { options = append(options, option{key, value}) }
	mode := m.Mode
	if mode == 0 {
		mode = 0o1777
	}
	set("mode", strconv.FormatUint(uint64(mode), 8))
	set("uid", strconv.Itoa(m.UID))
	set("gid", strconv.Itoa(m.GID))
	if m.Size > 0 {
		set("size", strconv.FormatInt(m.Size, 10))
	}
	for o := range strings.SplitSeq(m.Options, ",") {
		key, value, valued := strings.Cut(o, "=")
		flag, known := tmpfsFlags[o]
		switch {
		case o == "":
		case known:
			attr = attr&^flag.clear | flag.set
		case valued && value != "" && strings.Contains(" size mode uid gid nr_inodes nr_blocks ", " "+key+" "):
			set(key, value)
		default:
			return fmt.Errorf("cannot mount a tmpfs on %s: unknown option %q", m.Target, o)
		}
	}
	fd, err := newMount("tmpfs", attr, options...)
	if err != nil {
		return fmt.Errorf("cannot mount a tmpfs on %s: %w", m.Target, err)
	}
	defer closeFD(fd)
	target, err := c.mountPoint(m.Target, true)
	if err != nil {
		return fmt.Errorf("cannot mount a tmpfs on %s: %w", m.Target, err)
	}
	defer closeFD(target)
	return attachTo(fd, target, m.Target)
}

// holdFiles puts the spec's files into one memory file system, which stays out
// of reach in the base, and gives the mounts that show each at its place.
func (c *container) holdFiles() ([]mounting, error) {
	if len(c.spec.Files) == 0 {
		return nil, nil
	}
	hold, err := newMount("tmpfs", quiet, option{"mode", "0700"})
	if err != nil {
		return nil, err
	}
	defer closeFD(hold)
	for i := range c.spec.Files {
		if err := holdFile(hold, strconv.Itoa(i), &c.spec.Files[i]); err != nil {
			return nil, fmt.Errorf("cannot write %s: %w", c.spec.Files[i].Target, err)
		}
	}
	// Only what is attached can be cloned before Linux 6.15.
	at, err := unix.Openat(c.baseFD, baseFiles[1:], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the base: %w", err)
	}
	defer closeFD(at)
	if err := attachTo(hold, at, baseFiles); err != nil {
		return nil, err
	}
	var all []mounting
	for i := range c.spec.Files {
		all = append(all, mounting{c.spec.Files[i].Target, func() error { return c.showFile(i) }})
	}
	return all, nil
}

func holdFile(dir int, name string, f *containers.File) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), f.Target)
	_, err = file.Write(f.Content)
	return errors.Join(err, unix.Fchown(fd, f.UID, f.GID), unix.Fchmod(fd, f.Mode&0o7777), file.Close())
}

func (c *container) showFile(i int) error {
	f := &c.spec.Files[i]
	fd, err := cloneMount(c.baseFD, baseFiles[1:]+"/"+strconv.Itoa(i), false)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	if err := setMount(fd, unix.MOUNT_ATTR_RDONLY, false); err != nil {
		return err
	}
	target, err := c.mountPoint(f.Target, false)
	if err != nil {
		return fmt.Errorf("cannot put a file at %s: %w", f.Target, err)
	}
	defer closeFD(target)
	return attachTo(fd, target, f.Target)
}

// maxRoots bounds the certificates that are taken from a root, in bytes.
const maxRoots = 8 << 20

// completeFiles gives files to the container's user, and adds what the root
// trusts to those that ask for it. It comes last: volumes may have brought the
// user or the certificates.
func (c *container) completeFiles() error {
	for i := range c.spec.Files {
		f := &c.spec.Files[i]
		if !f.Own && !f.Roots {
			continue
		}
		if err := c.completeFile(baseFiles[1:]+"/"+strconv.Itoa(i), f); err != nil {
			return fmt.Errorf("cannot write %s: %w", f.Target, err)
		}
	}
	return nil
}

func (c *container) completeFile(name string, f *containers.File) error {
	fd, err := unix.Openat(c.baseFD, name, unix.O_WRONLY|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), f.Target)
	defer file.Close()
	if f.Own {
		if err := unix.Fchown(fd, int(c.user.uid), int(c.user.gid)); err != nil {
			return err
		}
	}
	if f.Roots {
		_, err = file.Write(trusted(int(c.root.Fd())))
	}
	return err
}

// trusted are the certificates that a root's own programs trust, where its
// distribution keeps them in one file (crypto/x509 looks in the same places).
func trusted(root int) []byte {
	for _, path := range []string{
		"/etc/ssl/certs/ca-certificates.crt",
		"/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem",
		"/etc/pki/tls/cacert.pem",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		"/etc/ssl/cert.pem",
	} {
		if b, err := readIn(root, path, maxRoots); err == nil {
			return append([]byte{'\n'}, b...)
		}
	}
	return nil
}
