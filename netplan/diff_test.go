package netplan

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"platelayer/topology"
)

// edits are changes of a sample.
func edits() map[string]struct {
	sample string
	edit   func(t *topology.Topology)
} {
	return map[string]struct {
		sample string
		edit   func(t *topology.Topology)
	}{
		"station-more": {"plain", func(t *topology.Topology) {
			c := &t.Clusters[0]
			c.Stations = append(c.Stations, station("web", "www3", "10.1.0.13"))
		}},
		"station-renamed": {"plain", func(t *topology.Topology) { t.Clusters[0].Stations[0].Name = "www9" }},
		"cluster-less":    {"multi", func(t *topology.Topology) { t.Clusters, t.Clusters[0].Stations = t.Clusters[:1], nil }},
		"address":         {"plain", func(t *topology.Topology) { t.Clusters[0].Stations[1].Addresses = ips("10.1.0.77") }},
		"address-order":   {"gateway", func(t *topology.Topology) { t.Clusters[0].Stations[1].Addresses = ips("2001:db8:1::11 203.0.113.11") }},
		"alias":           {"gateway", func(t *topology.Topology) { t.Clusters[0].Stations[0].Aliases = []string{"shop.example"} }},
		"gateway":         {"gateway", func(t *topology.Topology) { t.Clusters[0].Gateway = "" }},
		"mtu":             {"ipv6", func(t *topology.Topology) { t.Clusters[0].MTU = 1500 }},
		"route": {"plain", func(t *topology.Topology) {
			t.Clusters[0].Stations[0].Routes = []topology.Route{{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("10.1.0.12")}}
		}},
	}
}

func TestDiffGolden(t *testing.T) {
	update := os.Getenv("UPDATE_GOLDEN") != "" // rewrites them
	for name, e := range edits() {
		t.Run(name, func(t *testing.T) {
			old, top := build(t, samples()[e.sample]), samples()[e.sample]
			e.edit(top)
			got, err := json.MarshalIndent(Diff(old, build(t, top)), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "diff-"+name+".json")
			if update {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err, "; UPDATE_GOLDEN=1 writes it")
			}
			if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDiffOfEqualsAndOfNothing(t *testing.T) {
	for name, top := range samples() {
		p := build(t, top)
		if changes := Diff(p, build(t, samples()[name])); len(changes) != 0 {
			t.Errorf("%s differs from itself: %v", name, changes)
		}
		for verb, changes := range map[string][]Change{VerbCreate: Diff(nil, p), VerbRemove: Diff(p, nil)} {
			if len(changes) != len(p.NetNSNames())+1 { // and DNS
				t.Errorf("%s of %s has %d changes", verb, name, len(changes))
			}
			for _, c := range changes {
				if c.Verb != verb || len(c.Lines) == 0 {
					t.Errorf("%s of %s: %v", verb, name, c)
				}
			}
		}
	}
}

func build(t *testing.T, top *topology.Topology) *Plan {
	t.Helper()
	p, err := Build(top)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
