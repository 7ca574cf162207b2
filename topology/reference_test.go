package topology

import (
	"flag"
	"os"
	"testing"
)

func TestReferenceFile(t *testing.T) {
	const path = "../docs/topology.md"
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(path, []byte(Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != Reference() {
		t.Errorf("%s differs from Reference(); go test ./topology -update writes it", path)
	}
}
