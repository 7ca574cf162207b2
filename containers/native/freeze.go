package native

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// Freeze stops or continues all processes of a container and returns when that
// is done. A container that can't be frozen within five seconds runs on. See
// cgroup.freeze in Documentation/admin-guide/cgroup-v2.rst and
// cgroup-v1/freezer-subsystem.rst.
func Freeze(cgroup string, frozen bool) error {
	if err := checkCgroup(cgroup); err != nil {
		return err
	}
	return findHierarchies().freeze(cgroup, frozen)
}

const freezeTimeout = 5 * time.Second

func (h *hierarchies) freeze(name string, frozen bool) error {
	if h.v2 == "" && h.v1["freezer"] == "" {
		return &containers.Unsupported{Feature: "cgroup freezer controller"}
	}
	if !frozen {
		return h.thaw(name)
	}
	// A process that starts in a frozen cgroup would never reach its exec, and
	// the thread that started it waits for that.
	lock, err := h.lock(name, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer closeFD(lock)
	deadline := time.Now().Add(freezeTimeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		done, err := h.tryFreeze(name)
		if err == nil && !done && time.Now().After(deadline) {
			err = os.ErrDeadlineExceeded
		}
		if err != nil {
			return errors.Join(fmt.Errorf("cannot freeze %s: %w", path.Base(name), err), h.thaw(name))
		}
		if done {
			return nil
		}
		time.Sleep(pause)
	}
}

// tryFreeze asks for the freeze and tells whether it is complete.
func (h *hierarchies) tryFreeze(name string) (bool, error) {
	if h.v2 != "" {
		dir := filepath.Join(h.v2, name)
		if err := writeFile(dir+"/cgroup.freeze", "1"); err != nil {
			return false, err
		}
		b, err := os.ReadFile(dir + "/cgroup.events")
		return strings.Contains(string(b), "frozen 1"), err
	}
	if err := h.gather(name, "freezer"); err != nil {
		return false, err
	}
	file := filepath.Join(h.v1["freezer"], name, "freezer.state")
	if err := writeFile(file, "FROZEN"); err != nil {
		return false, err
	}
	// Whoever was born elsewhere meanwhile is caught now, and frozen by that.
	if err := h.gather(name, "freezer"); err != nil {
		return false, err
	}
	b, err := os.ReadFile(file)
	return strings.TrimSpace(string(b)) == "FROZEN", err
}

func (h *hierarchies) thaw(name string) error {
	file, text := filepath.Join(h.v2, name, "cgroup.freeze"), "0"
	if h.v2 == "" {
		if h.v1["freezer"] == "" {
			return nil
		}
		file, text = filepath.Join(h.v1["freezer"], name, "freezer.state"), "THAWED"
	}
	if err := writeFile(file, text); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot thaw %s: %w", path.Base(name), err)
	}
	return nil
}

// thawTree thaws a v1 tree, whose processes can't be killed before.
func (h *hierarchies) thawTree(name string) error {
	root := h.v1["freezer"]
	if root == "" {
		return nil
	}
	return walkCgroups(filepath.Join(root, name), func(dir string) error {
		return ignoreGone(writeFile(dir+"/freezer.state", "THAWED"))
	})
}

// frozen tells whether a freeze was asked for.
func (h *hierarchies) frozen(name string) bool {
	if h.v2 != "" {
		b, err := os.ReadFile(filepath.Join(h.v2, name, "cgroup.freeze"))
		return err == nil && strings.TrimSpace(string(b)) == "1"
	}
	if h.v1["freezer"] == "" {
		return false
	}
	b, err := os.ReadFile(filepath.Join(h.v1["freezer"], name, "freezer.state"))
	return err == nil && strings.TrimSpace(string(b)) != "THAWED"
}

// lock keeps starts and freezes in a container apart, in all programs: the
// first share the lock. It is on the folder above the container's, which the
// container itself can't see and so can't lock.
func (h *hierarchies) lock(name string, how int) (int, error) {
	dir := filepath.Dir(filepath.Join(h.home(), name))
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open the cgroup %s: %w", dir, err)
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(fd, how)
	}
	if err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("cannot lock the cgroup %s: %w", dir, err)
	}
	return fd, nil
}

// gather moves all processes of a container into its group of a v1 controller,
// which it makes if need be. One that forks meanwhile may leave its child
// behind, so it looks again until there is none.
func (h *hierarchies) gather(name, controller string) error {
	into := filepath.Join(h.v1[controller], name)
	if err := mkdirCgroup(into); err != nil {
		return err
	}
	for {
		all, err := pidsIn(filepath.Join(h.home(), name))
		if err != nil {
			return ignoreGone(err)
		}
		b, err := os.ReadFile(into + "/cgroup.procs")
		if err != nil {
			return err
		}
		there := map[string]bool{}
		for pid := range strings.FieldsSeq(string(b)) {
			there[pid] = true
		}
		moved := false
		for _, pid := range all {
			if there[pid] {
				continue
			}
			err := writeFile(into+"/cgroup.procs", pid)
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("cannot move process %s into the cgroup %s: %w", pid, into, err)
			}
			moved = moved || err == nil
		}
		if !moved {
			return nil
		}
	}
}
