package kernel

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"platelayer/netplan"
	"platelayer/topology"
)

// TestReachability makes random topologies, asks with real packets who reaches
// whom, and wants the same of the oracle and of the plan. PLATELAYER_REACH=30
// is all of them; CI takes the first five.
func TestReachability(t *testing.T) {
	needRoot(t)
	seeds := 5
	if text := os.Getenv("PLATELAYER_REACH"); text != "" {
		if _, err := fmt.Sscan(text, &seeds); err != nil {
			t.Fatal(err)
		}
	}
	reached, all := 0, 0
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r, n := tryReach(t, uint64(seed))
			reached, all = reached+r, all+n
		})
	}
	t.Logf("%d of %d pairs reach each other", reached, all)
	if reached == 0 || reached == all {
		t.Errorf("%d of %d: these topologies show nothing", reached, all)
	}
}

func tryReach(t *testing.T, seed uint64) (reached, pairs int) {
	text := ""
	l := upWith(t, fmt.Sprintf("reach%d", seed), func(name string) *topology.Topology {
		text = sketchTopology(name, seed)
		top, err := topology.Load("platelayer.yaml", []byte(text), topology.Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return top
	})
	top, err := topology.Load("platelayer.yaml", []byte(text), topology.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	o := newOracle(top)
	ids, asks := o.probes()
	want := make([]bool, len(asks))
	for i, q := range asks {
		want[i] = o.reaches(ids[i], q.To)
	}
	got := l.askUntil(asks, want)
	network := netplan.NewNetwork(l.plan)
	bad := map[string]int{}
	for i, q := range asks {
		if got[i] {
			reached++
		}
		r := network.Reach(q.NetNS, q.To)
		if r.OK() == got[i] && want[i] == got[i] {
			continue
		}
		what := fmt.Sprintf("measured %v, oracle %v, plan %v", got[i], want[i], r.OK())
		if bad[what]++; bad[what] <= 3 {
			t.Errorf("%s to %s\n%s", ids[i], what, r.Text())
		}
	}
	for _, s := range top.Stations() {
		for _, to := range []string{"198.18.0.1", "3fff::1"} { // nobody's here
			r := network.Reach(top.ContainerName(s), netip.MustParseAddr(to))
			if want := o.leaves(s.ID(), r.There.To); r.Leaves() != want {
				t.Errorf("%s reaches the outside: plan %v, oracle %v\n%s", s.ID(), r.Leaves(), want, r.Text())
			}
		}
	}
	if len(bad) > 0 {
		t.Errorf("%v of %d pairs differ in\n%s", bad, len(asks), text)
	}
	if n := len(network.Probes()); n != len(asks) {
		t.Errorf("the plan has %d pairs, the oracle %d", n, len(asks))
	}
	t.Logf("%d stations, %d clusters, %d links: %d of %d pairs", len(top.Stations()), len(top.Clusters), len(top.Links), reached, len(asks))
	return reached, len(asks)
}

// askUntil asks again, a few times, where the answer is another than expected:
// packets get lost.
func (l *lab) askUntil(asks []Ask, want []bool) []bool {
	l.Helper()
	got := make([]bool, len(asks))
	open := make([]int, len(asks))
	for i := range open {
		open[i] = i
	}
	for range 3 {
		some := make([]Ask, len(open))
		for k, i := range open {
			some[k] = asks[i]
		}
		answers, err := Echo(l.Context(), l.options, some)
		if err != nil {
			l.Fatal(err)
		}
		var differ []int
		for k, i := range open {
			if got[i] = answers[k]; got[i] != want[i] {
				differ = append(differ, i)
			}
		}
		if open = differ; len(open) == 0 {
			break
		}
	}
	return got
}

// TestSketches: a seed gives one topology.
func TestSketches(t *testing.T) {
	for seed := range uint64(30) {
		text := sketchTopology("x", seed)
		if text != sketchTopology("x", seed) {
			t.Errorf("seed %d gives two topologies", seed)
		}
		top, err := topology.Load("platelayer.yaml", []byte(text), topology.Options{Dir: "/"})
		if err != nil {
			t.Errorf("seed %d: %v\n%s", seed, err, text)
			continue
		}
		if _, err := netplan.Build(top); err != nil {
			t.Errorf("seed %d: %v\n%s", seed, err, text)
		}
		if strings.Count(text, "\n") < 5 {
			t.Errorf("seed %d: %s", seed, text)
		}
	}
}
