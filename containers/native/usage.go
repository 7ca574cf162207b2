package native

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is what a container uses and may use; a limit of 0 is none.
type Usage struct {
	CPU         uint64 // nanoseconds of all processors since it was made
	Memory      int64  // bytes, without file cache that is not in active use, as Docker counts
	MemoryLimit int64  // bytes
	Pids        int64  // threads too
	PidsLimit   int64
	ReadBytes   uint64 // from block devices
	WriteBytes  uint64
}

// ReadUsage reads a container's use of the machine. Where cgroup v1 has no group for it,
// as it has no limit, memory and block I/O are the sums over its processes
// that run. A container that is gone is os.ErrNotExist.
func ReadUsage(cgroup string) (Usage, error) {
	var u Usage
	if err := checkCgroup(cgroup); err != nil {
		return u, err
	}
	h := findHierarchies()
	home := filepath.Join(h.home(), cgroup)
	pids, err := pidsIn(home)
	if err != nil {
		return u, fmt.Errorf("cannot read the use of %s: %w", path.Base(cgroup), err)
	}
	u.CPU = h.cpuUse(cgroup, pids)
	h.memoryUse(cgroup, pids, &u)
	h.pidsUse(cgroup, pids, &u)
	h.ioUse(cgroup, pids, &u)
	return u, nil
}

// home is the tree that has every process.
func (h *hierarchies) home() string {
	if h.v2 != "" {
		return h.v2
	}
	return h.v1["devices"]
}

// pidsIn lists the processes of a tree.
func pidsIn(dir string) ([]string, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	var pids []string
	err := walkCgroups(dir, func(sub string) error {
		b, err := os.ReadFile(sub + "/cgroup.procs")
		pids = append(pids, strings.Fields(string(b))...)
		return ignoreGone(err)
	})
	return pids, err
}

func (h *hierarchies) cpuUse(name string, pids []string) uint64 {
	if h.v2 != "" {
		return 1000 * keyed(filepath.Join(h.v2, name, "cpu.stat"), "usage_usec")
	}
	var ticks uint64
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) > 12 {
			ticks += number(f[11]) + number(f[12]) // utime, stime
		}
	}
	return ticks * 1e7 // USER_HZ is 100 wherever we run
}

func (h *hierarchies) memoryUse(name string, pids []string, u *Usage) {
	dir, use, limit, cache := filepath.Join(h.v2, name), "memory.current", "memory.max", "inactive_file"
	if root := h.v1["memory"]; root != "" {
		dir, use, limit, cache = filepath.Join(root, name), "memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"
	}
	if total := inBytes(filepath.Join(dir, use)); total > 0 {
		u.Memory = max(0, total-int64(keyed(filepath.Join(dir, "memory.stat"), cache)))
		u.MemoryLimit = inBytes(filepath.Join(dir, limit))
		if u.MemoryLimit > 1<<62 { // v1's word for none
			u.MemoryLimit = 0
		}
		return
	}
	for _, pid := range pids {
		file := "/proc/" + pid + "/status"
		u.Memory += 1024 * int64(keyed(file, "RssAnon:")+keyed(file, "RssShmem:"))
	}
}

func (h *hierarchies) pidsUse(name string, pids []string, u *Usage) {
	root := h.v1["pids"]
	if root == "" {
		root = h.v2
	}
	dir := filepath.Join(root, name)
	u.PidsLimit = inBytes(dir + "/pids.max")
	if _, err := os.Stat(dir + "/pids.current"); err == nil {
		u.Pids = inBytes(dir + "/pids.current")
		return
	}
	for _, pid := range pids {
		u.Pids += int64(keyed("/proc/"+pid+"/status", "Threads:"))
	}
}

func (h *hierarchies) ioUse(name string, pids []string, u *Usage) {
	if b, err := os.ReadFile(filepath.Join(h.v2, name, "io.stat")); h.v2 != "" && err == nil {
		for f := range strings.FieldsSeq(string(b)) {
			if n, ok := strings.CutPrefix(f, "rbytes="); ok {
				u.ReadBytes += number(n)
			}
			if n, ok := strings.CutPrefix(f, "wbytes="); ok {
				u.WriteBytes += number(n)
			}
		}
		return
	}
	if root := h.v1["blkio"]; root != "" {
		b, err := os.ReadFile(filepath.Join(root, name, "blkio.throttle.io_service_bytes_recursive"))
		if err == nil {
			for line := range strings.Lines(string(b)) {
				f := strings.Fields(line)
				if len(f) == 3 && f[1] == "Read" {
					u.ReadBytes += number(f[2])
				}
				if len(f) == 3 && f[1] == "Write" {
					u.WriteBytes += number(f[2])
				}
			}
			return
		}
	}
	for _, pid := range pids {
		u.ReadBytes += keyed("/proc/"+pid+"/io", "read_bytes:")
		u.WriteBytes += keyed("/proc/"+pid+"/io", "write_bytes:")
	}
}

// keyed reads the number behind a key in a file of lines; 0 where there is none.
func keyed(file, key string) uint64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key {
			return number(f[1])
		}
	}
	return 0
}

func number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
