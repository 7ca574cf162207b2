package native

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// OOMWatch waits until the kernel kills processes of a container for memory.
// It costs one descriptor and, while nothing happens, no time.
type OOMWatch struct {
	groups *hierarchies
	cgroup string
	v1     bool
	file   *os.File
	raw    syscall.RawConn
}

// WatchOOM watches a container; where nothing counts its kills, as it has no
// limit, it is nil. Close ends it.
func WatchOOM(cgroup string) (*OOMWatch, error) {
	if err := checkCgroup(cgroup); err != nil {
		return nil, err
	}
	h := findHierarchies()
	file, v1 := h.oomFile(cgroup)
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err == nil && v1 {
		fd, err = notifyV1(fd, filepath.Dir(file))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot watch %s: %w", file, err)
	}
	w := &OOMWatch{groups: h, cgroup: cgroup, v1: v1, file: os.NewFile(uintptr(fd), file)}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return nil, fmt.Errorf("cannot watch %s: %w", file, err)
	}
	return w, nil
}

// notifyV1 has an eventfd(2) become readable when memory runs out:
// Documentation/admin-guide/cgroup-v1/memory.rst, section 10. It owns control.
func notifyV1(control int, dir string) (int, error) {
	defer closeFD(control)
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if err := writeFile(dir+"/cgroup.event_control", fmt.Sprintf("%d %d", fd, control)); err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

// Wait blocks until there have been more kills than the given number and
// returns how many; after Close it is os.ErrClosed.
func (w *OOMWatch) Wait(known uint64) (uint64, error) {
	var now uint64
	err := w.raw.Read(func(fd uintptr) bool {
		var b [256]byte
		told := 0 // to read it makes the kernel tell the next time
		if w.v1 {
			told, _ = unix.Read(int(fd), b[:])
		} else {
			_, _ = unix.Pread(int(fd), b[:], 0)
		}
		now = w.groups.oomKills(w.cgroup)
		// v1 tells before it kills.
		for pause := time.Millisecond; told > 0 && now <= known && pause < 100*time.Millisecond; pause *= 2 {
			time.Sleep(pause)
			now = w.groups.oomKills(w.cgroup)
		}
		return now > known
	})
	return now, err
}

// Close ends the watch and a Wait.
func (w *OOMWatch) Close() error { return w.file.Close() }

// OOMKills is how many processes of a container the kernel has killed for
// memory since its cgroup was made.
func OOMKills(cgroup string) uint64 {
	if checkCgroup(cgroup) != nil {
		return 0
	}
	return findHierarchies().oomKills(cgroup)
}

// OOMsBefore is what OOMKills gave when the process began.
func (p *process) OOMsBefore() uint64 { return p.ooms }

// oomFile is the file that counts the kills.
func (h *hierarchies) oomFile(name string) (file string, v1 bool) {
	if root := h.v1["memory"]; root != "" {
		return filepath.Join(root, name, "memory.oom_control"), true
	}
	return filepath.Join(h.v2, name, "memory.events"), false
}

// oomKills reads the counter of processes that the kernel killed for memory.
func (h *hierarchies) oomKills(name string) uint64 {
	file, _ := h.oomFile(name)
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
