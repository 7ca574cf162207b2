package native

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"platelayer/containers"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestPowers looks from inside at what a process may do.
func TestPowers(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	must(t, os.Symlink("busybox", filepath.Join(root, "bin/mkdir")))
	caps := "grep -E '^Cap(Inh|Eff|Bnd)' /proc/self/status | tr -d '\\t'"
	set := func(eff uint64) string {
		hex := strconv.FormatUint(eff, 16)
		hex = strings.Repeat("0", 16-len(hex)) + hex
		return "CapInh:0000000000000000\nCapEff:" + hex + "\nCapBnd:" + hex + "\n"
	}
	only, err := capSet([]string{"NET_ADMIN"})
	must(t, err)
	held, err := heldCaps()
	must(t, err)
	chown, err := capSet([]string{"CHOWN"})
	must(t, err)
	const denyMkdir = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}`
	for _, tc := range []struct {
		what   string
		change func(*containers.Spec)
		script string
		want   string
	}{
		{"cap_add", func(s *containers.Spec) { s.CapAdd = []string{"NET_ADMIN"} }, caps, set(defaultCaps | only)},
		{"cap_drop", func(s *containers.Spec) { s.CapDrop = []string{"CAP_CHOWN"} }, caps, set(defaultCaps &^ chown)},
		{"drop all but", func(s *containers.Spec) { s.CapDrop, s.CapAdd = []string{"ALL"}, []string{"net_admin"} }, caps, set(only)},
		{"all but", func(s *containers.Spec) { s.CapAdd, s.CapDrop = []string{"ALL"}, []string{"CHOWN"} }, caps, set(held &^ chown)},
		{"privileged", func(s *containers.Spec) { s.Privileged = true }, caps + "; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\t'", set(held) + "NoNewPrivs:0\nSeccomp:0\n"},
		{"user keeps none", func(s *containers.Spec) { s.CapAdd, s.User = []string{"NET_ADMIN"}, "ann" }, "grep CapEff /proc/self/status | tr -d '\\t'", "CapEff:0000000000000000\n"},
		{"mount with SYS_ADMIN", func(s *containers.Spec) { s.CapAdd = []string{"SYS_ADMIN"} }, "mount -t tmpfs none /tmp && echo yes", "yes\n"},
		{"unconfined", func(s *containers.Spec) { s.Seccomp = "unconfined" }, "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'", "NoNewPrivs:1\nSeccomp:0\n"},
		{"profile", func(s *containers.Spec) { s.Seccomp = denyMkdir }, "mkdir /tmp/d 2>&1 | grep -o 'not implemented'; touch /tmp/f && echo yes", "not implemented\nyes\n"},
		{"profile and new privileges", func(s *containers.Spec) { s.Seccomp, s.NewPrivileges = denyMkdir, true }, "mkdir /tmp/d 2>&1 | grep -o 'not implemented'; grep Privs /proc/self/status | tr -d '\\t'", "not implemented\nNoNewPrivs:0\n"},
		{"groups", func(s *containers.Spec) { s.Groups, s.User = []string{"staff", "777"}, "1000:1000" }, "id -G", "1000 50 777\n"},
		{"ulimits", func(s *containers.Spec) {
			s.Ulimits = []containers.Ulimit{{Name: "nofile", Soft: 77, Hard: 99}, {Name: "core", Soft: -1, Hard: -1}}
		}, "ulimit -n; ulimit -Hn; ulimit -c", "77\n99\nunlimited\n"},
		{"oom_score_adj", func(s *containers.Spec) { s.OOMScoreAdj = 321; s.User = "ann" }, "cat /proc/1/oom_score_adj", "321\n"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := r.spec(root, tc.script)
			tc.change(s)
			if out, _ := r.run(s); out != tc.want {
				t.Errorf("got %q, want %q", out, tc.want)
			}
		})
	}
}

func TestSetuidProgram(t *testing.T) {
	r := newRig(t)
	root, volume := busyboxRoot(t), t.TempDir()
	addProbe(t, volume)
	must(t, os.Chmod(volume, 0o755))
	must(t, os.Chmod(filepath.Join(volume, "probe"), 0o755|os.ModeSetuid))
	for newPrivileges, want := range map[bool]string{false: "1000\n", true: "0\n"} {
		s := r.spec(root, "/data/probe uid")
		s.User, s.NewPrivileges = "ann", newPrivileges
		s.Mounts = []containers.Mount{{Source: volume, Target: "/data"}}
		if out, _ := r.run(s); out != want {
			t.Errorf("new privileges %v: got %q", newPrivileges, out)
		}
	}
}

// TestProbeLimits names every controller that a limit needs, found or lacking.
func TestProbeLimits(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte("cpu io memory\n"), 0o644))
	for _, tc := range []struct {
		h    hierarchies
		ok   bool
		want string
	}{
		{hierarchies{v2: dir}, false, "cgroup controllers cpu (v2), memory (v2), io (v2); lacks cpuset (for cpuset), pids (for pids_limit)"},
		{hierarchies{v2: dir, hybrid: true, v1: map[string]string{"pids": "x", "cpuset": "y", "blkio": "z"}}, true,
			"cgroup controllers cpu (v2), cpuset (v1), memory (v2), pids (v1), blkio (v1)"},
		{hierarchies{}, false, "lacks cpu (for cpus, cpu_shares), cpuset (for cpuset), memory (for mem_limit, memswap_limit, mem_reservation), pids (for pids_limit), io (for blkio_config)"},
	} {
		f := probeLimits(&tc.h)
		if f.OK != tc.ok || f.Detail != tc.want {
			t.Errorf("got %v %q, want %q", f.OK, f.Detail, tc.want)
		}
	}
}
