package native

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// BenchmarkStations prepares all containers, then starts them, as `up` does.
func BenchmarkStations(b *testing.B) {
	for _, n := range []int{10, 100, 500} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newRig(b)
			must(b, Harden())
			root := busyboxRoot(b)
			var cpu time.Duration
			for b.Loop() {
				before := cpuTime(b)
				all := r.startAll(root, n)
				cpu += cpuTime(b) - before
				b.StopTimer()
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				must(b, KillCgroup(ctx, r.cgroup))
				cancel()
				for _, p := range all {
					_, err := p.Wait()
					must(b, err)
				}
				must(b, RemoveCgroup(r.cgroup))
				must(b, r.engine.cgroups.make(r.cgroup))
				b.StartTimer()
			}
			b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N*n), "cpu-ms/station")
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N*n), "wall-ms/station")
		})
	}
}

func (r *rig) startAll(root string, n int) []containers.Process {
	prepared := make([]containers.Container, n)
	all := make([]containers.Process, n)
	each := func(f func(i int) error) {
		var wg sync.WaitGroup
		slots := make(chan struct{}, 4)
		for i := range n {
			wg.Add(1)
			slots <- struct{}{}
			go func() {
				defer wg.Done()
				defer func() { <-slots }()
				if err := f(i); err != nil {
					r.Error(err)
				}
			}()
		}
		wg.Wait()
	}
	each(func(i int) (err error) {
		s := r.spec(root, "")
		s.Name, s.Args = fmt.Sprint("c", i), []string{"/bin/busybox", "sleep", "1000"}
		prepared[i], err = r.engine.Prepare(context.Background(), s)
		return err
	})
	each(func(i int) (err error) {
		all[i], err = prepared[i].Start(context.Background())
		return err
	})
	return all
}

func cpuTime(t testing.TB) time.Duration {
	var u unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
