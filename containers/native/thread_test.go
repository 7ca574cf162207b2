package native

import (
	"context"
	"errors"
	"testing"

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
