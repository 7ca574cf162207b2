package native

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// TestExecKeepsNothing lets a thread fail to return after it has started a
// command: unreaped, that would keep the container from ending.
func TestExecKeepsNothing(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "exec sleep 1000")
	p := r.start(s)
	e := r.engine
	x := &executor{filter: e.filter, common: e.common, cgroups: e.cgroups, on: func(f func(*thread) error) error {
		return onThread(func(lost *thread) error {
			closeFD(lost.home[len(lost.home)-1].fd)
			lost.home[len(lost.home)-1].fd = -1
			return f(lost)
		})
	}}
	_, err := x.exec(context.Background(), &containers.ExecSpec{Container: p.Ref(), Cgroup: r.cgroup + "/" + s.Name, Args: []string{"true"}})
	if !errors.Is(err, unix.EBADF) {
		t.Fatalf("got %v", err)
	}
	must(t, p.Signal(unix.SIGKILL))
	eventually(t, "the container has ended", func() bool { return !p.(*process).Running() })
	if exit, err := p.Wait(); err != nil || exit.Signal != unix.SIGKILL {
		t.Errorf("got %+v, %v", exit, err)
	}
}

// TestRunOnAMovingStack starts children while the stacks of those who start them
// shrink, for which they are moved: the kernel writes to what it was told of.
func TestRunOnAMovingStack(t *testing.T) {
	prog := &program{}
	prog.add("end", 0, unix.SYS_EXIT_GROUP, 0)
	for range 20 {
		syscall.ForkLock.RLock() // who starts a child waits
		failed := make(chan error)
		const many = 20
		for range many {
			go func() {
				descend(2000)
				failed <- runOnce(prog)
			}()
		}
		time.Sleep(5 * time.Millisecond)
		runtime.GC()
		runtime.GC()
		syscall.ForkLock.RUnlock()
		for range many {
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
		}
	}
}

func runOnce(prog *program) error {
	_, pidfd, err := prog.run(nil, 0, -1)
	if err != nil {
		return err
	}
	defer closeFD(pidfd)
	if pidfd < 3 {
		return fmt.Errorf("the child's descriptor is %d", pidfd)
	}
	return awaitEnd(pidfd)
}

// descend needs a large stack.
func descend(depth int) byte {
	var room [64]byte
	if depth > 0 {
		room[depth%64] = descend(depth - 1)
	}
	return room[(depth+1)%64]
}
