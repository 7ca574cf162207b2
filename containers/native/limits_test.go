package native

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

func TestMemoryLimit(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "tail -c 1000000000 /dev/zero; echo $?")
	s.MemoryBytes = 32 << 20
	s.Args = []string{"tail", "-c", "1000000000", "/dev/zero"}
	_, exit := r.run(s)
	if !exit.OOM || exit.Code != 137 || exit.Signal != syscall.SIGKILL {
		t.Errorf("got %+v", exit)
	}
}

func TestPidsLimit(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done 2>&1; wait; echo end")
	s.Pids = 5
	out, _ := r.run(s)
	if !strings.Contains(out, "fork") {
		t.Errorf("got %q", out)
	}
}

// start prepares and starts a container that keeps running.
func (r *rig) start(s *containers.Spec) containers.Process {
	r.Helper()
	c, err := r.engine.Prepare(context.Background(), s)
	must(r, err)
	p, err := c.Start(context.Background())
	must(r, err)
	return p
}

func TestSignals(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	p := r.start(r.spec(root, "trap 'exit 5' TERM; touch /tmp/x; while true; do sleep 0.05; done"))
	sleeper := r.start(r.spec(root, "exec sleep 100"))
	deadline := time.Now().Add(5 * time.Second)
	for IgnoresSignal(p.Ref(), syscall.SIGTERM) && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if IgnoresSignal(p.Ref(), syscall.SIGTERM) || !IgnoresSignal(sleeper.Ref(), syscall.SIGTERM) {
		t.Error("IgnoresSignal is wrong")
	}
	if !Alive(p.Ref()) || Alive(containers.ProcessRef{Pid: p.Ref().Pid, StartTime: 1}) {
		t.Error("Alive is wrong")
	}
	other, err := OpenProcess(p.Ref())
	must(t, err)
	must(t, other.Signal(syscall.SIGTERM))
	exit, err := p.Wait()
	must(t, err)
	if exit.Code != 5 {
		t.Errorf("got %+v", exit)
	}
	if _, err := other.Wait(); err != nil {
		t.Error(err)
	}
	must(t, sleeper.Signal(syscall.SIGKILL))
	if exit, err = sleeper.Wait(); err != nil || exit.Code != 137 {
		t.Errorf("got %+v, %v", exit, err)
	}
}

func TestVolumes(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("from the machine\n"), 0o644))
	must(t, os.Symlink("/../../../etc", filepath.Join(root, "escape")))
	s := r.spec(root, "cat /v/rw/f /v/file /v/ro/f /escape/in/f; echo new >/v/rw/new; (echo x >/v/ro/no) 2>/dev/null || echo refused; ls /etc/in; grep -c ' /etc/in ' /proc/self/mountinfo; cat /v/rw/null; pwd")
	s.WorkingDir = "/made/deep"
	must(t, mknodNull(filepath.Join(dir, "null")))
	s.Mounts = []containers.Mount{
		{Source: filepath.Join(dir, "f"), Target: "/v/file", ReadOnly: true},
		{Source: dir, Target: "/v/ro", ReadOnly: true},
		{Source: dir, Target: "/v/rw"},
		{Source: dir, Target: "/escape/in"},
	}
	out, _ := r.run(s)
	want := strings.Repeat("from the machine\n", 4) + "refused\nf\nnew\nnull\n1\n"
	if !strings.HasPrefix(out, want) || !strings.Contains(out, "ermission denied") || !strings.Contains(out, "/made/deep\n") {
		t.Errorf("got %q", out)
	}
	if _, err := os.Stat("/etc/in"); err == nil {
		t.Error("the mount escaped")
	}
}

func mknodNull(path string) error { return syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|3) }

func TestWritableDisk(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	disk := filepath.Join(t.TempDir(), "w")
	for i, want := range []string{"first\n", "second\n"} {
		s := r.spec(root, "test -e /kept && echo second || echo first; touch /kept; rm -f /etc/group")
		s.Root.WritableDir = disk
		if out, _ := r.run(s); out != want {
			t.Errorf("start %d: got %q", i, out)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "kept")); err == nil {
		t.Error("it wrote to the lower folder")
	}
	host := filepath.Join(t.TempDir(), "h")
	for i, want := range []string{"first\n", "second\n"} {
		s := r.spec("", "test -e /var/lib/kept -a -e /etc/kept && echo second || echo first; touch /var/lib/kept /etc/kept")
		s.Root = containers.Root{Host: true, WritableDir: host}
		if out, _ := r.run(s); out != want {
			t.Errorf("host, start %d: got %q", i, out)
		}
	}
}

func TestSealedIsCopied(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	file := filepath.Join(root, "data/f")
	must(t, os.WriteFile(file, []byte("good\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "data/open"), []byte("good\n"), 0o644))
	must(t, os.Symlink("f", filepath.Join(root, "data/link")))
	must(t, os.MkdirAll(filepath.Join(root, "data/sub/deep"), 0o755))
	must(t, os.Chmod(filepath.Join(root, "data/sub"), 0o751))
	must(t, os.WriteFile(filepath.Join(root, "data/sub/deep/f"), []byte("deep\n"), 0o644))
	must(t, os.MkdirAll(filepath.Join(root, "v1"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "v1/f"), []byte("v1\n"), 0o644))
	must(t, os.Symlink("v1", filepath.Join(root, "mid")))
	must(t, os.Symlink("/mid", filepath.Join(root, "top")))
	must(t, os.Symlink(".", filepath.Join(root, "data/loop")))
	s := r.spec(root, "cat /data/f /data/link /etc/passwd | head -2; cat /bin/sh | head -c 4 | tail -c 3; "+
		"ls -A /data /data/sub/deep; cat /data/sub/deep/f /top/f; stat -c %a /data/sub; cat /seal/f")
	s.Sealed = []string{"/data", "/bin/busybox", "/missing", "/top/f", "/seal"}
	volume := t.TempDir()
	must(t, os.WriteFile(filepath.Join(volume, "f"), []byte("volume\n"), 0o644))
	s.Mounts = []containers.Mount{{Source: volume, Target: "/seal", ReadOnly: true}}
	c, err := r.engine.Prepare(context.Background(), s)
	must(t, err)
	must(t, os.WriteFile(file, []byte("bad\n"), 0o644))
	must(t, os.Remove(filepath.Join(root, "data/link")))
	must(t, os.Symlink("open", filepath.Join(root, "data/link")))
	must(t, os.WriteFile(filepath.Join(root, "data/open"), []byte("bad\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "data/extra"), []byte("bad\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "data/sub/deep/extra"), []byte("bad\n"), 0o644))
	must(t, os.MkdirAll(filepath.Join(root, "v2"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "v2/f"), []byte("bad\n"), 0o644))
	must(t, os.Remove(filepath.Join(root, "mid")))
	must(t, os.Symlink("v2", filepath.Join(root, "mid")))
	out, _ := r.finish(c, s)
	want := "good\ngood\nELF/data:\nf\nlink\nloop\nopen\nsub\n\n/data/sub/deep:\nf\ndeep\nv1\n751\nvolume\n"
	if out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestDiscard(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	before := len(readDir(t, "/proc/self/fd"))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	c, err := r.engine.Prepare(context.Background(), r.spec(root, "true"))
	must(t, err)
	must(t, c.Discard())
	after, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if string(mounts) != string(after) {
		t.Error("mounts were left")
	}
	bad := r.spec("/nonexistent", "true")
	if _, err := r.engine.Prepare(context.Background(), bad); err == nil {
		t.Error("a missing root was taken")
	}
	bad = r.spec(root, "true")
	bad.User = "nobody-here"
	if _, err := r.engine.Prepare(context.Background(), bad); err == nil {
		t.Error("a missing user was taken")
	}
	// Each worker that ran for the first time holds six.
	if n := len(readDir(t, "/proc/self/fd")); n > before+6*r.engine.config.Workers {
		t.Errorf("%d descriptors before, %d after", before, n)
	}
}

func readDir(t *testing.T, path string) []os.DirEntry {
	t.Helper()
	e, err := os.ReadDir(path)
	must(t, err)
	return e
}

func TestFIFOOutlivesReader(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "while true; do echo x || exit 9; sleep 0.02; done")
	c, err := r.engine.Prepare(context.Background(), s)
	must(t, err)
	reader, err := os.OpenFile(s.Stdout, os.O_RDWR|syscall.O_NONBLOCK, 0)
	must(t, err)
	p, err := c.Start(context.Background())
	must(t, err)
	b := make([]byte, 2)
	_, err = reader.Read(b)
	must(t, err)
	must(t, reader.Close())
	time.Sleep(100 * time.Millisecond)
	if !Alive(p.Ref()) {
		t.Error("it died with its reader")
	}
	must(t, p.Signal(syscall.SIGKILL))
	_, err = p.Wait()
	must(t, err)
}

func TestExec(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	s := r.spec(root, "exec sleep 100")
	s.MemoryBytes = 64 << 20
	p := r.start(s)
	run := func(e *containers.ExecSpec) (string, containers.Exit) {
		t.Helper()
		e.Container, e.Cgroup = p.Ref(), r.cgroup+"/"+s.Name
		rd, w, err := os.Pipe()
		must(t, err)
		if e.Stdout == nil {
			e.Stdout, e.Stderr = w, w
		}
		proc, err := Exec(context.Background(), e)
		must(t, err)
		must(t, w.Close())
		b, err := io.ReadAll(rd)
		must(t, err)
		exit, err := proc.Wait()
		must(t, err)
		must(t, rd.Close())
		return string(b), exit
	}
	out, exit := run(&containers.ExecSpec{Args: []string{"sh", "-c", "hostname; id -u; cut -d: -f3 /proc/self/cgroup | grep -c platelayer; grep -E '^(NoNewPrivs|Seccomp|CapEff):' /proc/self/status | tr -d '\\t'; grep ^0: /proc/self/cgroup; pwd; echo $A; exit 3"},
		Env: []string{"A=b"}, User: "ann", WorkingDir: "/data"})
	want := "station\n1000\n0\nCapEff:0000000000000000\nNoNewPrivs:1\nSeccomp:2\n0::/\n/data\nb\n"
	if exit.Code != 3 || out != want {
		t.Errorf("got %q, %+v", out, exit)
	}
	master, slave, err := OpenPTY(p.Ref())
	must(t, err)
	_, exit = run(&containers.ExecSpec{Args: []string{"sh", "-c", "readlink /proc/self/fd/0; echo hi >/dev/tty; test -t 0 && exit 4"},
		User: "ann", TTY: true, Stdin: slave, Stdout: slave, Stderr: slave})
	b := make([]byte, 100)
	n, _ := master.Read(b)
	if exit.Code != 4 || !strings.HasPrefix(string(b[:n]), "/dev/pts/0") {
		t.Errorf("got %q, %+v", b[:n], exit)
	}
	must(t, slave.Close())
	must(t, master.Close())
	f, err := OpenRoot(p.Ref())
	must(t, err)
	if _, err := readIn(int(f.Fd()), "/etc/passwd", 1000); err != nil {
		t.Error(err)
	}
	must(t, f.Close())
	must(t, p.Signal(syscall.SIGKILL))
	_, err = p.Wait()
	must(t, err)
	if _, err := OpenRoot(p.Ref()); err == nil {
		t.Error("a dead container has a root")
	}
}

// TestAwaitedSignals: signals that a thread waits for are shown as neither
// blocked nor caught meanwhile.
func TestAwaitedSignals(t *testing.T) {
	if awaitsSignals(os.Getpid()) {
		t.Fatal("somebody waits already")
	}
	done, waiter := make(chan error), make(chan int, 1)
	go func() {
		runtime.LockOSThread()
		waiter <- unix.Gettid()
		set, timeout := uint64(1)<<63, unix.NsecToTimespec(int64(20*time.Second)) // signal 64
		_, _, errno := unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), 0, uintptr(unsafe.Pointer(&timeout)), 8, 0, 0)
		done <- errno
	}()
	until(t, "thread that waits", func() bool { return awaitsSignals(os.Getpid()) })
	must(t, unix.Tgkill(os.Getpid(), <-waiter, syscall.Signal(64)))
	if err := <-done; err != unix.Errno(0) {
		t.Error(err)
	}
}
