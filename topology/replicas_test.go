package topology

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func loadScaled(file string, scale map[string]int) (*Topology, error) {
	opt := testOptions()
	opt.Scale = scale
	return Load("f.yaml", []byte(file), opt)
}

func mustScale(t *testing.T, file string, scale map[string]int) *Topology {
	t.Helper()
	top, err := loadScaled(file, scale)
	if err != nil {
		t.Fatalf("%v\n%v", scale, err)
	}
	sameAfterYAML(t, top)
	return top
}

func ids(top *Topology) string { return strings.Join(idsOf(top.Stations()), " ") }

func TestReplicas(t *testing.T) {
	top := mustLoad(t, `
clusters:
  lan: {stations: {lb: {depends_on: [web, other/db]}, web: {replicas: 3, aliases: [www], hostname: w, seal: [/etc/x]}, one: {deploy: {replicas: 1}}, none: {scale: 0}}}
  other: {gateway: db-1, stations: {db: {replicas: 2}}}`)
	if got := ids(top); got != "lan/lb lan/web-1 lan/web-2 lan/web-3 lan/one-1 other/db-1 other/db-2" {
		t.Error(got)
	}
	var waits []string
	for _, d := range top.Clusters[0].Stations[0].DependsOn {
		waits = append(waits, d.Station)
	}
	if got := strings.Join(waits, " "); got != "lan/web-1 lan/web-2 lan/web-3 other/db-1 other/db-2" {
		t.Error(got)
	}
	seen := map[string]bool{}
	for _, s := range top.Clusters[0].Stations[1:4] {
		if s.Group != "web" || !slices.Equal(s.Aliases, []string{"www", "web"}) || s.Hostname != "w" || s.Integrity.Manifest != "/srv/My Shop/seals/lan/web.sha256" {
			t.Errorf("%+v", s)
		}
		seen[s.Addresses[0].String()] = true
	}
	if len(seen) != 3 {
		t.Errorf("addresses %v", seen)
	}
}

func TestScale(t *testing.T) {
	const file = "clusters: {lan: {stations: {web: {replicas: 2}, api: , x: }}, other: {stations: {x: }}}"
	for want, scale := range map[string]map[string]int{
		"lan/web-1 lan/web-2 lan/api lan/x other/x":                       nil,
		"lan/web-1 lan/api lan/x other/x":                                 {"web": 1},
		"lan/web-1 lan/web-2 lan/web-3 lan/api lan/x other/x-1 other/x-2": {"lan/web": 3, "other/x": 2},
		"lan/api lan/x other/x":                                           {"web": 0, "api": 1},
		"lan/web-1 lan/web-2 lan/x other/x":                               {"api": 0},
		"lan/web-1 lan/web-2 lan/api-1 lan/api-2 lan/x other/x":           {"api": 2},
	} {
		if got := ids(mustScale(t, file, scale)); got != want {
			t.Errorf("%v: %s, not %s", scale, got, want)
		}
	}
	for want, scale := range map[string]map[string]int{
		"write lan/x or other/x": {"x": 2},
		"did you mean web?":      {"web-2": 2},
		"did you mean api?":      {"apii": 2},
		"there is no station":    {"third/web": 2},
		"from 0 to 1000":         {"web": 1001},
		"cannot be -1 of":        {"web": -1},
		"is scaled twice":        {"web": 1, "lan/web": 2},
	} {
		var problems Problems
		if _, err := loadScaled(file, scale); !errors.As(err, &problems) || len(problems) != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want %s", scale, err, want)
		}
	}
	if _, err := loadScaled("clusters: {lan: {subnet: 10.20.0.0/24, stations: {a: {address: 10.20.0.5}}}}", map[string]int{"a": 2}); err == nil {
		t.Error("two stations have one address")
	}
}

// TestScalingMovesNobody uses a subnet that is nearly full, so that almost
// every name meets another's place.
func TestScalingMovesNobody(t *testing.T) {
	for i := range 40 {
		file := fmt.Sprintf(`
clusters:
  lan:
    subnet: 10.20.0.0/27
    stations: {a%[1]d: , web%[1]d: , b%[1]d: , c%[1]d: , d%[1]d: , e%[1]d: , pool%[1]d: {replicas: 3}, f%[1]d: , g%[1]d: }
  other:
    subnet: 10.30.0.0/28
    stations: {h%[1]d: {interfaces: [{cluster: lan}]}, i%[1]d: }
`, i)
		web, pool := fmt.Sprintf("web%d", i), fmt.Sprintf("pool%d", i)
		before := places(mustScale(t, file, nil))
		for n := range 6 {
			after := places(mustScale(t, file, map[string]int{web: n}))
			for _, name := range moved(before, after) {
				// Replicas of another group may have to make room.
				if name != "lan/"+web && !strings.HasPrefix(name, "lan/"+pool) {
					t.Errorf("%d of %s: %s moved", n, web, name)
				}
			}
			after = places(mustScale(t, file, map[string]int{pool: n}))
			for _, name := range moved(before, after) {
				if _, there := after[name]; there {
					t.Errorf("%d of %s: %s moved", n, pool, name)
				}
			}
		}
	}
}

// TestFullSubnetTakesReplicas: a name without a station keeps no address that
// somebody needs.
func TestFullSubnetTakesReplicas(t *testing.T) {
	mustScale(t, "clusters: {lan: {subnet: 10.20.0.0/29, stations: {a: {replicas: 0}, b: {replicas: 0}, c: , d: , e: , f: , g: }}}", nil)
	mustScale(t, "clusters: {lan: {subnet: 10.20.0.0/29, stations: {a: {replicas: 5}}}}", nil)
	if _, err := loadScaled("clusters: {lan: {subnet: 10.20.0.0/29, stations: {a: {replicas: 6}}}}", nil); err == nil {
		t.Error("a /29 takes six stations and the backbone")
	}
}
