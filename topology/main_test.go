package topology

import (
	"flag"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the golden files and docs/topology.md")
	os.Exit(m.Run())
}
