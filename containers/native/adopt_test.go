package native

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// kernel tells whether the running kernel is at least this new.
func kernel(t testing.TB, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	must(t, unix.Uname(&u))
	var a, b int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	must(t, err)
	return a > major || a == major && b >= minor
}

// TestAdopt opens containers whose parent, a copy of this program, is gone.
func TestAdopt(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	for _, tc := range []struct {
		args   []string
		signal syscall.Signal
		memory int64
		want   containers.Exit
	}{
		{[]string{"/bin/sh", "-c", "until test -e /v/go; do sleep 0.01; done; exit 7"}, 0, 0, containers.Exit{Code: 7}},
		{[]string{"sleep", "1000"}, syscall.SIGKILL, 0, containers.Exit{Code: 137, Signal: syscall.SIGKILL}},
		{[]string{"/bin/sh", "-c", "until test -e /v/go; do sleep 0.01; done; exec tail -c 1000000000 /dev/zero"}, 0, 32 << 20,
			containers.Exit{Code: 137, Signal: syscall.SIGKILL, OOM: true}},
	} {
		s := r.spec(root, "")
		volume := t.TempDir()
		s.Args, s.MemoryBytes, s.Mounts = tc.args, tc.memory, []containers.Mount{{Source: volume, Target: "/v"}}
		ref := orphan(t, r.cgroup, s)
		p, err := OpenContainer(ref, r.cgroup+"/"+s.Name)
		must(t, err)
		if tc.signal != 0 {
			must(t, p.Signal(tc.signal))
		}
		must(t, os.WriteFile(volume+"/go", nil, 0o644))
		exit, err := p.Wait()
		must(t, err)
		if exit.At.IsZero() {
			t.Error("no time")
		}
		exit.At = tc.want.At
		if !kernel(t, 6, 15) && exit.Code == -1 {
			tc.want.Code, tc.want.Signal = -1, 0
		}
		if exit != tc.want {
			t.Errorf("%q: got %+v, want %+v", tc.args, exit, tc.want)
		}
		if _, err := OpenContainer(ref, r.cgroup+"/"+s.Name); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("ended: got %v", err)
		}
	}
}

// orphan has a copy of this program start a container and waits for its end.
func orphan(t *testing.T, cgroup string, s *containers.Spec) containers.ProcessRef {
	t.Helper()
	text, err := json.Marshal(s)
	must(t, err)
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestParent$")
	cmd.Env = append(os.Environ(), "PARENT_CGROUP="+cgroup, "PARENT_SPEC="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadBytes('\n')
	must(t, err)
	var ref containers.ProcessRef
	must(t, json.Unmarshal(line, &ref))
	_ = cmd.Wait() // killed by itself
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
		t.Fatalf("the parent ended with %v", status)
	}
	return ref
}

// TestParent is the parent that orphan asks for: it leaves its container by
// SIGKILL.
func TestParent(t *testing.T) {
	text := os.Getenv("PARENT_SPEC")
	if text == "" {
		t.Skip("started by TestAdopt only")
	}
	var s containers.Spec
	must(t, json.Unmarshal([]byte(text), &s))
	e, err := New(Config{Cgroup: os.Getenv("PARENT_CGROUP")})
	must(t, err)
	c, err := e.Prepare(context.Background(), &s)
	must(t, err)
	p, err := c.Start(context.Background())
	must(t, err)
	must(t, json.NewEncoder(os.Stdout).Encode(p.Ref()))
	must(t, syscall.Kill(os.Getpid(), syscall.SIGKILL))
	select {}
}

func TestBootID(t *testing.T) {
	if id := BootID(); len(id) != 36 || id != BootID() {
		t.Errorf("got %q", id)
	}
}

// TestKillGroup kills a command together with what it waits for.
func TestKillGroup(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "exec sleep 1000")
	p := r.start(s)
	e, err := r.engine.Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: r.cgroup + "/" + s.Name, Args: []string{"sh", "-c", "sleep 2000 & sleep 2000; true"}})
	must(t, err)
	count := func() int {
		b, err := os.ReadFile(filepath.Join(r.engine.cgroups.trees()[0], r.cgroup, s.Name, "cgroup.procs"))
		must(t, err)
		return strings.Count(string(b), "\n")
	}
	eventually(t, "it has its children", func() bool { return count() == 4 })
	must(t, e.(containers.GroupKiller).KillGroup())
	if exit, err := e.Wait(); err != nil || exit.Signal != syscall.SIGKILL {
		t.Errorf("got %+v, %v", exit, err)
	}
	if kernel(t, 6, 9) {
		eventually(t, "its children are gone", func() bool { return count() == 1 })
	}
	if !Alive(p.Ref()) {
		t.Error("the container was killed")
	}
	if err := e.(containers.GroupKiller).KillGroup(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("got %v", err)
	}
}

// TestRunningAmidSignals asks for a running process while signals arrive: they
// interrupt even a poll that doesn't wait.
func TestRunningAmidSignals(t *testing.T) {
	c := exec.Command("sleep", "1000")
	must(t, c.Start())
	defer func() {
		c.Process.Kill()
		c.Wait()
	}()
	pidfd, err := unix.PidfdOpen(c.Process.Pid, 0)
	must(t, err)
	defer unix.Close(pidfd)
	done := make(chan struct{})
	defer close(done)
	asking := make(chan int, 1)
	go func() {
		for tid := <-asking; ; {
			select {
			case <-done:
				return
			default:
				unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			}
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	asking <- unix.Gettid()
	for range 20000 {
		if ended, err := hasEnded(pidfd); ended || err != nil {
			t.Fatalf("got %v, %v of a process that runs", ended, err)
		}
	}
}
