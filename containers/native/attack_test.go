package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// TestStandardInput has the null device of a container be its own: the mode of
// the machine's could be changed through a descriptor of it.
func TestStandardInput(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	const script = `test "$(stat -L -c %d /proc/self/fd/0)" = "$(stat -c %d /dev)" && echo own`
	if out, _ := r.run(r.spec(root, script)); out != "own\n" {
		t.Errorf("got %q", out)
	}
	p := r.start(r.spec(root, "exec sleep 100"))
	if out := r.exec(p, "sh", "-c", script); out != "own\n" {
		t.Errorf("exec: got %q", out)
	}
	// What a container has put there is not opened.
	r.exec(p, "sh", "-c", "rm /dev/null; mknod /dev/null p || ln -s /etc/passwd /dev/null")
	_, err := Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: r.cgroup + "/c2", Args: []string{"true"}})
	if err == nil || !strings.Contains(err.Error(), "null device") {
		t.Errorf("got %v", err)
	}
	r.end(p)
}

// exec runs a command in a running container and gives what it wrote.
func (r *rig) exec(p containers.Process, args ...string) string {
	r.Helper()
	rd, w, err := os.Pipe()
	must(r, err)
	defer rd.Close()
	e, err := Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: p.(*process).cgroup, Args: args, Stdout: w, Stderr: w})
	must(r, err)
	must(r, w.Close())
	var out strings.Builder
	b := make([]byte, 4096)
	for {
		n, err := rd.Read(b)
		out.Write(b[:n])
		if err != nil {
			break
		}
	}
	_, err = e.Wait()
	must(r, err)
	return out.String()
}

func (r *rig) end(p containers.Process) {
	r.Helper()
	must(r, p.Signal(syscall.SIGKILL))
	_, err := p.Wait()
	must(r, err)
}

// TestKeyrings has each container get a session keyring of its own: the
// caller's may hold keys.
func TestKeyrings(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	addProbe(t, root)
	seen := map[string]bool{}
	for range 2 {
		s := r.spec(root, "/probe keyring")
		s.Seccomp = "unconfined"
		out, _ := r.run(s)
		if !strings.HasSuffix(out, " errno 0\n") || seen[out] {
			t.Errorf("got %q, before %v", out, seen)
		}
		seen[out] = true
	}
}

// TestFilledFIFO exchanges what a volume is filled with for links while it is
// filled, as another container that has the volume could.
func TestFilledFIFO(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	from, to := t.TempDir(), t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(victim, nil, 0o600))
	for i := range 50 {
		must(t, unix.Mkfifo(filepath.Join(from, fmt.Sprint("p", i)), 0o666))
	}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; !stop.Load(); i++ {
			name := filepath.Join(to, fmt.Sprint("p", i%50))
			if unix.Unlink(name) == nil {
				_ = os.Symlink(victim, name)
			}
		}
	}()
	for range 100 {
		a, err := unix.Open(from, unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err)
		b, err := unix.Open(to, unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err)
		_ = fill(context.Background(), a, b, "/v")
		closeFD(a)
		closeFD(b)
		left, err := os.ReadDir(to)
		must(t, err)
		for _, e := range left {
			_ = os.Remove(filepath.Join(to, e.Name()))
		}
	}
	stop.Store(true)
	<-done
	st, err := os.Stat(victim)
	must(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("a link was followed: mode %o", st.Mode().Perm())
	}
}

// TestExchangedTarget exchanges the place of a mount for a link to another
// mount of the same container: the volume must not replace that.
func TestExchangedTarget(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	volume, source := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(source, "mark"), nil, 0o644))
	must(t, os.Mkdir(filepath.Join(volume, "a"), 0o755))
	must(t, os.Symlink("/dev/shm", filepath.Join(volume, "b")))
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		a, b := filepath.Join(volume, "a"), filepath.Join(volume, "b")
		for !stop.Load() {
			_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		}
	}()
	taken := 0
	for range 300 {
		s := r.spec(root, "true")
		s.Mounts = []containers.Mount{{Source: volume, Target: "/v"}, {Source: source, Target: "/v/a"}}
		c, err := r.engine.Prepare(context.Background(), s)
		if err != nil {
			continue
		}
		taken++
		if fd, err := openIn(int(c.Root().Fd()), "/dev/shm/mark", unix.O_PATH, 0); err == nil {
			closeFD(fd)
			t.Error("it was mounted over /dev/shm")
			stop.Store(true)
		}
		must(t, c.Discard())
		if t.Failed() {
			break
		}
	}
	stop.Store(true)
	<-done
	if taken == 0 && !t.Failed() {
		t.Error("no attempt was taken")
	}
}

// TestSubpathsAreLinks looks for the paths below a volume inside it.
func TestSubpathsAreLinks(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	volume := t.TempDir()
	must(t, os.Symlink("/", filepath.Join(volume, "root")))
	must(t, os.Symlink("/etc", filepath.Join(volume, "abs")))
	must(t, os.Symlink(strings.Repeat("../", 20)+"etc", filepath.Join(volume, "up")))
	for _, sub := range []string{"abs", "up", "../../../../../../etc", "root/etc"} {
		s := r.spec(root, "true")
		s.Mounts = []containers.Mount{{Source: volume, Target: "/v", Subpath: sub}}
		if c, err := r.engine.Prepare(context.Background(), s); err == nil {
			must(t, c.Discard())
			t.Errorf("%s leads out of the volume", sub)
		}
	}
	s := r.spec(root, "ls /v")
	s.Mounts = []containers.Mount{{Source: volume, Target: "/v", Subpath: "root"}}
	if out, _ := r.run(s); out != "abs\nroot\nup\n" {
		t.Errorf("got %q", out)
	}
}

// TestSysctlNames has no name lead from a namespace's settings to the machine's.
func TestSysctlNames(t *testing.T) {
	r := newRig(t)
	value, err := os.ReadFile("/proc/sys/vm/page-cluster")
	must(t, err)
	for _, name := range []string{"net/../vm/page-cluster", "net.//.vm.page-cluster", "net/./../vm/page-cluster", "vm.page-cluster", "/proc/sys/vm/page-cluster", "net/"} {
		s := r.spec(busyboxRoot(t), "true")
		s.NetNSPath = netNS(t)
		s.Sysctls = []containers.Sysctl{{Name: name, Value: strings.TrimSpace(string(value))}}
		if c, err := r.engine.Prepare(context.Background(), s); err == nil {
			must(t, c.Discard())
			t.Errorf("%s was set", name)
		}
	}
}

// TestPeer tells root of the machine from root of a container at a socket that
// both can reach, and shows that names without a file don't cross networks.
func TestPeer(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	addProbe(t, root)
	dir := t.TempDir()
	name := fmt.Sprintf("@platelayer-test-%d", os.Getpid())
	for _, address := range []string{filepath.Join(dir, "socket"), name} {
		l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Bind(l, &unix.SockaddrUnix{Name: address}))
		must(t, unix.Listen(l, 10))
		t.Cleanup(func() { _ = unix.Shutdown(l, unix.SHUT_RD); closeFD(l) })
		go func() {
			for {
				fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
				if err != nil {
					return
				}
				conn := os.NewFile(uintptr(fd), "connection")
				fmt.Fprint(conn, PeerIsRoot(conn))
				conn.Close()
			}
		}()
	}
	ask := func(address string) string {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		defer closeFD(fd)
		must(t, unix.Connect(fd, &unix.SockaddrUnix{Name: address}))
		b := make([]byte, 10)
		n, err := unix.Read(fd, b)
		must(t, err)
		return string(b[:n])
	}
	if got := ask(filepath.Join(dir, "socket")); got != "true" {
		t.Errorf("the machine's root: got %q", got)
	}
	s := r.spec(root, "/probe unix /run/p/socket; /probe unix "+name)
	s.Mounts, s.NetNSPath = []containers.Mount{{Source: dir, Target: "/run/p"}}, netNS(t)
	if out, _ := r.run(s); out != "false\nrefused\n" {
		t.Errorf("a container's root: got %q", out)
	}
	// With all that there is, it is still another's root.
	s = r.spec(root, "/probe unix /run/p/socket")
	s.Mounts, s.Privileged = []containers.Mount{{Source: dir, Target: "/run/p"}}, true
	if out, _ := r.run(s); out != "false\n" {
		t.Errorf("a privileged container's root: got %q", out)
	}
}

// TestOwnOOMScore has a protected parent's score not become its containers'.
func TestOwnOOMScore(t *testing.T) {
	for _, tc := range []struct {
		inherited, wanted int
		written           bool
	}{{-500, 0, true}, {0, 0, false}, {300, 0, false}, {0, 300, true}, {0, -5, true}, {-5, -5, false}} {
		p := &program{}
		p.empower(&powers{oomInherited: tc.inherited, oomScoreAdj: tc.wanted})
		if got := len(p.ops) > 0; got != tc.written {
			t.Errorf("from %d to %d: written %v", tc.inherited, tc.wanted, got)
		}
	}
}

// TestDeepCgroups makes cgroups below a delegated one whose paths nobody could
// name; the rig removes them.
func TestDeepCgroups(t *testing.T) {
	r := newRig(t)
	if r.engine.cgroups.v2 == "" {
		t.Skip("no cgroup v2 tree")
	}
	root := busyboxRoot(t)
	addProbe(t, root)
	s := r.spec(root, "/probe nest /sys/fs/cgroup; (echo max >/sys/fs/cgroup/cgroup.max.depth) 2>/dev/null; /probe nest /sys/fs/cgroup")
	s.Delegate = true
	out, _ := r.run(s)
	if out != fmt.Sprintf("%d\n%d\n", payloadDepth-1, payloadDepth-1) {
		t.Errorf("got %q levels", out)
	}
	must(t, RemoveCgroup(r.cgroup))
}

// TestMadeDevices makes nodes where that is allowed: the device filter, not the
// mount, keeps them shut.
func TestMadeDevices(t *testing.T) {
	r := newRig(t)
	var st unix.Stat_t
	must(t, unix.Stat("/dev/zero", &st))
	s := r.spec(busyboxRoot(t), "mknod /dev/m c 1 1 && (cat /dev/m >/dev/null) 2>/dev/null || echo no; mknod /dev/k c 1 11 && (cat /dev/k >/dev/null) 2>/dev/null || echo no; mknod /dev/z c 1 5 && head -c 1 /dev/z | wc -c; mknod /tmp/z c 1 5 && (cat /tmp/z >/dev/null) 2>/dev/null || echo no")
	s.CapAdd = []string{"MKNOD"}
	if out, _ := r.run(s); out != "no\nno\n1\nno\n" {
		t.Errorf("got %q", out)
	}
}

// TestWorkingFolders names folders of the engine's by descriptors
// (CVE-2024-21626): for the first command, one before it and one by exec.
func TestWorkingFolders(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	must(t, os.Symlink("/proc/self/fd/7", filepath.Join(root, "link")))
	folders := []string{"/link", "/proc/1/root", "/proc/1/cwd/../../.."}
	for i := range 40 {
		folders = append(folders, fmt.Sprintf("/proc/self/fd/%d", i))
	}
	machine, err := os.Stat("/")
	must(t, err)
	inside := fmt.Sprintf("[ $(stat -c %%d:%%i .) != %d:%d ] && [ $(stat -c %%d:%%i ../../../../../..) = $(stat -c %%d:%%i /) ] && echo in",
		machine.Sys().(*syscall.Stat_t).Dev, machine.Sys().(*syscall.Stat_t).Ino)
	for _, folder := range folders {
		s := r.spec(root, inside)
		s.WorkingDir = folder
		c, err := r.engine.Prepare(context.Background(), s)
		if err != nil {
			continue
		}
		p, err := c.RunBefore(context.Background(), []string{"sh", "-c", inside})
		must(t, err)
		if exit, err := p.Wait(); err != nil || exit.Code != 0 {
			t.Errorf("%s before: %+v, %v", folder, exit, err)
		}
		if out, _ := r.finish(c, s); out != "in\n" {
			t.Errorf("%s: got %q", folder, out)
		}
	}
	p := r.start(r.spec(root, "exec sleep 100"))
	defer r.end(p)
	for _, folder := range folders {
		_, err := Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: p.(*process).cgroup, Args: []string{"true"}, WorkingDir: folder})
		if err == nil {
			t.Errorf("exec entered %s", folder)
		}
	}
}

// TestInitIsReadOnly writes to the program behind a container's init
// (CVE-2019-5736): while it runs, and through a descriptor that outlives it.
func TestInitIsReadOnly(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "(echo x >/proc/1/exe) 2>&1")
	s.Init, s.CapAdd = true, []string{"SYS_PTRACE"}
	if out, _ := r.run(s); !strings.Contains(out, "Text file busy") {
		t.Errorf("got %q", out)
	}
	fd, err := openInit()
	must(t, err)
	defer closeFD(fd)
	f, err := os.OpenFile("/proc/self/fd/"+itoa(fd), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	if _, err := f.Write([]byte("x")); !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v", err)
	}
}

// TestHostileDev takes a root whose /dev and /proc have links where masks and
// devices go (CVE-2025-31133).
func TestHostileDev(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	victim := filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(victim, []byte("kept"), 0o644))
	for _, dir := range []string{"dev", "proc", "sys"} {
		must(t, os.Mkdir(filepath.Join(root, dir), 0o755))
	}
	for _, link := range []string{"dev/null", "dev/console", "dev/pts", "dev/shm", "proc/kcore", "proc/sys", "proc/sysrq-trigger", "proc/keys", "sys/firmware"} {
		must(t, os.Symlink(victim, filepath.Join(root, link)))
	}
	s := r.spec(root, "echo x >/dev/null; test -c /dev/null && test -d /dev/pts && cat /proc/keys | wc -c; (echo x >/proc/sys/kernel/core_pattern) 2>/dev/null || echo no; ls /sys/firmware | wc -l")
	s.TTY = false
	if out, _ := r.run(s); out != "0\nno\n0\n" {
		t.Errorf("got %q", out)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "kept" {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestMadeDevicesV1 does it with the device filter of cgroup v1.
func TestMadeDevicesV1(t *testing.T) {
	r := newRig(t)
	r.onV1()
	s := r.spec(busyboxRoot(t), "mknod /dev/m c 1 1 && (cat /dev/m >/dev/null) 2>/dev/null || echo no; mknod /dev/k c 1 11 && (cat /dev/k >/dev/null) 2>/dev/null || echo no; mknod /dev/z c 1 5 && head -c 1 /dev/z | wc -c")
	s.CapAdd = []string{"MKNOD"}
	if out, _ := r.run(s); out != "no\nno\n1\n" {
		t.Errorf("got %q", out)
	}
}

// TestEnginePlaces gives volumes the places that are the engine's: what it
// writes and masks in /proc must be the kernel's (CVE-2025-52881).
func TestEnginePlaces(t *testing.T) {
	r := newRig(t)
	source := t.TempDir()
	for _, target := range []string{"/", "/proc", "/proc/self/attr", "/proc/sysrq-trigger", "/proc/../proc/sys", "/sys", "/sys/kernel", "/dev", "/dev/pts/x", "//proc//self", "/x/../proc"} {
		for _, link := range []bool{false, true} {
			root := busyboxRoot(t)
			at := target
			if link {
				must(t, os.Symlink(target, filepath.Join(root, "way")))
				at = "/way"
			}
			for _, s := range []containers.Spec{{Mounts: []containers.Mount{{Source: source, Target: at}}}, {Tmpfs: []containers.Tmpfs{{Target: at}}}, {Files: []containers.File{{Target: at}}}} {
				spec := r.spec(root, "cat /proc/self/attr/current >/dev/null 2>&1; test -d /proc/1 && test -r /proc/self/oom_score_adj && test -d /sys/kernel && test -c /dev/null && (echo x >/proc/sys/kernel/core_pattern) 2>/dev/null || echo kept")
				spec.Mounts, spec.Tmpfs, spec.Files = s.Mounts, s.Tmpfs, s.Files
				c, err := r.engine.Prepare(context.Background(), spec)
				if err != nil {
					continue
				}
				if !link {
					t.Errorf("%s was taken", target)
				}
				// Through a link it lands below what the engine mounts at the start.
				if out, _ := r.finish(c, spec); out != "kept\n" {
					t.Errorf("%s by a link: got %q", target, out)
				}
			}
		}
	}
}
