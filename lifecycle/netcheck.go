package lifecycle

import (
	"context"
	"math/rand/v2"
	"net/netip"

	"platelayer/netplan"
	"platelayer/netplan/kernel"
)

// NetCheck is what real packets showed of a topology's network; its JSON form
// is stable.
type NetCheck struct {
	Name        string          `json:"name"`
	Pairs       int             `json:"pairs"` // of a station and an address of another
	Asked       int             `json:"asked"`
	Answered    int             `json:"answered"`
	Differences []NetDifference `json:"differences"`
}

// NetDifference is a pair that the plan says something else of.
type NetDifference struct {
	From     string        `json:"from"` // "cluster/station"
	To       string        `json:"to"`
	Address  netip.Addr    `json:"address"`
	Planned  bool          `json:"planned"`
	Answered bool          `json:"answered"`
	Path     netplan.Reach `json:"path"` // as planned
}

// CheckNet has the kernels of a topology's stations ask each other, with ICMP
// echo requests, and compares who answers with the plan. Of more pairs than
// sample, that many are asked, the same ones each time; 0 is all.
func CheckNet(ctx context.Context, l Layout, name string, sample int) (*NetCheck, error) {
	intent, err := readIntent(l, name)
	if err != nil {
		return nil, err
	}
	if !exists(l.pins(name)) {
		return nil, &NotUp{name}
	}
	plan, err := netplan.Build(intent.Topology)
	if err != nil {
		return nil, err
	}
	network := netplan.NewNetwork(plan)
	probes := network.Probes()
	result := &NetCheck{Name: name, Pairs: len(probes), Differences: []NetDifference{}}
	if sample > 0 && sample < len(probes) {
		r := rand.New(rand.NewPCG(uint64(len(probes)), uint64(sample)))
		r.Shuffle(len(probes), func(i, j int) { probes[i], probes[j] = probes[j], probes[i] })
		probes = probes[:sample]
	}
	result.Asked = len(probes)
	reaches := make([]netplan.Reach, len(probes))
	for i, p := range probes {
		reaches[i] = network.Reach(p.NetNS, p.Target.Address)
	}
	answered, err := askAll(ctx, l.kernelOptions(name), probes, reaches)
	if err != nil {
		return nil, err
	}
	for i, p := range probes {
		if answered[i] {
			result.Answered++
		}
		if planned := reaches[i].OK(); planned != answered[i] {
			result.Differences = append(result.Differences, NetDifference{p.Name, p.Target.Name, p.Target.Address, planned, answered[i], reaches[i]})
		}
	}
	return result, nil
}

// askAll asks again, a few times, where the plan says something else: packets get
// lost on a busy machine.
func askAll(ctx context.Context, o kernel.Options, probes []netplan.Probe, reaches []netplan.Reach) ([]bool, error) {
	answered := make([]bool, len(probes))
	open := make([]int, len(probes))
	for i := range open {
		open[i] = i
	}
	const tries = 3
	for range tries {
		asks := make([]kernel.Ask, len(open))
		for k, i := range open {
			asks[k] = kernel.Ask{NetNS: probes[i].NetNS, To: probes[i].Target.Address}
		}
		got, err := kernel.Echo(ctx, o, asks)
		if err != nil {
			return nil, err
		}
		var differ []int
		for k, i := range open {
			if answered[i] = got[k]; got[k] != reaches[i].OK() {
				differ = append(differ, i)
			}
		}
		if open = differ; len(open) == 0 {
			break
		}
	}
	return answered, nil
}
