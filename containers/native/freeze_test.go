package native

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// eventually polls a condition.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within ten seconds", what)
		}
	}
}

// counter is a container that counts into a file of the machine's.
func (r *rig) counter() (*containers.Spec, func() int) {
	r.Helper()
	dir := r.TempDir()
	s := r.spec(busyboxRoot(r), "i=0; while true; do i=$((i+1)); echo $i >/v/n.new; mv /v/n.new /v/n; done")
	s.Mounts = []containers.Mount{{Source: dir, Target: "/v"}}
	return s, func() int {
		b, _ := os.ReadFile(filepath.Join(dir, "n"))
		n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return n
	}
}

// onV1 makes an engine that sees only v1 trees, as machines without v2 have.
func (r *rig) onV1() {
	r.Helper()
	h := &hierarchies{v1: map[string]string{}}
	for _, c := range []string{"memory", "pids", "devices", "freezer"} {
		dir := filepath.Join(cgroupDir, c)
		if fsType(dir) != unix.CGROUP_SUPER_MAGIC {
			r.Skip("no v1 controller " + c)
		}
		h.v1[c] = dir
	}
	r.engine.cgroups = h
	must(r, h.make(r.cgroup))
	r.Cleanup(func() {
		must(r, h.kill(context.Background(), r.cgroup))
		must(r, h.remove(r.cgroup))
	})
}

func TestFreeze(t *testing.T) {
	for _, version := range []string{"machine's", "v1"} {
		t.Run(version, func(t *testing.T) {
			r := newRig(t)
			if version == "v1" {
				r.onV1()
			}
			h := r.engine.cgroups
			s, count := r.counter()
			p := r.start(s)
			name := r.cgroup + "/" + s.Name
			eventually(t, "it counts", func() bool { return count() > 3 })
			for range 3 {
				must(t, h.freeze(name, true))
				n := count()
				time.Sleep(50 * time.Millisecond)
				if count() != n {
					t.Error("it counts while it is frozen")
				}
				_, err := r.engine.Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: name, Args: []string{"true"}})
				var paused *containers.Paused
				if !errors.As(err, &paused) || paused.Name != s.Name {
					t.Errorf("got %v", err)
				}
				must(t, h.freeze(name, false))
				eventually(t, "it goes on", func() bool { return count() > n+3 })
				e, err := r.engine.Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: name, Args: []string{"true"}})
				must(t, err)
				if exit, err := e.Wait(); err != nil || exit.Code != 0 {
					t.Errorf("got %+v, %v", exit, err)
				}
			}
			// A frozen one can be killed, started again, and removed.
			must(t, h.freeze(name, true))
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			must(t, h.kill(ctx, name))
			if exit, err := p.Wait(); err != nil || exit.Signal != syscall.SIGKILL {
				t.Errorf("got %+v, %v", exit, err)
			}
			must(t, h.freeze(name, true))
			p = r.start(s)
			must(t, h.freeze(name, true))
			must(t, h.kill(ctx, name))
			_, err := p.Wait()
			must(t, err)
			must(t, h.remove(name))
			for _, root := range h.trees() {
				if _, err := os.Stat(filepath.Join(root, name)); err == nil {
					t.Errorf("%s is left in %s", name, root)
				}
			}
		})
	}
}

// TestFreezeAmidStarts freezes while commands start: neither may wait for the
// other for good, and a command that starts ends.
func TestFreezeAmidStarts(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "exec sleep 1000")
	p := r.start(s)
	name := r.cgroup + "/" + s.Name
	done := make(chan error)
	go func() {
		for range 50 {
			if err := errors.Join(Freeze(name, true), Freeze(name, false)); err != nil {
				done <- err
				return
			}
		}
		close(done)
	}()
	paused := 0
	for {
		select {
		case err := <-done:
			must(t, err)
			return
		default:
		}
		e, err := r.engine.Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: name, Args: []string{"true"}})
		var ep *containers.Paused
		if errors.As(err, &ep) {
			paused++
			continue
		}
		must(t, err)
		_, err = e.Wait()
		must(t, err)
	}
}

func TestFreezeUnsupported(t *testing.T) {
	h := &hierarchies{v1: map[string]string{"devices": "/nonexistent"}}
	var lacks *containers.Unsupported
	if err := h.freeze("x/y", true); !errors.As(err, &lacks) {
		t.Errorf("got %v", err)
	}
	if err := Freeze("../x", true); err == nil {
		t.Error("a path out of the tree was taken")
	}
}

func TestSetResources(t *testing.T) {
	for _, version := range []string{"machine's", "v1"} {
		t.Run(version, func(t *testing.T) {
			r := newRig(t)
			if version == "v1" {
				r.onV1()
			}
			h := r.engine.cgroups
			// Where no process is left to have, the shell that forks ends.
			s := r.spec(busyboxRoot(t), "sleep 1000 & sleep 1000 & (while true; do sleep 0.01; done) & exec sleep 1000")
			p := r.start(s)
			name := r.cgroup + "/" + s.Name
			exec := func(args ...string) containers.Exit {
				t.Helper()
				e, err := r.engine.Exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: name, Args: args})
				must(t, err)
				exit, err := e.Wait()
				must(t, err)
				return exit
			}
			forks := []string{"sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1 & done; wait"}
			if exit := exec(forks...); exit.Code != 0 {
				t.Errorf("without a limit: got %+v", exit)
			}
			must(t, h.limit(name, 64<<20, 8, &containers.Resources{}))
			if exit := exec(forks...); exit.Code == 0 {
				t.Errorf("pids: got %+v", exit)
			}
			if exit := exec("tail", "-c", "1000000000", "/dev/zero"); !exit.OOM || exit.Code != 137 {
				t.Errorf("memory: got %+v", exit)
			}
			if root := h.v1["pids"]; root != "" {
				b, err := os.ReadFile(filepath.Join(root, name, "cgroup.procs"))
				must(t, err)
				if strings.Count(string(b), "\n") < 3 {
					t.Errorf("processes were left behind: %q", b)
				}
			}
			for _, memory := range []int64{128 << 20, 32 << 20, 256 << 20} { // up, down, up
				must(t, h.limit(name, memory, 100, &containers.Resources{}))
			}
			if exit := exec(forks...); exit.Code != 0 {
				t.Errorf("raised: got %+v", exit)
			}
			// What lies in a tmpfs can't be given back.
			if exit := exec("dd", "if=/dev/zero", "of=/dev/shm/f", "bs=1M", "count=20"); exit.Code != 0 {
				t.Errorf("dd: got %+v", exit)
			}
			err := h.limit(name, 8<<20, 100, &containers.Resources{})
			var use *inUse
			if !errors.As(err, &use) || !strings.Contains(err.Error(), "memory limit of 8388608 bytes is below what is in use") {
				t.Errorf("got %v", err)
			}
			if !Alive(p.Ref()) {
				t.Error("it was killed")
			}
			must(t, h.limit(name, 0, 0, &containers.Resources{}))
			if exit := exec(append(forks[:2:2], "for i in 1 2 3; do "+forks[2]+" & done; wait")...); exit.Code != 0 {
				t.Errorf("lifted: got %+v", exit)
			}
			for _, bad := range []struct {
				memory, pids int64
				want         string
			}{{1024, 0, "memory limit of 1024 bytes is below"}, {-1, 0, "memory limit of -1 bytes is below"}, {0, -1, "pids limit of -1 is below"}} {
				if err := SetResources(name, bad.memory, bad.pids, containers.Resources{}); err == nil || !strings.Contains(err.Error(), bad.want) {
					t.Errorf("got %v, want %s", err, bad.want)
				}
			}
		})
	}
}

// TestLeastMemory starts a container with the least limit that is taken.
func TestLeastMemory(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "")
	s.Args, s.MemoryBytes = []string{"/bin/busybox", "true"}, minMemory
	for range 5 {
		if _, exit := r.run(s); exit.Code != 0 {
			t.Errorf("got %+v", exit)
		}
	}
	s.MemoryBytes = 1024
	if _, err := r.engine.Prepare(context.Background(), s); err == nil || !strings.Contains(err.Error(), "memory limit of 1024 bytes is below") {
		t.Errorf("got %v", err)
	}
	// A limit that the spec no longer has is lifted.
	s.MemoryBytes, s.Args = 0, []string{"sh", "-c", "dd if=/dev/zero of=/dev/null bs=50000000 count=1"}
	s.Stdout = ""
	if exit := r.runQuiet(s); exit.Code != 0 || exit.OOM {
		t.Errorf("got %+v", exit)
	}
}

func (r *rig) runQuiet(s *containers.Spec) containers.Exit {
	r.Helper()
	exit, err := r.start(s).Wait()
	must(r, err)
	return exit
}
