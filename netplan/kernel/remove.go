package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// Remove takes away everything that Apply made below o, finished or not. It
// needs no plan: a name is ours when it points into PinDir, and the pins go
// with their tmpfs. The kernel then takes the namespaces down by itself, once
// the last process in them is gone.
func Remove(o Options) error {
	failed := []error{pruneHost(&netplan.Plan{}, o)}
	entries, err := os.ReadDir(o.NetNSDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		failed = append(failed, fmt.Errorf("cannot list namespaces: %w", err))
	}
	for _, e := range entries {
		path := filepath.Join(o.NetNSDir, e.Name())
		if e.Type() != fs.ModeSymlink || !pointsInto(path, o.PinDir) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("cannot remove the name of a namespace: %w", err))
		}
	}
	return errors.Join(append(failed, removePinDir(o.PinDir))...)
}

// removePinDir unmounts all that is on or below dir and removes it.
func removePinDir(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot remove %s: %w", dir, err)
	}
	// A mount each round, and a round to see that none is left. More than one
	// only after two Applies ran at the same time.
	const rounds = 64
	for range rounds {
		mounts, err := mountsBelow(real)
		if err != nil {
			return err
		}
		if len(mounts) == 0 {
			if err := os.Remove(real); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot remove %s: %w", dir, err)
			}
			return nil
		}
		// The first in mountinfo is a mount that others hang below.
		err = unix.Unmount(mounts[0], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("cannot unmount %s: %w", mounts[0], err)
		}
	}
	return fmt.Errorf("cannot unmount %s: something mounts it again and again", dir)
}

// mountsBelow lists the mount points on and below dir, in mountinfo's order.
func mountsBelow(dir string) ([]string, error) {
	raw, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot read mounts: %w", err)
	}
	var found []string
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			found = append(found, point)
		}
	}
	return found, nil
}

// unescape undoes the octal escapes of mountinfo, proc_pid_mountinfo(5).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
