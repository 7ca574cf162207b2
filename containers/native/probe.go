package native

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Probe tells what this machine can do of what the engine needs. It makes
// nothing that stays and works without privilege.
func Probe() []Feature {
	h := findHierarchies()
	return []Feature{
		probeKernel(), probePrivilege(), probeOverlay(), probeCgroup(h), probeCgroupKill(h), probeLimits(h),
		probeSeccomp(), probeOpenat2(), probePidfd(), probeLSM(),
	}
}

func probeKernel() Feature {
	f := Feature{Name: "kernel 6.1 or later", Required: true, Remedy: "use a newer kernel"}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		f.Detail = err.Error()
		return f
	}
	f.Detail = unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(f.Detail, "%d.%d", &major, &minor); err == nil {
		f.OK = major > 6 || major == 6 && minor >= 1
	}
	return f
}

func probePrivilege() Feature {
	f := Feature{Name: "privilege", Required: true, Remedy: "run it as root"}
	held, err := heldCaps()
	if err != nil {
		f.Detail = err.Error()
		return f
	}
	lacking := capList((defaultCaps | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_MKNOD) &^ held)
	f.OK = len(lacking) == 0
	f.Detail = "all capabilities needed"
	if !f.OK {
		f.Detail = "lacks " + strings.Join(lacking, " ")
	}
	return f
}

func probeOverlay() Feature {
	f := Feature{Name: "overlay file system", Required: true, Remedy: "load the kernel module overlay"}
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		f.Detail = err.Error()
		return f
	}
	f.OK = strings.Contains(string(b), "\toverlay\n")
	f.Detail = "known to the kernel"
	if !f.OK {
		f.Detail = "not known to the kernel, unless it loads a module for it"
	}
	return f
}

func probeCgroup(h *hierarchies) Feature {
	f := Feature{Name: "control groups", Required: true, OK: true, Remedy: "mount a cgroup2 file system on " + cgroupDir}
	switch {
	case h.hybrid:
		f.Detail = "v2 beside v1 controllers"
	case h.v2 != "":
		f.Detail = "v2"
	case h.v1["devices"] != "":
		f.Detail = "v1"
	default:
		f.OK, f.Detail = false, "none found in "+cgroupDir
	}
	return f
}

func probeCgroupKill(h *hierarchies) Feature {
	f := Feature{Name: "cgroup.kill", Remedy: "none needed: processes are killed one by one"}
	if h.v2 == "" {
		f.Detail = "no v2 tree"
		return f
	}
	entries, err := os.ReadDir(h.v2)
	if err != nil {
		f.Detail = err.Error()
		return f
	}
	for _, e := range entries {
		if e.IsDir() {
			_, err := os.Stat(h.v2 + "/" + e.Name() + "/cgroup.kill")
			f.OK = err == nil
			f.Detail = "seen in " + e.Name()
			return f
		}
	}
	f.OK, f.Detail = true, "not seen, as there is no cgroup yet"
	return f
}

// limitControllers are the cgroup controllers that limits need, with the keys of
// a station that need them; v1 calls io blkio.
var limitControllers = [...]struct{ name, v1, keys string }{
	{"cpu", "cpu", "cpus, cpu_shares"},
	{"cpuset", "cpuset", "cpuset"},
	{"memory", "memory", "mem_limit, memswap_limit, mem_reservation"},
	{"pids", "pids", "pids_limit"},
	{"io", "blkio", "blkio_config"},
}

func probeLimits(h *hierarchies) Feature {
	f := Feature{Name: "resource limits", Remedy: "boot with these cgroup controllers on"}
	var have, lack []string
	b, _ := os.ReadFile(h.v2 + "/cgroup.controllers") // none without a v2 tree
	v2 := strings.Fields(string(b))
	for _, c := range limitControllers {
		switch {
		case h.v1[c.v1] != "":
			have = append(have, c.v1+" (v1)")
		case slices.Contains(v2, c.name):
			have = append(have, c.name+" (v2)")
		default:
			lack = append(lack, c.name+" (for "+c.keys+")")
		}
	}
	f.OK = len(lack) == 0
	var parts []string
	if len(have) > 0 {
		parts = append(parts, "cgroup controllers "+strings.Join(have, ", "))
	}
	if !f.OK {
		parts = append(parts, "lacks "+strings.Join(lack, ", "))
	}
	f.Detail = strings.Join(parts, "; ")
	return f
}

func probeSeccomp() Feature {
	f := Feature{Name: "system call filter", Required: true, Remedy: "use a kernel with CONFIG_SECCOMP_FILTER"}
	// EFAULT: known, and it looked for the filter.
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0)
	f.OK = errno == unix.EFAULT || errno == unix.EACCES
	f.Detail = "known to the kernel"
	if !f.OK {
		f.Detail = errno.Error()
	}
	return f
}

func probeOpenat2() Feature {
	f := Feature{Name: "openat2", Required: true, Remedy: "use a newer kernel, or allow the call where a sandbox denies it"}
	fd, err := openIn(unix.AT_FDCWD, ".", unix.O_PATH, 0)
	closeFD(fd)
	f.OK, f.Detail = err == nil, "works"
	if err != nil {
		f.Detail = err.Error()
	}
	return f
}

func probePidfd() Feature {
	f := Feature{Name: "pidfd", Required: true, Remedy: "use a newer kernel, or allow the call where a sandbox denies it"}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	closeFD(fd)
	f.OK, f.Detail = err == nil, "works"
	if err != nil {
		f.Detail = err.Error()
	}
	return f
}

func probeLSM() Feature {
	f := Feature{Name: "security modules", OK: true, Detail: "none listed"}
	if b, err := os.ReadFile("/sys/kernel/security/lsm"); err == nil {
		f.Detail = strconv.Quote(strings.TrimSpace(string(b)))
	}
	return f
}
