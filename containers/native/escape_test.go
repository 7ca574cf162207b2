package native

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// TestEscapes tries from inside a container what has led out of others; each
// script prints only what it got.
func TestEscapes(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	other := r.start(r.spec(root, "exec sleep 100"))
	defer func() {
		must(t, other.Signal(syscall.SIGKILL))
		_, err := other.Wait()
		must(t, err)
	}()
	pid := itoa(other.Ref().Pid)
	for what, tc := range map[string]struct{ script, want string }{
		"leaked descriptors (CVE-2024-21626)": {"for n in 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do cat /proc/self/fd/$n/../../../etc/hostname 2>/dev/null; done; readlink /proc/1/cwd", "/\n"},
		"a signal to another container":       {"kill -9 " + pid + " 2>/dev/null || echo no", "no\n"},
		"another container's root":            {"ls /proc/" + pid + "/root 2>/dev/null || echo no", "no\n"},
		"the machine's processes":             {"ls -d /proc/[0-9]* | wc -l | grep -q '^[1-4]$' && echo few", "few\n"},
		"core pattern":                        {"(echo '|/x' >/proc/sys/kernel/core_pattern) 2>/dev/null || echo no", "no\n"},
		"uevent helper":                       {"(echo /x >/sys/kernel/uevent_helper) 2>/dev/null || echo no", "no\n"},
		"release agent (CVE-2022-0492)":       {"unshare -C true 2>/dev/null; mount -t cgroup -o rdma c /tmp 2>/dev/null || echo no", "no\n"},
		"unmasking":                           {"umount /proc/kcore 2>/dev/null; umount -l /proc/sys 2>/dev/null; mount -o remount,rw /proc/sys 2>/dev/null || echo no", "no\n"},
		"devices by number":                   {"mknod /tmp/m c 1 1 2>/dev/null || mknod /dev/m c 1 1 2>/dev/null || echo no", "no\n"},
		"a larger limit":                      {"(echo max >/sys/fs/cgroup/pids.max) 2>/dev/null; mkdir /sys/fs/cgroup/x 2>/dev/null || echo no", "no\n"},
		"the machine's null device":           {"test $(stat -L -c %d /proc/self/fd/0) = $(stat -c %d /dev/null) && echo own", "own\n"},
		"the terminal of the machine":         {"test -e /dev/console || echo no; (exec 3<>/dev/tty) 2>/dev/null || echo no", "no\nno\n"},
	} {
		t.Run(what, func(t *testing.T) {
			s := r.spec(root, tc.script)
			if out, _ := r.run(s); out != tc.want {
				t.Errorf("got %q, want %q", out, tc.want)
			}
		})
	}
	if !Alive(other.Ref()) {
		t.Error("the other container was killed")
	}
}

// TestNullOfCommands looks at the standard files of a command that was given
// none: a root user could change the mode of the machine's null device.
func TestNullOfCommands(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "exec sleep 100")
	p := r.start(s)
	defer func() {
		must(t, p.Signal(syscall.SIGKILL))
		_, err := p.Wait()
		must(t, err)
	}()
	run := func(script string) int {
		c, err := r.engine.Exec(context.Background(), &containers.ExecSpec{
			Container: p.Ref(), Cgroup: r.cgroup + "/" + s.Name, Args: []string{"/bin/sh", "-c", script}})
		must(t, err)
		exit, err := c.Wait()
		must(t, err)
		return exit.Code
	}
	if code := run("for n in 0 1 2; do test $(stat -L -c %d /proc/$$/fd/$n) = $(stat -c %d /dev/null) || exit 9; done"); code != 0 {
		t.Errorf("a command has the machine's null device (code %d)", code)
	}
	// One that the container has put something else in the place of is not used.
	if code := run("/bin/busybox rm /dev/null; echo x > /dev/null"); code != 0 {
		t.Fatalf("cannot replace /dev/null: code %d", code)
	}
	c, err := r.engine.Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: r.cgroup + "/" + s.Name, Args: []string{"/bin/sh", "-c", "true"}})
	if err == nil {
		t.Error("a command has a file for its null device")
		_, err = c.Wait()
		must(t, err)
	}
}

// TestTargetsAreLinks prepares roots in which what the engine mounts on leads
// elsewhere (CVE-2025-31133, CVE-2025-52565, CVE-2019-19921).
func TestTargetsAreLinks(t *testing.T) {
	r := newRig(t)
	outside := t.TempDir()
	for _, name := range []string{"proc", "sys", "dev"} {
		root := busyboxRoot(t)
		must(t, os.Symlink(outside, filepath.Join(root, name)))
		if c, err := r.engine.Prepare(context.Background(), r.spec(root, "true")); err == nil {
			must(t, c.Discard())
			t.Errorf("/%s as a link was taken", name)
		}
	}
	for target, link := range map[string]string{"/run/secrets/a": "/proc/sys/kernel", "/run/b": "/sys", "/run/c": "/dev"} {
		root := busyboxRoot(t)
		must(t, os.Mkdir(filepath.Join(root, "run"), 0o755))
		dir := strings.Split(target, "/")[2]
		must(t, os.Symlink(link, filepath.Join(root, "run", dir)))
		s := r.spec(root, "true")
		s.Tmpfs = []containers.Tmpfs{{Target: target}}
		if c, err := r.engine.Prepare(context.Background(), s); err == nil {
			must(t, c.Discard())
			t.Errorf("%s through a link to %s was taken", target, link)
		}
	}
	// A command before the real one may leave anything where the terminal goes.
	root := busyboxRoot(t)
	s := r.spec(root, "true")
	s.TTY = true
	c, err := r.engine.Prepare(context.Background(), s)
	must(t, err)
	p, err := c.RunBefore(context.Background(), []string{"sh", "-c", "rm -f /dev/console; ln -s /etc/passwd /dev/console"})
	must(t, err)
	_, err = p.Wait()
	must(t, err)
	if _, err := c.Start(context.Background()); err == nil {
		t.Error("a link at /dev/console was taken")
	}
}

// TestExchangedVolume exchanges a folder of a volume for a link to the machine
// all the time, while containers are prepared that mount below it
// (CVE-2021-30465).
func TestExchangedVolume(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	volume, outside := t.TempDir(), t.TempDir()
	must(t, os.Mkdir(filepath.Join(volume, "a"), 0o755))
	must(t, os.Symlink(strings.Repeat("../", 20)+outside, filepath.Join(volume, "b")))
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		a, b := filepath.Join(volume, "a"), filepath.Join(volume, "b")
		for !stop.Load() {
			_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		}
	}()
	source := t.TempDir()
	must(t, os.WriteFile(filepath.Join(source, "f"), []byte("f"), 0o644))
	for range 100 {
		s := r.spec(root, "true")
		s.Mounts = []containers.Mount{{Source: volume, Target: "/v"}, {Source: source, Target: "/v/a/below", Fill: true}}
		if c, err := r.engine.Prepare(context.Background(), s); err == nil {
			must(t, c.Discard())
		}
	}
	stop.Store(true)
	<-done
	if left := readDir(t, outside); len(left) > 0 {
		t.Errorf("made %s outside", left[0].Name())
	}
}

func TestNamesOnReadOnlyRoot(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "while ! grep -q new /etc/hosts; do sleep 0.02; done; cat /etc/hosts; (echo x >/etc/y) 2>/dev/null || echo no")
	s.ReadOnly = true
	c, err := r.engine.Prepare(context.Background(), s)
	must(t, err)
	out := drain(t, s.Stdout)
	p, err := c.Start(context.Background())
	must(t, err)
	if err := WriteFiles(p.Ref(), "203.0.113.9 new\n", ""); err != nil {
		t.Error(err)
		must(t, p.Signal(syscall.SIGKILL))
	}
	_, err = p.Wait()
	must(t, err)
	if got := out(); got != "203.0.113.9 new\nno\n" {
		t.Errorf("got %q", got)
	}
}

func TestNetlinkAndPtrace(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	addProbe(t, root)
	other := r.start(r.spec(root, "exec sleep 100"))
	netlink := r.spec(root, "/probe netlink")
	netlink.NetNSPath = netNS(t)
	if out, _ := r.run(netlink); out != "operation not permitted\n" {
		t.Errorf("netlink: got %q", out)
	}
	netlink.CapAdd = []string{"NET_ADMIN"}
	if out, _ := r.run(netlink); out == "operation not permitted\n" {
		t.Error("netlink: the probe tells nothing")
	}
	trace := r.spec(root, "/probe ptrace "+itoa(other.Ref().Pid))
	if out, _ := r.run(trace); out != "no such process\n" {
		t.Errorf("ptrace: got %q", out)
	}
	// Who shares the processes of another may not trace another user's.
	ref := other.Ref()
	trace = r.spec(root, "/probe ptrace 1")
	trace.PIDOf, trace.User = &ref, "ann"
	if out, _ := r.run(trace); out != "operation not permitted\n" {
		t.Errorf("ptrace of a shared process: got %q", out)
	}
	must(t, other.Signal(syscall.SIGKILL))
	_, err := other.Wait()
	must(t, err)
}
