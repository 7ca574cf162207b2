package native

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"platelayer/containers"
)

// TestSystemContainer boots systemd as process 1 in the folder that
// PLATELAYER_SYSTEMD_ROOT names, such as mmdebstrap makes with
// --include=systemd; without it, of the machine's own programs.
func TestSystemContainer(t *testing.T) {
	const systemd = "/lib/systemd/systemd"
	r := newRig(t)
	root := containers.Root{Lower: os.Getenv("PLATELAYER_SYSTEMD_ROOT")}
	if root.Lower == "" {
		if _, err := exec.LookPath(systemd); err != nil {
			t.Skip("no systemd")
		}
		root.Host = true
	}
	s := r.spec("", "")
	s.Root, s.Args, s.NetNSPath = root, []string{systemd, "--unit=try.target"}, netNS(t)
	s.Env = []string{"container=platelayer"}
	s.Delegate = true
	s.Tmpfs = []containers.Tmpfs{{Target: "/run", Mode: 0o755}, {Target: "/run/lock"}, {Target: "/tmp"}}
	s.Files = []containers.File{
		{Target: "/etc/systemd/system/try.target", Mode: 0o644, Content: []byte("[Unit]\nRequires=try.service\nAfter=try.service\nAllowIsolate=yes\n")},
		{Target: "/etc/systemd/system/try.service", Mode: 0o644, Content: []byte("[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'cat /proc/self/cgroup >/run/ran'\n")},
	}
	p := r.start(s)
	name := r.cgroup + "/" + s.Name
	run := func(args ...string) string {
		t.Helper()
		rd, w, err := os.Pipe()
		must(t, err)
		e, err := Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: name, Args: args, Stdout: w, Stderr: w})
		must(t, err)
		must(t, w.Close())
		b, err := io.ReadAll(rd)
		must(t, err)
		_, err = e.Wait()
		must(t, err)
		must(t, rd.Close())
		return strings.TrimSpace(string(b))
	}
	ran := filepath.Join("/proc", itoa(p.Ref().Pid), "root/run/ran")
	until(t, "unit that ran", func() bool { b, err := os.ReadFile(ran); return err == nil && len(b) > 0 || !Alive(p.Ref()) })
	if b, err := os.ReadFile(ran); err != nil || !strings.Contains(string(b), "0::/system.slice/try.service") {
		t.Errorf("got %q, %v", b, err)
	}
	if got := run("systemctl", "is-active", "try.service"); got != "active" {
		t.Errorf("got %q", got)
	}
	if got := run("sh", "-c", "mkdir /sys/fs/cgroup/mine && rmdir /sys/fs/cgroup/mine && echo made; cat /sys/fs/cgroup/../../../proc/self/cgroup | grep ^0:"); got != "made\n0::/init.scope" {
		t.Errorf("got %q", got)
	}
	must(t, p.Signal(syscall.Signal(34+3))) // SIGRTMIN+3: halt (systemd(1))
	exit, err := p.Wait()
	must(t, err)
	t.Logf("%+v", exit)
	if exit.Signal == syscall.SIGKILL {
		t.Errorf("got %+v", exit)
	}
}
