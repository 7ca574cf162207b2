package native

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// WriteFiles gives a running container other names: /etc/hosts and
// /etc/resolv.conf are replaced at once, each unless its text is empty. A file
// in a mount of the user's stays as it is and is a *containers.Bound, joined
// with whatever else fails.
func WriteFiles(ref containers.ProcessRef, hosts, resolvConf string) error {
	root, err := OpenRoot(ref)
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := os.ReadFile("/proc/" + strconv.Itoa(ref.Pid) + "/mountinfo")
	if err != nil {
		return fmt.Errorf("cannot read the container's mounts: %w", err)
	}
	if !Alive(ref) {
		return os.ErrProcessDone
	}
	own := ownMounts(string(info))
	var failed []error
	for _, f := range []struct{ name, text string }{{"/etc/hosts", hosts}, {"/etc/resolv.conf", resolvConf}} {
		if strings.TrimSpace(f.text) == "" {
			continue
		}
		err := replaceIn(ref, int(root.Fd()), f.name, f.text, own)
		var bound *containers.Bound
		if err != nil && !errors.As(err, &bound) {
			err = fmt.Errorf("cannot write %s: %w", f.name, err)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// ownMounts finds the overlays of ours in a mountinfo file (proc(5)): no other
// has its writable layer where the base has it.
func ownMounts(info string) map[uint64]bool {
	own := map[uint64]bool{}
	for line := range strings.Lines(info) {
		mount, fs, _ := strings.Cut(line, " - ")
		fields := strings.Fields(fs)
		if len(fields) != 3 || fields[0] != "overlay" {
			continue
		}
		for o := range strings.SplitSeq(fields[2], ",") {
			if !strings.HasPrefix(o, "upperdir="+baseUpper+"/") {
				continue
			}
			number, _, _ := strings.Cut(mount, " ")
			if id, err := strconv.ParseUint(number, 10, 64); err == nil {
				own[id] = true
			}
		}
	}
	return own
}

// replaceIn replaces a file by renaming a new one, so that nobody reads half of
// it, a link at its place is never followed, and neither is a hard link.
func replaceIn(ref containers.ProcessRef, root int, file, text string, own map[uint64]bool) error {
	folder, name := path.Split(file)
	dir, err := openIn(root, folder, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer closeFD(dir)
	id, err := mountID(dir)
	if err != nil {
		return err
	}
	if !own[id] {
		return &containers.Bound{Path: file}
	}
	old, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		var at uint64
		at, err = mountID(old)
		closeFD(old)
		if err == nil && at != id {
			return &containers.Bound{Path: file}
		}
	}
	if err != nil && err != unix.ENOENT {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir, &fs); err != nil {
		return err
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		writable, err := writableFolder(ref, dir)
		if err != nil {
			return err
		}
		defer closeFD(writable)
		dir = writable
	}
	// The container can't take a name in advance that it can't guess.
	fresh := "." + name + "." + rand.Text()
	fd, err := unix.Openat(dir, fresh, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = unix.Renameat(dir, fresh, dir, name)
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(unix.Unlinkat(dir, fresh, 0)))
	}
	return nil
}

// writableFolder opens a folder of a container's read-only root for writing, on
// a mount of its own that the container doesn't see.
func writableFolder(ref containers.ProcessRef, dir int) (int, error) {
	pidfd, err := openRef(ref)
	if err != nil {
		return -1, err
	}
	defer closeFD(pidfd)
	fd := -1
	err = onThread(func(t *thread) error {
		// A mount can be cloned only from inside its namespace.
		if err := unix.Setns(pidfd, unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("cannot enter the container: %w", err)
		}
		if fd, err = cloneMount(dir, "", false); err != nil {
			return err
		}
		return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
	})
	if err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("cannot write to the read-only root: %w", err)
	}
	return fd, nil
}
