package native

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// rig is an engine of a test's own and what it leaves behind.
type rig struct {
	testing.TB
	engine *Engine
	cgroup string
	dir    string
	n      atomic.Int32
}

func newRig(t testing.TB) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("these tests need root")
		}
		t.Skip("needs root")
	}
	r := &rig{TB: t, dir: t.TempDir(), cgroup: fmt.Sprintf("platelayer-test-%d-%d", os.Getpid(), time.Now().UnixNano())}
	e, err := New(Config{Cgroup: r.cgroup})
	if err != nil {
		t.Fatal(err)
	}
	r.engine = e
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := KillCgroup(ctx, r.cgroup); err != nil {
			t.Error(err)
		}
		if err := RemoveCgroup(r.cgroup); err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// busyboxRoot makes a root folder with busybox and its applets.
func busyboxRoot(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("install busybox-static")
		}
		t.Skip("no busybox")
	}
	root := t.TempDir()
	must(t, os.Chmod(root, 0o755))
	for _, d := range []string{"bin", "etc", "tmp", "data"} {
		must(t, os.Mkdir(filepath.Join(root, d), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755))
	for _, applet := range strings.Fields("sh cat ls id sleep mount unshare mknod echo kill hostname env pwd dd true false ping ps grep head stat touch ln readlink wc tr sync od tail seq test printf nc httpd umount cut") {
		must(t, os.Symlink("busybox", filepath.Join(root, "bin", applet)))
	}
	must(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\nann:x:1000:\nstaff:x:50:ann\n"), 0o644))
	return root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// spec is a container that runs a shell script on a busybox root.
func (r *rig) spec(root, script string) *containers.Spec {
	n := r.n.Add(1)
	return &containers.Spec{
		Name: fmt.Sprintf("c%d", n), Hostname: "station", Root: containers.Root{Lower: root},
		Args: []string{"/bin/sh", "-c", script}, Hosts: "127.0.0.1 localhost\n", ResolvConf: "nameserver 192.0.2.53\n",
		Stdout: filepath.Join(r.dir, fmt.Sprintf("out%d", n)), Stderr: filepath.Join(r.dir, fmt.Sprintf("err%d", n)),
	}
}

// run runs a container to its end.
func (r *rig) run(spec *containers.Spec) (string, containers.Exit) {
	r.Helper()
	c, err := r.engine.Prepare(context.Background(), spec)
	must(r, err)
	return r.finish(c, spec)
}

func (r *rig) finish(c containers.Container, spec *containers.Spec) (string, containers.Exit) {
	r.Helper()
	out := drain(r, spec.Stdout)
	errs := drain(r, spec.Stderr)
	p, err := c.Start(context.Background())
	must(r, err)
	exit, err := p.Wait()
	must(r, err)
	return out() + errs(), exit
}

// drain reads a FIFO and returns a function that takes what has been written
// up to a process's end. A writer of its own keeps the end away until then.
func drain(t testing.TB, path string) func() string {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	must(t, err)
	r := os.NewFile(uintptr(fd), path)
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	var b bytes.Buffer
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(&b, r)
		done <- err
	}()
	return func() string {
		t.Helper()
		must(t, w.Close())
		must(t, <-done)
		must(t, r.Close())
		return b.String()
	}
}

func TestRun(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	for _, tc := range []struct {
		script, want string
		code         int
	}{
		{"echo hi; exit 7", "hi\n", 7},
		{"echo $$; hostname; pwd; cat /etc/hostname", "1\nstation\n/\nstation\n", 0},
		{"echo to stderr >&2", "to stderr\n", 0},
		{"umask", "0022\n", 0},
		{"kill -9 $$; exit 3", "", 3}, // process 1 can't kill itself
	} {
		out, exit := r.run(r.spec(root, tc.script))
		if out != tc.want || exit.Code != tc.code {
			t.Errorf("%s: got %q, code %d", tc.script, out, exit.Code)
		}
	}
}

func TestExecErrors(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	must(t, os.WriteFile(filepath.Join(root, "plain"), []byte("x"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "dos.sh"), []byte("#!/bin/sh\r\necho hi\r\n"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "bash.sh"), []byte("#! /bin/bash -e\n"), 0o755))
	dynamic := elfNaming("/lib/ld-none.so.1")
	must(t, os.WriteFile(filepath.Join(root, "dynamic"), dynamic, 0o755))
	for arg, want := range map[string]containers.ExecError{
		"/missing": {Errno: unix.ENOENT}, "missing": {Errno: unix.ENOENT}, "/plain": {Errno: unix.EACCES}, "/data": {Errno: unix.EACCES},
		"/dos.sh":  {Errno: unix.ENOENT, Lacking: "/bin/sh\r"},
		"/bash.sh": {Errno: unix.ENOENT, Lacking: "/bin/bash"},
		"/dynamic": {Errno: unix.ENOENT, Lacking: "/lib/ld-none.so.1"},
	} {
		s := r.spec(root, "")
		s.Args = []string{arg}
		c, err := r.engine.Prepare(context.Background(), s)
		must(t, err)
		_, err = c.Start(context.Background())
		var ee *containers.ExecError
		if !errors.As(err, &ee) || ee.Errno != want.Errno || ee.Lacking != want.Lacking {
			t.Errorf("%s: got %v, want %v", arg, err, &want)
		}
	}
}

// elfNaming is as much of a dynamic ELF program as execve(2) looks at before its
// interpreter.
func elfNaming(interpreter string) []byte {
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 64+56-7)...)
	little := binary.LittleEndian
	little.PutUint16(b[16:], uint16(elf.ET_DYN))
	little.PutUint16(b[18:], uint16(map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]))
	little.PutUint32(b[20:], 1)
	little.PutUint64(b[32:], 64)
	little.PutUint16(b[52:], 64)
	little.PutUint16(b[54:], 56)
	little.PutUint16(b[56:], 1)
	header := b[64:]
	little.PutUint32(header, uint32(elf.PT_INTERP))
	little.PutUint64(header[8:], uint64(len(b)))
	little.PutUint64(header[32:], uint64(len(interpreter)+1))
	return append(append(b, interpreter...), 0)
}

// TestInterpreter reads beginnings of programs that say less than they should.
func TestInterpreter(t *testing.T) {
	whole := elfNaming("/ld")
	far, many := bytes.Clone(whole), bytes.Clone(whole)
	binary.LittleEndian.PutUint64(far[64+8:], 1<<63)
	binary.LittleEndian.PutUint64(many[32:], ^uint64(0))
	for text, want := range map[string]string{
		"": "", "#!": "", "#!/bin/sh": "", "#!/bin/sh\n": "/bin/sh", "#!\t/bin/sh\t-e": "/bin/sh", "#!\n": "", "\x7fELF\x02\x01": "",
		string(whole): "/ld", string(whole[:64]): "", string(whole[:120]): "", string(far): "", string(many): "",
	} {
		if got := interpreter([]byte(text)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestHostRoot(t *testing.T) {
	r := newRig(t)
	s := r.spec("", "ls /home /root /run; cat /etc/shadow | head -1; ls -ld /tmp; python3 -c 'print(6*7)' 2>/dev/null; echo end")
	s.Root = containers.Root{Host: true}
	out, exit := r.run(s)
	t.Log(out)
	if exit.Code != 0 || !strings.Contains(out, "root:*:") || !strings.HasSuffix(out, "end\n") {
		t.Errorf("got %q, code %d", out, exit.Code)
	}
}
