package netplan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMatrix compares who reaches whom in the samples, by which way and why
// not, with golden files.
func TestMatrix(t *testing.T) {
	for name, top := range samples() {
		t.Run(name, func(t *testing.T) {
			p, err := Build(top)
			if err != nil {
				t.Fatal(err)
			}
			n := NewNetwork(p)
			var w strings.Builder
			w.WriteString(n.Matrix().Text())
			for _, probe := range n.Probes() {
				r := n.Reach(probe.NetNS, probe.Target.Address)
				w.WriteString("\n" + probe.Name + " to " + probe.Target.Name + "\n" + r.Text())
			}
			file := filepath.Join("testdata", "reach-"+name+".txt")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(file, []byte(w.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err, "; UPDATE_GOLDEN=1 writes it")
			}
			if diff := cmp.Diff(string(want), w.String()); diff != "" {
				t.Errorf("differs from %s (-want +got):\n%s", file, diff)
			}
		})
	}
}
