package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"platelayer/containers"
	"platelayer/integrity"
)

func TestRunBefore(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "grep -c ' /proc ' /proc/self/mountinfo; grep -c ' /sys/fs/cgroup ' /proc/self/mountinfo; "+
		"ls /proc | grep -c '^[0-9]'; ps | grep -c '[s]leep'; head -1 /sys/fs/cgroup/cgroup.procs")
	s.User, s.Env, s.WorkingDir, s.Pids = "ann", []string{"A=b"}, "/data", 20
	c, err := r.engine.Prepare(context.Background(), s)
	must(t, err)
	out := drain(t, s.Stdout)
	var missing *containers.ExecError
	if _, err := c.RunBefore(context.Background(), []string{"missing"}); !errors.As(err, &missing) || missing.Code() != 127 {
		t.Errorf("got %v", err)
	}
	// It has mounted its /proc by the time this fails.
	if _, err := c.RunBefore(context.Background(), []string{"/etc/passwd"}); !errors.As(err, &missing) || missing.Code() != 126 {
		t.Errorf("got %v", err)
	}
	for _, script := range []string{
		"id -u; echo $A; pwd; echo $$; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'; sleep 1000 & exit 3",
		"echo second; exit 4",
	} {
		p, err := c.RunBefore(context.Background(), []string{"/bin/sh", "-c", script})
		must(t, err)
		exit, err := p.Wait()
		must(t, err)
		if exit.Code != 3 && exit.Code != 4 || exit.OOM {
			t.Errorf("got %+v", exit)
		}
	}
	p, err := c.Start(context.Background())
	must(t, err)
	_, err = p.Wait()
	must(t, err)
	want := "1000\nb\n/data\n1\nNoNewPrivs:1\nSeccomp:2\nsecond\n1\n1\n3\n0\n1\n"
	if r.engine.cgroups.v2 == "" {
		want = strings.TrimSuffix(want, "1\n")
	}
	if got := out(); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestRunBeforeMustEnd(t *testing.T) {
	r := newRig(t)
	c, err := r.engine.Prepare(context.Background(), r.spec(busyboxRoot(t), "true"))
	must(t, err)
	p, err := c.RunBefore(context.Background(), []string{"sleep", "1000"})
	must(t, err)
	if _, err := c.RunBefore(context.Background(), []string{"true"}); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("got %v", err)
	}
	must(t, p.Signal(syscall.SIGKILL))
	_, err = p.Wait()
	must(t, err)
	must(t, c.Discard())
}

// TestRestartShowsChanges lets a container change what is sealed and looks at
// the root of its next run.
func TestRestartShowsChanges(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	for _, f := range []string{"srv/a", "srv/sub/b", "srv/sub/c"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, f)), 0o755))
		must(t, os.WriteFile(filepath.Join(root, f), []byte(f), 0o644))
	}
	const missing, changed, extra = integrity.Missing, integrity.Changed, integrity.Extra
	for script, want := range map[string][]string{
		"true":                             nil,
		"echo x >/tmp/unsealed":            nil,
		"echo x >/srv/a":                   {"/srv/a " + changed},
		"echo x >>/srv/sub/b":              {"/srv/sub/b " + changed},
		"rm /srv/sub/b":                    {"/srv/sub/b " + missing},
		"rm -r /srv/sub":                   {"/srv/sub/b " + missing, "/srv/sub/c " + missing},
		"echo x >/srv/sub/new":             {"/srv/sub/new " + extra},
		"mkdir /srv/d; echo x >/srv/d/new": {"/srv/d/new " + extra},
		"rm /srv/a; echo x >/tmp/a; ln -s /tmp/a /srv/a":              {"/srv/a " + changed},
		"rm /srv/a; ln -s /nowhere /srv/a":                            {"/srv/a " + missing},
		"mv /srv/sub /srv/other; ln -s other /srv/sub":                {"/srv/other/b " + extra, "/srv/other/c " + extra},
		"mv /srv /moved; mkdir /srv":                                  {"/srv/a " + missing, "/srv/sub/b " + missing, "/srv/sub/c " + missing},
		"mv /srv /moved; ln -s moved /srv; echo x >/moved/sub/c":      {"/srv/sub/c " + changed},
		"mkdir /.sealed.srv /srv/.sealed.sub; echo x >/.sealed.srv/f": nil,
	} {
		disk := filepath.Join(t.TempDir(), "w")
		s := r.spec(root, script)
		s.Root.WritableDir, s.Sealed = disk, []string{"/srv"}
		c, err := r.engine.Prepare(context.Background(), s)
		must(t, err)
		manifest, err := integrity.Make(context.Background(), c.Root(), s.Sealed)
		must(t, err)
		if out, exit := r.finish(c, s); exit.Code != 0 {
			t.Errorf("%s: %s", script, out)
		}
		for run := range 2 {
			c, err = r.engine.Prepare(context.Background(), s)
			must(t, err)
			bad, err := integrity.Check(context.Background(), c.Root(), s.Sealed, manifest)
			must(t, err)
			var got []string
			for _, b := range bad {
				got = append(got, b.Path+" "+b.Reason)
			}
			if strings.Join(got, ", ") != strings.Join(want, ", ") {
				t.Errorf("%s, check %d: got %q, want %q", script, run, got, want)
			}
			must(t, c.Discard())
		}
	}
}

// TestRestartKeeps looks for what an earlier run has written, and whatever an
// overlay may have left behind.
func TestRestartKeeps(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	disk := filepath.Join(t.TempDir(), "w")
	s := r.spec(root, "test -e /kept || { echo first >/kept; chmod 700 /; }; cat /kept; stat -c %a /; touch /new && echo writable")
	s.Root.WritableDir = disk
	for i := range 3 {
		// The root of the run before is still there.
		c, err := r.engine.Prepare(context.Background(), s)
		must(t, err)
		held, err := unix.FcntlInt(c.Root().Fd(), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		defer closeFD(held)
		out, _ := r.finish(c, s)
		if out != "first\n700\nwritable\n" {
			t.Errorf("run %d: got %q", i, out)
		}
		must(t, os.MkdirAll(filepath.Join(disk, "work/work/#7/a/b/c/d"), 0o755))
		must(t, os.MkdirAll(filepath.Join(disk, "work/work/incompat/volatile"), 0o755))
	}
}

// TestHostRestart puts links where the composite root makes folders.
func TestHostRestart(t *testing.T) {
	r := newRig(t)
	s := r.spec("", "test -e /ran && exit 0; touch /ran; rm -rf /var /opt /home; ln -s /etc /var; ln -s /nowhere /opt; echo x >/home")
	s.Root = containers.Root{Host: true, WritableDir: filepath.Join(t.TempDir(), "w")}
	for range 2 {
		if out, exit := r.run(s); exit.Code != 0 {
			t.Errorf("got %q", out)
		}
	}
	for _, name := range []string{"cache", "lib", "local", "mail", "run", "lock"} {
		if _, err := os.Lstat("/etc/" + name); err == nil {
			t.Errorf("/etc/%s was made on the machine", name)
		}
	}
}

func TestFullMemory(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "dd if=/dev/zero of=/tmp/f bs=1M count=100 2>&1 | grep -o 'No space.*'")
	s.MemoryBytes = 32 << 20
	if out, exit := r.run(s); out != "No space left on device\n" || exit.OOM {
		t.Errorf("got %q, %+v", out, exit)
	}
}

// TestOOMIsOfThisRun starts a container again whose cgroup has seen a kill.
func TestOOMIsOfThisRun(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "")
	s.MemoryBytes = 32 << 20
	for _, tc := range []struct {
		args []string
		oom  bool
	}{{[]string{"tail", "-c", "1000000000", "/dev/zero"}, true}, {[]string{"true"}, false}} {
		s.Args = tc.args
		if _, exit := r.run(s); exit.OOM != tc.oom {
			t.Errorf("%q: got %+v", tc.args, exit)
		}
	}
}

// TestNoGrowth runs one container again and again.
func TestNoGrowth(t *testing.T) {
	r := newRig(t)
	must(t, Harden())
	s := r.spec(busyboxRoot(t), "exec sleep 1000")
	s.Root.WritableDir, s.Sealed, s.MemoryBytes = filepath.Join(t.TempDir(), "w"), []string{"/etc"}, 64<<20
	cycle := func() {
		c, err := r.engine.Prepare(context.Background(), s)
		must(t, err)
		before, err := c.RunBefore(context.Background(), []string{"true"})
		must(t, err)
		_, err = before.Wait()
		must(t, err)
		p, err := c.Start(context.Background())
		must(t, err)
		e, err := r.engine.Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: r.cgroup + "/" + s.Name, Args: []string{"true"}})
		must(t, err)
		_, err = e.Wait()
		must(t, err)
		must(t, p.Signal(syscall.SIGKILL))
		_, err = p.Wait()
		must(t, err)
	}
	count := func() string {
		groups := 0
		for _, root := range r.engine.cgroups.trees() {
			must(t, walkCgroups(filepath.Join(root, r.cgroup), func(string) error { groups++; return nil }))
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		return fmt.Sprintf("%d descriptors, %d cgroups, %d mounts", len(readDir(t, "/proc/self/fd")), groups, strings.Count(string(mounts), r.dir))
	}
	for range 20 {
		cycle()
	}
	before, threads := count(), len(readDir(t, "/proc/self/task"))
	for range 100 {
		cycle()
	}
	if after := count(); after != before {
		t.Errorf("before %s, after %s", before, after)
	}
	// The runtime makes a thread now and then; a leak would make a hundred.
	if n := len(readDir(t, "/proc/self/task")); n > threads+10 {
		t.Errorf("%d threads before, %d after", threads, n)
	}
}
