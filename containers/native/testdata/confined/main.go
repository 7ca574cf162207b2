// Command confined tells from inside a container what it may do there, as JSON:
// an object of topics, each an object of lines. Its arguments are the machine's
// namespaces, as readlink tells them: mnt:[1]. The same program runs in a
// container of docker's (ci/docker-probe) and in a station.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

type topic map[string]string

func main() {
	runtime.LockOSThread()
	if len(os.Args) == 3 && os.Args[1] == "do" {
		do(os.Args[2])
		return
	}
	all := map[string]topic{
		"capabilities": status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
		"process":      process(), "namespaces": namespaces(os.Args[1:]), "paths": paths(), "devices": devices(),
		"mounts": mounts(), "limits": limits(), "settings": settings(), "calls": calls(), "deeds": deeds(),
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	if err := out.Encode(all); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func status(names ...string) topic {
	t := topic{}
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return t
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		if slices.Contains(names, name) {
			t[name] = strings.TrimSpace(value)
		}
	}
	return t
}

func process() topic {
	t := status("NoNewPrivs", "Seccomp", "Uid", "Gid", "Umask")
	t["pid"] = fmt.Sprint(os.Getpid())
	for _, name := range []string{"oom_score_adj", "cgroup"} {
		b, _ := os.ReadFile("/proc/self/" + name)
		t[name] = strings.TrimSpace(string(b))
	}
	// Its controllers' names are the machine's; where each leads is not.
	t["cgroup"] = "its own root"
	b, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && f[1] == "" && f[2] != "/" {
			t["cgroup"] = f[2]
		}
	}
	bits, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, 27, 0, 0) // PR_GET_SECUREBITS
	t["securebits"] = fmt.Sprint(bits, errno == 0)
	var in, dev syscall.Stat_t
	if syscall.Fstat(0, &in) == nil && syscall.Stat("/dev", &dev) == nil && in.Mode&syscall.S_IFMT == syscall.S_IFCHR {
		t["standard input's file system"] = "another"
		if in.Dev == dev.Dev {
			t["standard input's file system"] = "its own"
		}
		t["mode of the null device"] = "kept"
		if syscall.Fchmod(0, in.Mode&0o7777) == nil && in.Dev != dev.Dev {
			t["mode of the null device"] = "changed"
		}
	}
	return t
}

func namespaces(machine []string) topic {
	t := topic{}
	for _, name := range []string{"mnt", "pid", "net", "uts", "ipc", "cgroup", "user", "time"} {
		own, err := os.Readlink("/proc/self/ns/" + name)
		t[name] = "its own"
		if err != nil || slices.Contains(machine, own) {
			t[name] = "the machine's"
		}
	}
	return t
}

// probed are the paths that docker masks or makes read-only, and further ones
// by which containers have been left.
var probed = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
	"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	"/sys/devices/system/cpu/cpu0/thermal_throttle", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
	"/proc/kmsg", "/proc/kallsyms", "/proc/kpageflags", "/proc/iomem", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/panic_on_oom",
	"/proc/sys/fs/binfmt_misc", "/sys", "/sys/kernel/uevent_helper", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security", "/sys/fs/bpf", "/sys/fs/cgroup", "/sys/power/state",
	"/dev/mem", "/dev/kmsg", "/dev/port", "/dev/fuse", "/dev/net/tun", "/dev/console", "/run/docker.sock", "/run/platelayer",
}

func paths() topic {
	t := topic{}
	for _, p := range probed {
		t[p] = look(p)
	}
	return t
}

// look tells what can be had of a path: absent, hidden, refused, read, written.
func look(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return "absent"
	}
	if st.IsDir() {
		list, err := os.ReadDir(path)
		if err != nil {
			return "refused"
		}
		if syscall.Access(path, 2) == nil {
			return "written"
		}
		if len(list) == 0 {
			return "hidden"
		}
		return "read"
	}
	var raw syscall.Stat_t
	if syscall.Stat(path, &raw) == nil && raw.Mode&syscall.S_IFMT == syscall.S_IFCHR && raw.Rdev == 1<<8|3 {
		return "hidden"
	}
	if fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
		syscall.Close(fd)
		return "written"
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "refused"
	}
	defer syscall.Close(fd)
	// Some files open and then refuse; none of these blocks.
	if _, err := syscall.Read(fd, make([]byte, 1)); err != nil && err != syscall.EAGAIN {
		return "refused"
	}
	return "read"
}

func devices() topic {
	t := topic{}
	filepath.WalkDir("/dev", func(path string, e fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err != nil || syscall.Lstat(path, &st) != nil {
			return nil
		}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFCHR, syscall.S_IFBLK:
			t[path] = fmt.Sprintf("%d:%d %o", st.Rdev>>8&0xfff, st.Rdev&0xff, st.Mode)
		case syscall.S_IFLNK:
			to, _ := os.Readlink(path)
			t[path] = "-> " + to
		}
		return nil
	})
	return t
}

func mounts() topic {
	t := topic{}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return t
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		own, kind, _ := strings.Cut(s.Text(), " - ")
		fields, of := strings.Fields(own), strings.Fields(kind)
		if len(fields) < 6 || len(of) < 1 {
			continue
		}
		options := strings.Split(fields[5], ",")
		slices.Sort(options)
		spread := ""
		for _, f := range fields[6:] {
			spread += " " + strings.Split(f, ":")[0]
		}
		t[fields[4]] = of[0] + " " + strings.Join(options, ",") + spread
	}
	return t
}

func limits() topic {
	t := topic{}
	f, err := os.Open("/proc/self/limits")
	if err != nil {
		return t
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if line := s.Text(); len(line) > 26 && strings.HasPrefix(line, "Max") {
			if f := strings.Fields(line[26:]); len(f) >= 2 {
				t[strings.TrimSpace(line[:26])] = f[0] + " " + f[1]
			}
		}
	}
	return t
}

// settings lists what of /proc/sys and /sys can be opened for writing; nothing
// is written.
func settings() topic {
	t := topic{}
	for _, root := range []string{"/proc/sys", "/sys"} {
		filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !e.Type().IsRegular() {
				return nil
			}
			if fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
				syscall.Close(fd)
				t[path] = "written"
			}
			return nil
		})
	}
	return t
}
