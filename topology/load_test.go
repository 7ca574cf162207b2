package topology

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"net/netip"
)

func mustLoad(t testing.TB, file string) *Topology {
	t.Helper()
	top, err := Load("f.yaml", []byte(file), testOptions())
	if err != nil {
		t.Fatalf("%s\n%v", file, err)
	}
	return top
}

// sameAfterYAML loads what YAML prints, with nothing of the environment.
func sameAfterYAML(t testing.TB, top *Topology) {
	t.Helper()
	out, err := top.YAML()
	if err != nil {
		t.Fatal(err)
	}
	// All but what configs and secrets are of the environment's.
	variables := map[string]string{}
	for _, s := range top.Stations() {
		for _, f := range s.Files {
			variables[f.Variable] = f.Content
		}
	}
	again, err := Load("again.yaml", out, Options{Dir: top.Dir, LookupEnv: func(name string) (string, bool) {
		v, ok := variables[name]
		return v, ok
	}})
	if err != nil {
		t.Fatalf("what YAML printed is refused: %v\n%s", err, out)
	}
	if diff := cmp.Diff(top, again, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.IgnoreUnexported(Topology{})); diff != "" {
		t.Fatalf("loaded again it differs:\n%s\n%s", diff, out)
	}
}

func TestYAML(t *testing.T) {
	data, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	top := mustLoad(t, string(data))
	out, err := top.YAML()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/full.resolved.yaml", string(out))
	sameAfterYAML(t, top)
}

// TestNoStations: stations may be left empty, as its default is none, also
// where an included file has some.
func TestNoStations(t *testing.T) {
	for file, want := range map[string]int{
		"clusters:\n  lan:\n    stations:\n":                           0,
		"clusters: {lan: {stations: ~, subnet: 10.9.0.0/24}}":          0,
		"include: [sub/part.yaml]\nclusters:\n  lan:\n    stations:\n": 1,
	} {
		top := mustLoad(t, file)
		if got := len(top.Stations()); got != want {
			t.Errorf("%q has %d stations, not %d", file, got, want)
		}
	}
}
