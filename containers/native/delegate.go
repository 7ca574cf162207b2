package native

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// payload is the cgroup that a container with a delegated one sees as the root:
// below the one with its limits, which it can't reach.
const payload = "payload"

// payloadDepth keeps the paths of what a container makes in its payload, with
// names of 255 bytes each, shorter than PATH_MAX: longer ones couldn't be
// removed by their names when it is gone. It counts from above the payload,
// where the container can't change it.
const payloadDepth = 14

// delegateTo makes a fresh payload and has the next process enter that.
func (h *hierarchies) delegateTo(e *entry) error {
	if h.v2 == "" {
		return &containers.Unsupported{Feature: "a cgroup v2 tree to delegate"}
	}
	top := filepath.Join(h.v2, e.name)
	dir := filepath.Join(top, payload)
	// A system manager of an earlier run leaves groups and controllers behind.
	if err := walkCgroups(dir, rmdirCgroup); err != nil {
		return err
	}
	if err := mkdirCgroup(dir); err != nil {
		return err
	}
	if err := writeFile(top+"/cgroup.max.depth", strconv.Itoa(payloadDepth)); err != nil {
		return fmt.Errorf("cannot bound the depth of %s: %w", top, err)
	}
	if !h.hybrid {
		for _, c := range []string{"+memory", "+pids", "+cpu", "+cpuset", "+io"} {
			_ = writeFile(top+"/cgroup.subtree_control", c) // what the machine has
		}
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the cgroup %s: %w", dir, err)
	}
	closeFD(e.dir)
	e.dir = fd
	return nil
}

// enterPayload has the next process enter the group that a container's process
// 1 is in, where that is a delegated one: a group that has others below may
// hold no process itself.
func (h *hierarchies) enterPayload(e *entry, pid int) error {
	if h.v2 == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(h.v2, e.name, payload)); err != nil {
		return ignoreMissing(err)
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return fmt.Errorf("cannot find the container's cgroup: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		if !ok || !strings.HasPrefix(name, e.name+"/"+payload) {
			continue
		}
		fd, err := unix.Open(filepath.Join(h.v2, name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("cannot open the container's cgroup: %w", err)
		}
		closeFD(e.dir)
		e.dir = fd
	}
	return nil
}
