package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// hierarchies are the machine's cgroup trees: v2 alone, v2 beside v1
// controllers (hybrid), or v1 alone. Every process is in the v2 tree where
// there is one; v1 controllers are used for what a v2 tree can't do then.
type hierarchies struct {
	v2     string            // its mount point, or ""
	v1     map[string]string // mount points by controller
	hybrid bool
}

const cgroupDir = "/sys/fs/cgroup"

func findHierarchies() *hierarchies {
	h := &hierarchies{v1: map[string]string{}}
	if fsType(cgroupDir) == unix.CGROUP2_SUPER_MAGIC {
		h.v2 = cgroupDir
		return h
	}
	if dir := cgroupDir + "/unified"; fsType(dir) == unix.CGROUP2_SUPER_MAGIC {
		h.v2, h.hybrid = dir, true
	}
	controllers := []string{"memory", "pids", "devices", "cpu", "cpuset", "blkio"}
	if h.v2 == "" {
		controllers = append(controllers, "freezer")
	}
	for _, c := range controllers {
		if dir := cgroupDir + "/" + c; fsType(dir) == unix.CGROUP_SUPER_MAGIC {
			h.v1[c] = dir
		}
	}
	return h
}

func fsType(path string) int64 {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil {
		return 0
	}
	return int64(fs.Type)
}

// check keeps names inside the trees.
func checkCgroup(name string) error {
	if name == "" || !filepath.IsLocal(name) {
		return fmt.Errorf("cannot use the cgroup name %q", name)
	}
	return nil
}

// make makes a cgroup that is no leaf: its children may have limits.
func (h *hierarchies) make(name string) error {
	if err := checkCgroup(name); err != nil {
		return err
	}
	if h.v2 == "" {
		if h.v1["devices"] == "" {
			return &containers.Unsupported{Feature: "control groups"}
		}
		return mkdirCgroup(filepath.Join(h.v1["devices"], name))
	}
	if err := mkdirCgroup(filepath.Join(h.v2, name)); err != nil {
		return err
	}
	if !h.hybrid {
		h.delegate(name)
	}
	return nil
}

// delegate turns the controllers on down the path as far as the machine lets
// us; a limit that then can't be set is reported by setLimits.
func (h *hierarchies) delegate(name string) {
	dir := h.v2
	for _, part := range append([]string{""}, strings.Split(name, "/")...) {
		dir = filepath.Join(dir, part)
		for _, c := range []string{"+memory", "+pids", "+cpu", "+cpuset", "+io"} {
			_ = writeFile(dir+"/cgroup.subtree_control", c)
		}
	}
}

// mkdirCgroup makes the parents too, and again when another topology's end
// removes our common one meanwhile: ENODEV is from one that is just going.
func mkdirCgroup(dir string) error {
	err := unix.Mkdir(dir, 0o755)
	for try := 0; (err == unix.ENOENT || err == unix.ENODEV) && try < 1000; try++ {
		if err := mkdirCgroup(filepath.Dir(dir)); err != nil {
			return err
		}
		err = unix.Mkdir(dir, 0o755)
	}
	if err != nil && err != unix.EEXIST {
		return fmt.Errorf("cannot make the cgroup %s: %w", dir, err)
	}
	return nil
}

// writeFile writes without making the file, which cgroupfs refuses anyway.
func writeFile(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	_, err = unix.Write(fd, []byte(text))
	return err
}

// entry is how a new process gets into a cgroup: by clone into dir, and by
// writing "0" to tasks.
type entry struct {
	name  string
	dir   int
	tasks []int
	lock  int    // keeps the container from being frozen meanwhile
	ooms  uint64 // OOM kills so far
}

func (e *entry) close() {
	closeFD(e.dir)
	closeFD(e.lock)
	for _, fd := range e.tasks {
		closeFD(fd)
	}
}

// open opens an existing cgroup in all hierarchies that have it.
func (h *hierarchies) open(name string) (*entry, error) {
	if err := checkCgroup(name); err != nil {
		return nil, err
	}
	e := &entry{name: name, dir: -1, ooms: h.oomKills(name)}
	var err error
	if e.lock, err = h.lock(name, unix.LOCK_SH); err != nil {
		return nil, err
	}
	if h.v2 != "" {
		fd, err := unix.Open(filepath.Join(h.v2, name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			e.close()
			return nil, fmt.Errorf("cannot open the cgroup %s: %w", name, err)
		}
		e.dir = fd
	}
	for _, root := range h.v1 {
		fd, err := unix.Open(filepath.Join(root, name, "tasks"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			e.close()
			return nil, fmt.Errorf("cannot open the cgroup %s: %w", name, err)
		}
		e.tasks = append(e.tasks, fd)
	}
	return e, nil
}

// OpenCgroup makes and opens a cgroup of the v2 tree.
func OpenCgroup(name string) (*os.File, error) {
	h := findHierarchies()
	if h.v2 == "" {
		return nil, &containers.Unsupported{Feature: "a cgroup v2 tree"}
	}
	if err := checkCgroup(name); err != nil {
		return nil, err
	}
	dir := filepath.Join(h.v2, name)
	if err := mkdirCgroup(dir); err != nil {
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the cgroup %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// JoinCgroup moves a process into a cgroup of each hierarchy that has it; "" is
// the root, which all have.
func JoinCgroup(name string, pid int) error {
	h := findHierarchies()
	if name != "" {
		if err := h.make(name); err != nil {
			return err
		}
	}
	at := cgroupsOf(pid)
	for _, root := range h.trees() {
		now := at[h.controller(root)]
		if now == "/"+name {
			continue // to say so again takes as long as to move it
		}
		if name == "" && root != h.v2 && !strings.HasPrefix(now, "/platelayer") {
			// A limit that somebody else put on the process stays.
			continue
		}
		err := writeFile(filepath.Join(root, name, "cgroup.procs"), strconv.Itoa(pid))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot move process %d into the cgroup %q: %w", pid, name, err)
		}
	}
	return nil
}

// LeaveSession moves a process out of those v1 cgroups of a login session whose
// limits end processes, into name: a container without such a limit stays where
// its parent is. A group of the cpu controller would be one share for all
// containers together. Where the machine does not let us, all stays as it is.
//
// Who is in a root, which has no limits, stays there: to move a process makes the
// kernel wait until no other is about to fork (cgroup_threadgroup_rwsem).
func LeaveSession(name string, pid int) error {
	if err := checkCgroup(name); err != nil {
		return err
	}
	h, at := findHierarchies(), cgroupsOf(pid)
	for _, c := range []string{"memory", "pids"} {
		root := h.v1[c]
		if root == "" || at[c] == "/" || at[c] == "/"+name {
			continue
		}
		if mkdirCgroup(filepath.Join(root, name)) == nil {
			_ = writeFile(filepath.Join(root, name, "cgroup.procs"), strconv.Itoa(pid))
		}
	}
	return nil
}

// cgroupsOf tells where a process is, by controller; "" is the v2 tree
// (cgroups(7), /proc/PID/cgroup). Of one that can't be told it is nowhere.
func cgroupsOf(pid int) map[string]string {
	at := map[string]string{}
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	for line := range strings.Lines(string(b)) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		for c := range strings.SplitSeq(controllers, ",") {
			at[c] = path
		}
	}
	return at
}

// controller is what /proc/PID/cgroup calls a tree.
func (h *hierarchies) controller(root string) string {
	if root == h.v2 {
		return ""
	}
	return filepath.Base(root)
}

// trees lists the mount points, the v2 tree's first.
func (h *hierarchies) trees() []string {
	var all []string
	if h.v2 != "" {
		all = append(all, h.v2)
	}
	for _, root := range h.v1 {
		all = append(all, root)
	}
	return all
}

// KillCgroup kills everything at or below a cgroup and waits until it is empty.
func KillCgroup(ctx context.Context, name string) error {
	if err := checkCgroup(name); err != nil {
		return err
	}
	return findHierarchies().kill(ctx, name)
}

func (h *hierarchies) kill(ctx context.Context, name string) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		left := 0
		for _, root := range h.trees() {
			n, err := killTree(filepath.Join(root, name))
			if err != nil {
				return fmt.Errorf("cannot kill the cgroup %s: %w", name, err)
			}
			left += n
		}
		if left == 0 {
			return nil
		}
		// A frozen process of v1 takes no signal.
		if err := h.thawTree(name); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot empty the cgroup %s: %w", name, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// killTree kills what is in a tree and tells how many it found: with
// cgroup.kill (Linux 5.14, v2 only) one answer for all.
func killTree(dir string) (int, error) {
	if b, err := os.ReadFile(dir + "/cgroup.events"); err == nil {
		if !strings.Contains(string(b), "populated 1") {
			return 0, nil
		}
		err := writeFile(dir+"/cgroup.kill", "1")
		if err == nil || errors.Is(err, unix.ENODEV) {
			return 1, nil
		}
	}
	found := 0
	err := walkCgroups(dir, func(sub string) error {
		b, err := os.ReadFile(sub + "/cgroup.procs")
		if err != nil {
			return ignoreGone(err)
		}
		for pid := range strings.FieldsSeq(string(b)) {
			found++
			n, err := strconv.Atoi(pid)
			if err != nil {
				return err
			}
			if err := killIn(sub, n); err != nil {
				return err
			}
		}
		return nil
	})
	return found, err
}

// killIn kills a process through a pidfd that was opened before its place in
// the cgroup was seen, so that a reused pid is never hit.
func killIn(dir string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return ignoreGone(err)
	}
	defer closeFD(fd)
	b, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		return ignoreGone(err)
	}
	for p := range strings.FieldsSeq(string(b)) {
		if p == strconv.Itoa(pid) {
			return ignoreGone(unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
		}
	}
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// walkCgroups calls f for the folders of a tree, the deepest first.
func walkCgroups(dir string, f func(string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreGone(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := walkCgroups(filepath.Join(dir, e.Name()), f); err != nil {
				return err
			}
		}
	}
	return f(dir)
}

// RemoveCgroup removes an empty tree, then our parent folder with the last one.
func RemoveCgroup(name string) error {
	if err := checkCgroup(name); err != nil {
		return err
	}
	return findHierarchies().remove(name)
}

func (h *hierarchies) remove(name string) error {
	for _, root := range h.trees() {
		if err := walkCgroups(filepath.Join(root, name), rmdirCgroup); err != nil {
			return err
		}
		if top, rest, _ := strings.Cut(name, "/"); rest != "" && top == "platelayer" {
			err := unix.Rmdir(filepath.Join(root, top))
			if err != nil && err != unix.ENOTEMPTY && err != unix.EBUSY && err != unix.ENOENT {
				return fmt.Errorf("cannot remove the cgroup %s: %w", top, err)
			}
		}
	}
	return nil
}

// rmdirCgroup waits for what has been killed: an exiting process leaves its
// cgroup a moment after it stops being listed.
func rmdirCgroup(dir string) error {
	deadline := time.Now().Add(2 * time.Second)
	for pause := time.Millisecond; ; pause *= 2 {
		err := unix.Rmdir(dir)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY || time.Now().After(deadline) {
			return fmt.Errorf("cannot remove the cgroup %s: %w", dir, err)
		}
		time.Sleep(pause)
	}
}
