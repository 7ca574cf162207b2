package native

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// enter makes a container's cgroup with its limits and opens it.
func (h *hierarchies) enter(name string, spec *containers.Spec, devices int, more []device) (*entry, error) {
	if err := checkCgroup(name); err != nil {
		return nil, err
	}
	if h.v2 != "" {
		dir := filepath.Join(h.v2, name)
		// A clone into a cgroup that cgroup.kill has ever been written to is
		// killed at birth: Linux 6.18 compares the count of such kills
		// with that of the parent's cgroup. One in use has not been killed.
		_ = unix.Rmdir(dir)
		if err := mkdirCgroup(dir); err != nil {
			return nil, err
		}
	} else if err := h.devicesV1(name, spec.Privileged, more); err != nil {
		return nil, err
	}
	if err := h.setLimits(name, spec.MemoryBytes, spec.Pids, &spec.Resources); err != nil {
		return nil, err
	}
	e, err := h.open(name)
	if err != nil {
		return nil, err
	}
	// Left by an earlier run that was paused and killed.
	if err := h.thaw(name); err != nil {
		e.close()
		return nil, err
	}
	if h.v2 != "" {
		if err := attachDeviceFilter(filepath.Join(h.v2, name), devices); err != nil {
			e.close()
			return nil, err
		}
	}
	if spec.Delegate {
		if err := h.delegateTo(e); err != nil {
			e.close()
			return nil, err
		}
	}
	return e, nil
}

func (h *hierarchies) limit(name string, memory, pids int64, r *containers.Resources) error {
	if err := h.setLimits(name, memory, pids, r); err != nil {
		return err
	}
	// A v1 group that a limit has made just now is still empty.
	for _, controller := range []string{"memory", "pids", "cpu", "cpuset", "blkio"} {
		root := h.v1[controller]
		if root == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			continue
		}
		if err := h.gather(name, controller); err != nil {
			return err
		}
	}
	return nil
}

// minMemory is the least memory limit in bytes: with less the kernel kills a
// program while it is being executed, or refuses to clone.
const minMemory = 1 << 20

func (h *hierarchies) setLimits(name string, memory, pids int64, r *containers.Resources) error {
	dir, v1, err := h.limited(name, "memory", max(memory, r.MemReservation))
	switch {
	case err != nil:
		return err
	case v1:
		err = memoryV1(dir, memory, r)
	case dir != "":
		err = memoryV2(dir, memory, r)
	}
	if err != nil {
		return err
	}
	if dir, _, err = h.limited(name, "pids", pids); err != nil {
		return err
	}
	if dir != "" {
		if err := writeLimit(dir, "pids.max", pids, "max"); err != nil {
			return err
		}
	}
	return h.setResources(name, r)
}

// roomFor tells whether a container may have more processes. The kernel asks
// only when one is born: v1 lets any that enter a group exceed its limit.
func (h *hierarchies) roomFor(name string, more int64) error {
	var u Usage
	h.pidsUse(name, nil, &u)
	if u.PidsLimit == 0 || u.Pids+more <= u.PidsLimit {
		return nil
	}
	return fmt.Errorf("its processes and threads are as many as its pids_limit allows, %d", u.PidsLimit)
}

// limited gives the cgroup in which a controller works, and makes it for a
// limit: a v1 group exists only where there has been one.
func (h *hierarchies) limited(name, controller string, limit int64) (dir string, v1 bool, err error) {
	root := h.v1[controller]
	if v1 = root != ""; !v1 {
		root = h.v2
	}
	if root == "" {
		if limit > 0 {
			err = &containers.Unsupported{Feature: "cgroup " + controller + " controller"}
		}
		return "", false, err
	}
	dir = filepath.Join(root, name)
	if v1 && limit > 0 {
		err = mkdirCgroup(dir)
	}
	return dir, v1, err
}

// writeLimit sets a limit; what can't be limited needs no lifting.
func writeLimit(dir, file string, limit int64, none string) error {
	text := none
	if limit > 0 {
		text = strconv.FormatInt(limit, 10)
	}
	err := writeFile(filepath.Join(dir, file), text)
	switch {
	case errors.Is(err, os.ErrNotExist) && limit == 0:
		return nil
	case errors.Is(err, os.ErrNotExist):
		controller, _, _ := strings.Cut(file, ".")
		return &containers.Unsupported{Feature: "cgroup " + controller + " controller", Err: err}
	case errors.Is(err, unix.EBUSY):
		return &inUse{limit}
	case err != nil:
		return fmt.Errorf("cannot set %s to %s: %w", file, text, err)
	}
	return nil
}

// inUse is a memory limit below what the container uses and can't give back.
type inUse struct{ limit int64 }

func (e *inUse) Error() string {
	return fmt.Sprintf("memory limit of %d bytes is below what is in use", e.limit)
}

func (e *inUse) Unwrap() error { return unix.EBUSY }

// memoryV2 frees what it can before it sets a limit, as the kernel would kill
// processes to reach it.
func memoryV2(dir string, limit int64, r *containers.Resources) error {
	if over := inBytes(dir+"/memory.current") - limit; limit > 0 && over > 0 {
		// EAGAIN: not all of it, which the second look tells.
		_ = writeFile(dir+"/memory.reclaim", strconv.FormatInt(over, 10))
		if inBytes(dir+"/memory.current") > limit {
			return &inUse{limit}
		}
	}
	if err := writeLimit(dir, "memory.max", limit, "max"); err != nil {
		return err
	}
	if err := writeLimit(dir, "memory.low", r.MemReservation, "0"); err != nil {
		return err
	}
	swap := "max"
	if limit > 0 && r.MemSwap >= 0 {
		swap = strconv.FormatInt(max(0, r.MemSwap-limit), 10)
	}
	return ignoreNoSwap(writeFile(dir+"/memory.swap.max", swap))
}

// memoryV1 limits memory and swap together, the second of which may never be
// the lower one.
func memoryV1(dir string, limit int64, r *containers.Resources) error {
	const memory, both = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	total := limit
	if r.MemSwap != 0 {
		total = max(0, r.MemSwap)
	}
	order := []string{memory, both}
	if total == 0 || total > inBytes(filepath.Join(dir, both)) {
		order = []string{both, memory}
	}
	for _, file := range order {
		var err error
		if file == both {
			err = ignoreNoSwap(writeLimit(dir, file, total, "-1"))
		} else {
			err = writeLimit(dir, file, limit, "-1")
		}
		if err != nil {
			return err
		}
	}
	return writeLimit(dir, "memory.soft_limit_in_bytes", r.MemReservation, "-1")
}

func ignoreNoSwap(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// inBytes reads a number of a cgroup; 0 where there is none.
func inBytes(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// devicesV1 sets the device filter of a machine without a v2 tree.
func (h *hierarchies) devicesV1(name string, all bool, more []device) error {
	dir := filepath.Join(h.v1["devices"], name)
	if err := mkdirCgroup(dir); err != nil {
		return err
	}
	file, rules := "/devices.allow", []string{"a"}
	if !all {
		if err := writeFile(dir+"/devices.deny", "a"); err != nil {
			return fmt.Errorf("cannot set the device filter: %w", err)
		}
		rules = []string{"c *:* m", "b *:* m", "c 136:* rwm"}
		for _, d := range allowedDevices {
			rules = append(rules, fmt.Sprintf("c %d:%d rwm", d.major, d.minor))
		}
		for _, d := range more {
			rules = append(rules, d.ruleV1())
		}
	}
	for _, r := range rules {
		if err := writeFile(dir+file, r); err != nil {
			return fmt.Errorf("cannot set the device filter: %w", err)
		}
	}
	return nil
}

func (d *device) ruleV1() string {
	kind, access := "c", "m"
	if d.mode&unix.S_IFMT == unix.S_IFBLK {
		kind = "b"
	}
	if d.access&unix.BPF_DEVCG_ACC_READ != 0 {
		access += "r"
	}
	if d.access&unix.BPF_DEVCG_ACC_WRITE != 0 {
		access += "w"
	}
	return fmt.Sprintf("%s %d:%d %s", kind, unix.Major(d.number), unix.Minor(d.number), access)
}
