package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/netplan"
	"platelayer/topology"
)

// BenchmarkApply wires clusters of ten and takes them away:
//
//	go test -run '^$' -bench Apply -benchtime 3x ./netplan/kernel
//
// NETNS_DIR=/dev/shm/netns puts the names on a tmpfs, as /run is on most
// machines.
func BenchmarkApply(b *testing.B) {
	needRoot(b)
	for _, n := range []int{10, 100, 500} {
		b.Run(fmt.Sprintf("stations=%d", n), func(b *testing.B) { benchmarkApply(b, n) })
	}
}

func benchmarkApply(b *testing.B, stations int) {
	name := labName("bench")
	p, err := netplan.Build(many(name, stations))
	if err != nil {
		b.Fatal(err)
	}
	o := optionsFor(name)
	if dir := os.Getenv("NETNS_DIR"); dir != "" {
		o.NetNSDir = dir
	}
	b.Cleanup(func() { _ = Remove(o) })
	var up, down, wall time.Duration
	for b.Loop() {
		at, start := cpu(b), time.Now()
		if err := Apply(context.Background(), p, o); err != nil {
			b.Fatal(err)
		}
		wall += time.Since(start)
		mid := cpu(b)
		if err := Remove(o); err != nil {
			b.Fatal(err)
		}
		up, down = up+mid-at, down+cpu(b)-mid
	}
	per := float64(b.N*stations) * float64(time.Microsecond)
	b.ReportMetric(float64(up)/per, "up-cpu-us/station")
	b.ReportMetric(float64(wall)/per, "up-wall-us/station")
	b.ReportMetric(float64(down)/per, "down-cpu-us/station")
}

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkChange changes one station of many, and back:
//
//	go test -run '^$' -bench Change -benchtime 20x ./netplan/kernel
func BenchmarkChange(b *testing.B) {
	needRoot(b)
	const stations = 500
	name := labName("change")
	o := optionsFor(name)
	b.Cleanup(func() { _ = Remove(o) })
	plan := func(edit func(s *topology.Station)) *netplan.Plan {
		top := many(name, stations)
		edit(&top.Clusters[20].Stations[5])
		p, err := netplan.Build(top)
		if err != nil {
			b.Fatal(err)
		}
		return p
	}
	old := plan(func(*topology.Station) {})
	if err := Apply(context.Background(), old, o); err != nil {
		b.Fatal(err)
	}
	for what, edit := range map[string]func(s *topology.Station){
		"address": func(s *topology.Station) { s.Addresses = []netip.Addr{netip.MustParseAddr("10.0.20.200")} },
		"name":    func(s *topology.Station) { s.Name = "other" },
	} {
		b.Run(what, func(b *testing.B) {
			now, next := old, plan(edit)
			at := cpu(b)
			for b.Loop() {
				var names []string
				for _, c := range netplan.Diff(now, next) {
					if c.Verb == netplan.VerbChange {
						names = append(names, c.NetNS)
					}
				}
				err := errors.Join(Extend(context.Background(), next, o), Converge(context.Background(), old, next, o, names), Prune(next, o))
				if err != nil {
					b.Fatal(err)
				}
				now, next = next, now
			}
			b.ReportMetric(float64(cpu(b)-at)/float64(b.N)/float64(time.Millisecond), "cpu-ms/op")
			if now != old {
				if err := errors.Join(Extend(context.Background(), old, o), Converge(context.Background(), next, old, o, old.NetNSNames()), Prune(old, o)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func many(name string, stations int) *topology.Topology {
	t := &topology.Topology{Name: name}
	for i := 0; i < stations; i++ {
		if i%10 == 0 {
			net := netip.AddrFrom4([4]byte{10, byte(i / 10 >> 8), byte(i / 10), 0})
			t.Clusters = append(t.Clusters, topology.Cluster{
				Name: fmt.Sprintf("c%d", i/10), Domain: "test", MTU: 1500,
				Subnets:           []netip.Prefix{netip.PrefixFrom(net, 24)},
				BackboneAddresses: []netip.Addr{net.Next()},
			})
		}
		c := &t.Clusters[i/10]
		base := c.Subnets[0].Addr().As4()
		base[3] = byte(10 + i%10)
		c.Stations = append(c.Stations, topology.Station{
			Name: fmt.Sprintf("s%d", i), Cluster: c.Name, Addresses: []netip.Addr{netip.AddrFrom4(base)}})
	}
	return t
}
