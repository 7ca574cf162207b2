package native

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// until polls a condition.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
	}
}

func TestInit(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	s := r.spec(root, "echo $$; (sleep 0.1 & exec true); sleep 0.5; ps | grep -c ' [Z] '; sed -n 's/^Name:.//p;s/^Threads:.//p' /proc/1/status; (echo x >/proc/1/exe) 2>/dev/null || echo closed; exit 7")
	s.Init, s.Pids = true, 4
	out, exit := r.run(s)
	if out != "2\n0\nplatelayer-init\n1\nclosed\n" || exit.Code != 7 {
		t.Errorf("got %q, %+v", out, exit)
	}
	s = r.spec(root, "trap 'exit 5' TERM; touch /tmp/ready; while true; do sleep 0.05; done")
	s.Init, s.User = true, "ann"
	s.Tmpfs = []containers.Tmpfs{{Target: "/tmp"}}
	p := r.start(s)
	until(t, "file", func() bool { _, err := os.Stat("/proc/" + itoa(p.Ref().Pid) + "/root/tmp/ready"); return err == nil })
	if IgnoresSignal(p.Ref(), syscall.SIGTERM) {
		t.Error("the init seems to ignore what it hands on")
	}
	must(t, p.Signal(syscall.SIGTERM))
	if exit, err := p.Wait(); err != nil || exit.Code != 5 {
		t.Errorf("got %+v, %v", exit, err)
	}
	s = r.spec(root, "kill -9 $$")
	s.Init = true
	if _, exit := r.run(s); exit.Code != 137 {
		t.Errorf("got %+v", exit)
	}
	must(t, os.WriteFile(root+"/script", []byte("#!/nope\n"), 0o755))
	s = r.spec(root, "")
	s.Init, s.Args = true, []string{"/script"}
	if out, exit := r.run(s); out != initMessage || exit.Code != 127 {
		t.Errorf("got %q, %+v", out, exit)
	}
	s = r.spec(root, "")
	s.Init, s.Args = true, []string{"/etc/passwd"}
	c, err := r.engine.Prepare(context.Background(), s)
	must(t, err)
	var ee *containers.ExecError
	if _, err = c.Start(context.Background()); !errors.As(err, &ee) || ee.Errno != unix.EACCES {
		t.Errorf("got %v", err)
	}
}

func TestTerminal(t *testing.T) {
	r := newRig(t)
	for _, init := range []bool{false, true} {
		s := r.spec(busyboxRoot(t), "test -t 0 && tty=yes; readlink /proc/self/fd/1; test -c /dev/console && echo $tty $TERM >/dev/console; read x </dev/tty; echo got $x; exit 3")
		s.TTY, s.User, s.Init = true, "ann", init
		p := r.start(s)
		master := p.(containers.Terminal).Terminal()
		_, err := master.WriteString("typed\n")
		must(t, err)
		b, err := io.ReadAll(master)
		if err != nil && !errors.Is(err, unix.EIO) { // EIO: the other side is closed
			t.Error(err)
		}
		must(t, master.Close())
		exit, err := p.Wait()
		must(t, err)
		out := strings.ReplaceAll(strings.ReplaceAll(string(b), "\r", ""), "typed\n", "")
		if want := "/dev/pts/0\nyes xterm\ngot \n"; strings.ReplaceAll(out, "got typed", "got ") != want && out != "/dev/pts/0\nyes xterm\ngot " || exit.Code != 3 {
			t.Errorf("got %q, %+v", b, exit)
		}
	}
}

// TestStdin has an input that stays open be the container's own: its link tells
// nothing of the machine.
func TestStdin(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "echo line >/dev/stdin; read a; echo got $a; readlink /proc/$$/fd/0 | cut -d: -f1")
	s.StdinOpen, s.User = true, "ann"
	if out, _ := r.run(s); out != "got line\npipe\n" {
		t.Errorf("got %q", out)
	}
}

func TestJoin(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	s := r.spec(root, "echo shared >/dev/shm/f; touch /tmp/ready; exec sleep 100")
	host := r.start(s)
	ref := host.Ref()
	until(t, "file", func() bool { _, err := os.Stat("/proc/" + itoa(ref.Pid) + "/root/tmp/ready"); return err == nil })
	j := r.spec(root, "cat /dev/shm/f; tr '\\0' ' ' </proc/1/cmdline; echo; test $$ != 1 && echo not 1; readlink /proc/self/ns/ipc; kill -9 1; echo still here")
	j.PIDOf, j.IPCOf = &ref, &ref
	out, exit := r.run(j)
	ipc, err := os.Readlink("/proc/" + itoa(ref.Pid) + "/ns/ipc")
	must(t, err)
	if out != "shared\nsleep 100 \nnot 1\n"+ipc+"\nstill here\n" || exit.Code != 0 || !Alive(ref) {
		t.Errorf("got %q, %+v", out, exit)
	}
	j = r.spec(root, "exec sleep 100")
	j.PIDOf = &ref
	p := r.start(j)
	must(t, p.Signal(syscall.SIGKILL))
	if exit, err := p.Wait(); err != nil || exit.Code != 137 || !Alive(ref) {
		t.Errorf("got %+v, %v", exit, err)
	}
	must(t, host.Signal(syscall.SIGKILL))
	_, err = host.Wait()
	must(t, err)
	if _, err := r.engine.Prepare(context.Background(), func() *containers.Spec { s := r.spec(root, ""); s.IPCOf = &ref; return s }()); err == nil {
		t.Error("joined a dead container")
	}
}

// TestIdle has a container that runs nothing itself hand a signal on to a command
// that is executed in it, and reap what that leaves.
func TestIdle(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "exit 3")
	s.Idle, s.Tmpfs = true, []containers.Tmpfs{{Target: "/tmp"}}
	p := r.start(s)
	run := func(script string) containers.Process {
		c, err := r.engine.Exec(context.Background(), &containers.ExecSpec{
			Container: p.Ref(), Cgroup: r.cgroup + "/" + s.Name, Args: []string{"/bin/sh", "-c", script}})
		must(t, err)
		return c
	}
	leaves := run("(sleep 0.1; touch /tmp/slept) & exit 4")
	if exit, err := leaves.Wait(); err != nil || exit.Code != 4 {
		t.Errorf("got %+v, %v", exit, err)
	}
	reaped := run("while [ ! -e /tmp/slept ] || ps | grep -q ' [Z] '; do sleep 0.01; done")
	if exit, err := reaped.Wait(); err != nil || exit.Code != 0 {
		t.Errorf("got %+v, %v", exit, err)
	}
	c := run("trap 'exit 5' TERM; touch /tmp/ready; while true; do sleep 0.05; done")
	until(t, "file", func() bool { _, err := os.Stat("/proc/" + itoa(p.Ref().Pid) + "/root/tmp/ready"); return err == nil })
	must(t, p.Signal(syscall.SIGTERM))
	if exit, err := c.Wait(); err != nil || exit.Code != 5 {
		t.Errorf("the command ended with %+v, %v", exit, err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 0 {
		t.Errorf("the container ended with %+v, %v", exit, err)
	}
}

// TestNewborn looks at commands that are executed by a newborn: birth.go.
func TestNewborn(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	p := r.start(r.spec(root, "exec sleep 100"))
	defer r.end(p)
	ref := p.Ref()
	spec := func(args ...string) *containers.ExecSpec {
		return &containers.ExecSpec{Container: ref, Cgroup: p.(*process).cgroup, SharedPIDs: true, Args: args}
	}
	_, err := Exec(context.Background(), spec("/nope"))
	var missing *containers.ExecError
	if !errors.As(err, &missing) || missing.Code() != 127 {
		t.Errorf("got %v", err)
	}
	s := spec("sh", "-c", "test $(id -u) = 1000 && test $PWD = /tmp && test $(cut -d' ' -f6 /proc/self/stat) = $$ && test $(ls /proc/self/fd | wc -l) = 4 && echo fine >/dev/tty && exit 7")
	s.User, s.WorkingDir, s.TTY = "ann", "/tmp", true
	master, slave, err := OpenPTY(ref)
	must(t, err)
	defer master.Close()
	s.Stdin, s.Stdout, s.Stderr = slave, slave, slave
	e, err := Exec(context.Background(), s)
	must(t, err)
	must(t, slave.Close())
	b := make([]byte, 100)
	n, _ := io.ReadAtLeast(master, b, len("fine\r\n"))
	exit, err := e.Wait()
	must(t, err)
	if string(b[:n]) != "fine\r\n" || exit.Code != 7 {
		t.Errorf("got %q, %+v", b[:n], exit)
	}
	for _, powers := range []containers.Spec{{Init: true}, {NewPrivileges: true}, {Privileged: true}} {
		j := r.spec(root, "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\t\\n'; (echo x >/proc/sys/kernel/domainname) 2>/dev/null && echo whole; cat /proc/1/comm")
		j.PIDOf, j.Init, j.NewPrivileges, j.Privileged = &ref, powers.Init, powers.NewPrivileges, powers.Privileged
		want := "NoNewPrivs:1Seccomp:2sleep\n"
		switch {
		case j.NewPrivileges:
			want = "NoNewPrivs:0Seccomp:2sleep\n"
		case j.Privileged:
			want = "NoNewPrivs:0Seccomp:0whole\nsleep\n"
		}
		if out, _ := r.run(j); out != want {
			t.Errorf("got %q, want %q", out, want)
		}
	}
}
