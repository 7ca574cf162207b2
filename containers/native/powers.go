package native

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// powers is what a process of a container may do and use beyond its user's
// own rights.
type powers struct {
	caps          uint64
	filter        *unix.SockFprog // nil: none
	newPrivileges bool
	limits        []rlimit
	oomScoreAdj   int
	oomInherited  int // this process's own
	appArmor      string
}

type rlimit struct {
	resource uintptr
	limit    *unix.Rlimit
}

// powersOf reads the fields that a Spec and an ExecSpec share. normal is the
// filter of the default capabilities.
func powersOf(s *containers.ExecSpec, normal *unix.SockFprog) (*powers, error) {
	w := &powers{newPrivileges: s.NewPrivileges || s.Privileged, oomScoreAdj: s.OOMScoreAdj, filter: normal}
	var err error
	if w.caps, err = grantCaps(s.CapAdd, s.CapDrop, s.Privileged); err != nil {
		return nil, err
	}
	switch {
	case s.Seccomp == "unconfined" || s.Seccomp == "" && s.Privileged:
		w.filter = nil
	case s.Seccomp != "":
		w.filter, err = customFilter(s.Seccomp, w.caps)
	case w.caps != defaultCaps:
		w.filter, err = defaultFilter(w.caps)
	}
	if err != nil {
		return nil, err
	}
	if w.limits, err = ulimits(s.Ulimits); err != nil {
		return nil, err
	}
	if now := new(unix.Rlimit); unix.Getrlimit(unix.RLIMIT_NOFILE, now) == nil &&
		!slices.ContainsFunc(w.limits, func(l rlimit) bool { return l.resource == unix.RLIMIT_NOFILE }) {
		w.limits = append(w.limits, rlimit{unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: min(1024, now.Max), Max: min(openFiles, now.Max)}})
	}
	if s.OOMScoreAdj < -1000 || s.OOMScoreAdj > 1000 {
		return nil, fmt.Errorf("OOM score adjustment of %d is not within -1000 and 1000", s.OOMScoreAdj)
	}
	// Who is protected from being ended for memory doesn't protect containers.
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		if w.oomInherited, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
			return nil, fmt.Errorf("cannot read the OOM score adjustment: %w", err)
		}
	}
	if err := seLinux(s.Label); err != nil {
		return nil, err
	}
	w.appArmor, err = appArmor(s.AppArmor)
	return w, err
}

// grantedPowers are those that this process can give its children.
func grantedPowers(s *containers.ExecSpec, normal *unix.SockFprog) (*powers, error) {
	w, err := powersOf(s, normal)
	if err != nil {
		return nil, err
	}
	return w, errors.Join(checkLimits(containers.ProcessRef{}, s.Ulimits), checkOOMScore(containers.ProcessRef{}, s.OOMScoreAdj))
}

// seLinux refuses labels where they would mean something; elsewhere they are
// left aside, as Docker does.
func seLinux(label string) error {
	if label == "" || label == "disable" || fsType("/sys/fs/selinux") != unix.SELINUX_MAGIC {
		return nil
	}
	return &containers.Unsupported{Feature: "an engine that sets SELinux labels"}
}

// specPowers are the fields of a Spec that powersOf reads.
func specPowers(s *containers.Spec) *containers.ExecSpec {
	return &containers.ExecSpec{Groups: s.Groups, Ulimits: s.Ulimits, OOMScoreAdj: s.OOMScoreAdj, CapAdd: s.CapAdd, CapDrop: s.CapDrop,
		Privileged: s.Privileged, Seccomp: s.Seccomp, NewPrivileges: s.NewPrivileges, AppArmor: s.AppArmor, Label: s.Label}
}

// appArmor refuses a profile where the kernel knows none; without one given
// the machine's is kept, as Docker does on such a machine.
func appArmor(profile string) (string, error) {
	if profile == "" || profile == "unconfined" {
		return profile, nil
	}
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || strings.TrimSpace(string(b)) != "Y" {
		return "", &containers.Unsupported{Feature: "AppArmor", Err: err}
	}
	return profile, nil
}

// rlimitNames are the resources of setrlimit(2).
var rlimitNames = map[string]uintptr{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
	"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

func ulimits(list []containers.Ulimit) ([]rlimit, error) {
	var out []rlimit
	for _, u := range list {
		r, ok := rlimitNames[u.Name]
		if !ok {
			return nil, fmt.Errorf("unknown ulimit %q", u.Name)
		}
		soft, hard := uint64(u.Soft), uint64(u.Hard) // -1 is RLIM_INFINITY
		if soft > hard {
			return nil, fmt.Errorf("ulimit %s: the soft limit %d is above the hard limit %d", u.Name, u.Soft, u.Hard)
		}
		if r == unix.RLIMIT_NOFILE {
			if most := uint64(inBytes("/proc/sys/fs/nr_open")); most > 0 && hard > most {
				return nil, fmt.Errorf("ulimit nofile of %d is above this machine's fs.nr_open, %d", u.Hard, most)
			}
		}
		out = append(out, rlimit{r, &unix.Rlimit{Cur: soft, Max: hard}})
	}
	return out, nil
}

// empower adds what needs the machine's root still.
func (p *program) empower(w *powers) {
	// A higher one than the default can stay: not everybody may lower it.
	if w.oomScoreAdj != w.oomInherited && (w.oomScoreAdj != 0 || w.oomInherited < 0) {
		p.write("set the OOM score adjustment", "/proc/self/oom_score_adj", strconv.Itoa(w.oomScoreAdj))
	}
	if w.appArmor != "" && w.appArmor != "unconfined" {
		p.write("set the AppArmor profile", "/proc/self/attr/apparmor/exec", "exec "+w.appArmor)
	}
	// Last: a limit of open files below the engine's own keeps all else from opening any.
	for _, l := range w.limits {
		p.add("set a resource limit", 0, unix.SYS_PRLIMIT64, 0, l.resource, mem(p, l.limit), 0)
	}
}

// write adds the writing of a file; its descriptor closes with the exec.
func (p *program) write(name, path, text string) {
	const cwd = uintptr(0xffffff9c) // AT_FDCWD
	p.add(name, opSave, unix.SYS_OPENAT, cwd, p.str(path), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	p.add(name, opUse, unix.SYS_WRITE, 0, p.str(text), uintptr(len(text)))
}
