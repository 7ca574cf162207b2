package native

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"platelayer/containers"
)

// enter makes a container's cgroup with its limits and opens it.
func (h *hierarchies) enter(name string, spec *containers.Spec, devices int) (*entry, error) {
	if err := checkCgroup(name); err != nil {
		return nil, err
	}
	if h.v2 != "" {
		if err := mkdirCgroup(filepath.Join(h.v2, name)); err != nil {
			return nil, err
		}
	} else if err := h.devicesV1(name); err != nil {
		return nil, err
	}
	if err := h.setLimits(name, spec); err != nil {
		return nil, err
	}
	e, err := h.open(name)
	if err != nil {
		return nil, err
	}
	if h.v2 != "" {
		if err := attachDeviceFilter(filepath.Join(h.v2, name), devices); err != nil {
			e.close()
			return nil, err
		}
	}
	return e, nil
}

// limit is one setting, by the name of its file in either version.
type limit struct {
	controller, v2, v1, value string
	optional                  bool // the file may be missing: no swap
}

func (h *hierarchies) setLimits(name string, spec *containers.Spec) error {
	var limits []limit
	if spec.MemoryBytes > 0 {
		n := strconv.FormatInt(spec.MemoryBytes, 10)
		limits = append(limits,
			limit{controller: "memory", v2: "memory.max", v1: "memory.limit_in_bytes", value: n},
			// v2 counts swap by itself, v1 together with memory.
			limit{controller: "memory", v2: "memory.swap.max", value: "0", optional: true},
			limit{controller: "memory", v1: "memory.memsw.limit_in_bytes", value: n, optional: true})
	}
	if spec.Pids > 0 {
		limits = append(limits, limit{controller: "pids", v2: "pids.max", v1: "pids.max", value: strconv.FormatInt(spec.Pids, 10)})
	}
	for _, l := range limits {
		root, file := h.v2, l.v2
		if v1 := h.v1[l.controller]; v1 != "" {
			root, file = v1, l.v1
		}
		if file == "" {
			continue
		}
		if root == "" {
			return &containers.Unsupported{Feature: "cgroup " + l.controller + " controller"}
		}
		dir := filepath.Join(root, name)
		if err := mkdirCgroup(dir); err != nil {
			return err
		}
		err := writeFile(filepath.Join(dir, file), l.value)
		if errors.Is(err, os.ErrNotExist) && l.optional {
			continue
		}
		if errors.Is(err, os.ErrNotExist) {
			return &containers.Unsupported{Feature: "cgroup " + l.controller + " controller", Err: err}
		}
		if err != nil {
			return fmt.Errorf("cannot set %s to %s: %w", file, l.value, err)
		}
	}
	return nil
}

// oomKilled reads the counter of processes that the kernel killed for memory.
func (h *hierarchies) oomKilled(name string) bool {
	file := filepath.Join(h.v2, name, "memory.events")
	if root := h.v1["memory"]; root != "" {
		file = filepath.Join(root, name, "memory.oom_control")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strings.TrimSpace(n) != "0"
		}
	}
	return false
}

// devicesV1 sets the device filter of a machine without a v2 tree.
func (h *hierarchies) devicesV1(name string) error {
	dir := filepath.Join(h.v1["devices"], name)
	if err := mkdirCgroup(dir); err != nil {
		return err
	}
	if err := writeFile(dir+"/devices.deny", "a"); err != nil {
		return fmt.Errorf("cannot set the device filter: %w", err)
	}
	rules := []string{"c *:* m", "b *:* m", "c 136:* rwm"}
	for _, d := range allowedDevices {
		rules = append(rules, fmt.Sprintf("c %d:%d rwm", d.major, d.minor))
	}
	for _, r := range rules {
		if err := writeFile(dir+"/devices.allow", r); err != nil {
			return fmt.Errorf("cannot set the device filter: %w", err)
		}
	}
	return nil
}
