package native

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// hostBind is a folder of the machine's root that isn't merged into /usr.
type hostBind struct {
	name string
	fd   int
}

// systemDirs are links into /usr on a merged machine, folders on others.
var systemDirs = [...]string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// hostSkeleton is what the composite root has of its own. Programs from the
// machine expect these folders; what the machine keeps in them stays there.
var hostSkeleton = [...]struct {
	path string
	mode uint32
}{
	{"usr", 0o755}, {"etc", 0o755}, {"dev", 0o755}, {"proc", 0o755}, {"sys", 0o755},
	{"home", 0o755}, {"root", 0o700}, {"run", 0o755}, {"run/lock", 0o1777}, {"tmp", 0o1777},
	{"opt", 0o755}, {"srv", 0o755}, {"mnt", 0o755}, {"media", 0o755},
	{"var", 0o755}, {"var/cache", 0o755}, {"var/lib", 0o755}, {"var/lib/misc", 0o755}, {"var/local", 0o755},
	{"var/log", 0o755}, {"var/mail", 0o755}, {"var/opt", 0o755}, {"var/spool", 0o755}, {"var/tmp", 0o1777},
}

// openHost clones what the composite shows of the machine.
func (c *container) openHost(s *sources) error {
	c.engine.etcOnce.Do(func() { c.engine.etcErr = c.engine.base.hideEtc() })
	if c.engine.etcErr != nil {
		return c.engine.etcErr
	}
	var err error
	if s.usr, err = cloneMount(unix.AT_FDCWD, "/usr", false); err != nil {
		return err
	}
	if s.etc, err = cloneMount(unix.AT_FDCWD, "/etc", false); err != nil {
		return err
	}
	for _, name := range systemDirs {
		st, err := os.Lstat("/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot inspect /%s: %w", name, err)
		}
		b := hostBind{name: name, fd: -1}
		if st.IsDir() {
			if b.fd, err = cloneMount(unix.AT_FDCWD, "/"+name, true); err != nil {
				return err
			}
		}
		s.binds = append(s.binds, b)
	}
	return nil
}

// hostRoot assembles the composite: a root of its own, copy-on-write views of
// the machine's /usr and /etc, and links to them.
func (c *container) hostRoot(s *sources) (int, error) {
	disk := s.upper >= 0
	if err := attach(s.usr, baseUsr); err != nil {
		return -1, err
	}
	if err := attach(s.etc, baseEtc); err != nil {
		return -1, err
	}
	usr, err := c.overlay([]string{baseUsr}, baseUsr, baseUpper+"/usr", disk)
	if err != nil {
		return -1, err
	}
	defer closeFD(usr)
	etc, err := c.overlay([]string{baseHideEtc, baseEtc}, baseEtc, baseUpper+"/etc", disk)
	if err != nil {
		return -1, err
	}
	defer closeFD(etc)
	root, err := cloneMount(unix.AT_FDCWD, baseUpper+"/root", false)
	if err != nil {
		return -1, err
	}
	if err := c.furnishHost(root, usr, etc, s); err != nil {
		closeFD(root)
		return -1, err
	}
	return root, nil
}

func (c *container) furnishHost(root, usr, etc int, s *sources) error {
	if err := setMount(root, unix.MOUNT_ATTR_NODEV, false); err != nil {
		return err
	}
	for _, d := range hostSkeleton {
		err := inFolder(root, d.path, func(dir int, name string) error { return unix.Mkdirat(dir, name, d.mode) })
		if err != nil {
			return err
		}
	}
	links := [][2]string{{"var/run", "/run"}, {"var/lock", "/run/lock"}}
	for _, b := range s.binds {
		if b.fd >= 0 {
			err := inFolder(root, b.name, func(dir int, name string) error { return unix.Mkdirat(dir, name, 0o755) })
			if err != nil {
				return err
			}
			continue
		}
		links = append(links, [2]string{b.name, "usr/" + b.name})
	}
	for _, l := range links {
		err := inFolder(root, l[0], func(dir int, name string) error { return unix.Symlinkat(l[1], dir, name) })
		if err != nil {
			return err
		}
	}
	if err := attach(root, "/"); err != nil {
		return err
	}
	if err := enterRoot(root); err != nil {
		return err
	}
	if err := attach(usr, "/usr"); err != nil {
		return err
	}
	if err := attach(etc, "/etc"); err != nil {
		return err
	}
	for _, b := range s.binds {
		if b.fd < 0 {
			continue
		}
		if err := setMount(b.fd, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV, true); err != nil {
			return err
		}
		if err := attach(b.fd, "/"+b.name); err != nil {
			return err
		}
	}
	return nil
}

// inFolder makes something in a folder of the root. An earlier run of the
// container may have put a link in that folder's place, which must not lead out
// of the root, or something else, which stays.
func inFolder(root int, name string, make func(dir int, name string) error) error {
	parent, base := splitPath(name)
	dir, err := openIn(root, parent, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return ignoreMissing(err)
	}
	defer closeFD(dir)
	if err := make(dir, base); err != nil && err != unix.EEXIST {
		return fmt.Errorf("cannot make /%s: %w", name, err)
	}
	return nil
}

// hideEtc fills the layer above the machine's /etc: a whiteout for whatever
// `other` can't read, as a list of names would always miss one, and stand-ins
// for what programs need. It is made once and shared.
func (b *base) hideEtc() error {
	layer, err := unix.Openat(b.rw, baseHideEtc[1:], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the layer over /etc: %w", err)
	}
	defer closeFD(layer)
	h := &hider{layer: layer}
	if err := h.walk("", nil); err != nil {
		return fmt.Errorf("cannot hide what is private in /etc: %w", err)
	}
	return h.standIns()
}

type hider struct{ layer int }

func (h *hider) walk(dir string, made *bool) error {
	entries, err := os.ReadDir("/etc/" + dir)
	if err != nil {
		return ignoreMissing(err)
	}
	if dir == "" {
		root := true
		made = &root
		if err := h.imitate("", "."); err != nil {
			return err
		}
	}
	for _, e := range entries {
		name := strings.TrimPrefix(dir+"/"+e.Name(), "/")
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) || (err == nil && info.Mode()&os.ModeSymlink != 0) {
			continue
		}
		if err != nil {
			return err
		}
		need := os.FileMode(0o004)
		if info.IsDir() {
			need = 0o005
		}
		if info.Mode().Perm()&need != need || name == "machine-id" {
			if err := h.parents(dir); err != nil {
				return err
			}
			if err := h.whiteout(name); err != nil {
				return err
			}
			continue
		}
		if info.IsDir() {
			if err := h.walk(name, made); err != nil {
				return err
			}
		}
	}
	return nil
}

// parents makes a folder of the layer with its parents; they hide nothing and
// look like the machine's, as the upper layer's attributes are seen.
func (h *hider) parents(dir string) error {
	for i := 1; i <= len(dir); i++ {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		err := unix.Mkdirat(h.layer, dir[:i], 0o755)
		if err == unix.EEXIST {
			continue
		}
		if err != nil {
			return err
		}
		if err := h.imitate(dir[:i], dir[:i]); err != nil {
			return err
		}
	}
	return nil
}

func (h *hider) imitate(etc, name string) error {
	var st unix.Stat_t
	if err := unix.Stat("/etc/"+etc, &st); err != nil {
		return err
	}
	if err := unix.Fchownat(h.layer, name, int(st.Uid), int(st.Gid), 0); err != nil {
		return err
	}
	return unix.Fchmodat(h.layer, name, st.Mode&0o7777, 0)
}

// whiteout is a character device 0:0 (overlayfs.rst); making one needs no
// capability.
func (h *hider) whiteout(name string) error {
	return unix.Mknodat(h.layer, name, unix.S_IFCHR, 0)
}

// standIns writes password files in which every account is locked.
func (h *hider) standIns() error {
	for _, f := range [][2]string{{"passwd", "shadow"}, {"group", "gshadow"}} {
		b, err := os.ReadFile("/etc/" + f[0])
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot read /etc/%s: %w", f[0], err)
		}
		var text strings.Builder
		for line := range strings.Lines(string(b)) {
			name, _, ok := strings.Cut(line, ":")
			if !ok || name == "" {
				continue
			}
			if f[1] == "shadow" {
				fmt.Fprintf(&text, "%s:*:19000:0:99999:7:::\n", name)
			} else {
				fmt.Fprintf(&text, "%s:*::\n", name)
			}
		}
		if err := writeAt(h.layer, f[1], text.String()); err != nil {
			return fmt.Errorf("cannot write /etc/%s: %w", f[1], err)
		}
		if err := unix.Fchmodat(h.layer, f[1], 0o640, 0); err != nil {
			return fmt.Errorf("cannot protect /etc/%s: %w", f[1], err)
		}
	}
	if err := unix.Symlinkat("../proc/self/mounts", h.layer, "mtab"); err != nil && err != unix.EEXIST {
		return fmt.Errorf("cannot write /etc/mtab: %w", err)
	}
	return nil
}
