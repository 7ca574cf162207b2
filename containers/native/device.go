package native

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// device is a node that a container gets, and what it may do with it.
type device struct {
	target string // below /dev
	mode   uint32 // with the type
	uid    int
	gid    int
	number uint64
	access uint32 // of BPF_DEVCG_ACC_*
}

// findDevices looks up the spec's devices on the machine; of a folder all that
// are in it.
func findDevices(spec *containers.Spec) ([]device, error) {
	list := spec.Devices
	if spec.Privileged {
		list = append([]containers.Device{{Source: "/dev", Target: "/dev", Permissions: "rwm"}}, list...)
	}
	var all []device
	for _, d := range list {
		found, err := findDevice(d, spec.Privileged && d.Source == "/dev")
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func findDevice(d containers.Device, whole bool) ([]device, error) {
	if d.Target == "" {
		d.Target = d.Source
	}
	if t := path.Clean("/" + d.Target); !strings.HasPrefix(t, "/dev/") && !(whole && t == "/dev") {
		return nil, fmt.Errorf("cannot make the device %s: it is not below /dev", d.Target)
	}
	access, err := deviceAccess(d.Permissions)
	if err != nil {
		return nil, err
	}
	source, err := filepath.EvalSymlinks(d.Source)
	if err != nil {
		return nil, fmt.Errorf("cannot find the device %s: %w", d.Source, err)
	}
	var all []device
	err = filepath.WalkDir(source, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if whole && e.IsDir() && (file == "/dev/pts" || file == "/dev/shm" || file == "/dev/mqueue") {
			return fs.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(file, &st); err != nil {
			return ignoreMissing(err)
		}
		kind := st.Mode & unix.S_IFMT
		if kind != unix.S_IFBLK && kind != unix.S_IFCHR {
			return nil
		}
		target := path.Clean("/" + d.Target + strings.TrimPrefix(file, source))
		if whole && (target == "/dev/ptmx" || target == "/dev/console") {
			return nil
		}
		all = append(all, device{target, st.Mode, int(st.Uid), int(st.Gid), uint64(st.Rdev), access})
		return nil
	})
	if err == nil && len(all) == 0 && !whole {
		err = errors.New("it is not a device")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the device %s: %w", d.Source, err)
	}
	return all, nil
}

func deviceAccess(permissions string) (uint32, error) {
	if permissions == "" {
		permissions = "rwm"
	}
	var access uint32
	for _, p := range permissions {
		switch p {
		case 'r':
			access |= unix.BPF_DEVCG_ACC_READ
		case 'w':
			access |= unix.BPF_DEVCG_ACC_WRITE
		case 'm':
			access |= unix.BPF_DEVCG_ACC_MKNOD
		default:
			return 0, fmt.Errorf("unknown device permission %q", p)
		}
	}
	return access, nil
}

// makeDevices makes the nodes in a /dev that nobody has seen yet.
func makeDevices(dev int, list []device) error {
	for _, d := range list {
		name := strings.TrimPrefix(d.target, "/dev/")
		dir, base := splitPath(name)
		parent, err := mkdirAllIn(dev, dir, 0o755)
		if err != nil {
			return fmt.Errorf("cannot make the device %s: %w", d.target, err)
		}
		err = unix.Mknodat(parent, base, d.mode, int(d.number))
		if err == unix.EEXIST {
			err = nil // one that every container has
		} else if err == nil {
			err = unix.Fchownat(parent, base, d.uid, d.gid, unix.AT_SYMLINK_NOFOLLOW)
		}
		closeFD(parent)
		if err != nil {
			return fmt.Errorf("cannot make the device %s: %w", d.target, err)
		}
	}
	return nil
}

// makeConsole makes the place for the terminal's second name.
func makeConsole(dev int) error {
	fd, err := unix.Openat(dev, "console", unix.O_CREAT|unix.O_EXCL|unix.O_RDONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("cannot make /dev/console: %w", err)
	}
	closeFD(fd)
	return nil
}

// showConsole mounts the container's terminal on /dev/console. An earlier
// command of the container may have put something else there.
func (c *container) showConsole(slave int) error {
	target, err := unix.Openat2(int(c.root.Fd()), "dev/console", &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return fmt.Errorf("cannot open /dev/console: %w", err)
	}
	defer closeFD(target)
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.Join(errors.New("cannot use /dev/console: it is not what the engine made"), err)
	}
	fd, err := cloneMount(slave, "", false)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return attachTo(fd, target, "/dev/console")
}

// openTerminal makes a terminal in the container's own devpts. The thread is in
// the container.
func (c *container) openTerminal() (master *os.File, slave int, err error) {
	m, err := openIn(int(c.root.Fd()), "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("cannot open a terminal: %w", err)
	}
	master = os.NewFile(uintptr(m), "ptmx")
	if slave, err = openSlave(m); err == nil {
		if err = unix.Fchown(slave, int(c.user.uid), -1); err == nil {
			err = c.showConsole(slave)
		}
		if err != nil {
			closeFD(slave)
		}
	}
	if err != nil {
		return nil, -1, errors.Join(err, master.Close())
	}
	return master, slave, nil
}
