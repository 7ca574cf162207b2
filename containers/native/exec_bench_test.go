package native

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// BenchmarkExec tells what a command in a running container costs its parent
// and itself: alone, and with what an engine keeps.
func BenchmarkExec(b *testing.B) {
	r := newRig(b)
	must(b, Harden())
	s := r.spec(busyboxRoot(b), "exec sleep 1000")
	p := r.start(s)
	spec := &containers.ExecSpec{Container: p.Ref(), Cgroup: r.cgroup + "/" + s.Name, Args: []string{"/bin/busybox", "true"}}
	for name, exec := range map[string]func(context.Context, *containers.ExecSpec) (containers.Process, error){
		"alone": Exec, "engine": r.engine.Exec,
	} {
		b.Run(name, func(b *testing.B) {
			before, below := cpuTime(b), childTime(b)
			for b.Loop() {
				e, err := exec(context.Background(), spec)
				must(b, err)
				_, err = e.Wait()
				must(b, err)
			}
			b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/exec")
			b.ReportMetric(float64((childTime(b)-below).Microseconds())/float64(b.N), "child-cpu-µs/exec")
		})
	}
}

func childTime(t testing.TB) time.Duration {
	var u unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_CHILDREN, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
