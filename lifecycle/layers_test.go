package lifecycle

import (
	"os"
	"path/filepath"
	"testing"

	"platelayer/topology"
)

func withRoot(rootfs string) *topology.Topology {
	return &topology.Topology{Name: "t", Clusters: []topology.Cluster{{
		Name: "c", Stations: []topology.Station{{Name: "s", Cluster: "c", Rootfs: rootfs, Writable: "disk"}},
	}}}
}

// TestLayers: a layer is found again on its own root, thrown away on another,
// and outlives a change to another that never counted.
func TestLayers(t *testing.T) {
	l := NewLayout(t.TempDir())
	a, b := withRoot("/a"), withRoot("/b")
	use := func(on *topology.Topology) bool {
		t.Helper()
		found, err := layer(l, "t", "t.c.s", rootOf(on.Stations()[0]))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	written := filepath.Join(l.writable("t", "t.c.s"), "upper")
	if use(a) {
		t.Error("a first layer was found")
	}
	if err := os.Mkdir(written, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := outdate(l, a, b); err != nil {
		t.Fatal(err)
	}
	// The keeper was killed before the new file counted.
	if !use(a) {
		t.Error("the layer is lost")
	}
	if _, err := os.Stat(written); err != nil {
		t.Errorf("what it wrote is lost: %v", err)
	}
	// Now it counts.
	if use(b) {
		t.Error("the layer was used on another root")
	}
	if _, err := os.Stat(written); err == nil {
		t.Error("what it wrote on another root is there")
	}
	if !use(b) {
		t.Error("the new layer is not found again")
	}
	// A change that is taken back.
	if err := outdate(l, b, a); err != nil {
		t.Fatal(err)
	}
	if err := restore(l, a); err != nil {
		t.Fatal(err)
	}
	if !use(b) || !use(a) {
		t.Error("a layer whose mark was taken away is lost")
	}
}
