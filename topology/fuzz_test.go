package topology

import (
	"os"
	"strings"
	"testing"
)

// FuzzLoad: nothing panics or hangs, and what is accepted is the same when it
// is printed and loaded again.
func FuzzLoad(f *testing.F) {
	for _, path := range []string{"testdata/full.yaml", "testdata/full.resolved.yaml", "testdata/ten.yaml"} {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	golden, err := os.ReadFile("testdata/problems.golden")
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range strings.Split(string(golden), "=== ")[1:] {
		_, rest, _ := strings.Cut(c, "\n")
		file, _, _ := strings.Cut(rest, "--- \n")
		f.Add([]byte(file))
	}
	f.Add([]byte(Starter()))
	for _, s := range sections() {
		f.Add([]byte(s.example))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		top, err := Load("f.yaml", data, testOptions())
		if err != nil {
			if len(err.(Problems)) == 0 {
				t.Fatal("refused without a problem")
			}
			return
		}
		sameAfterYAML(t, top)
	})
}

// FuzzImport: nothing panics or hangs, what is written is YAML, and check
// refuses nothing in it that the report has not told.
func FuzzImport(f *testing.F) {
	golden, err := os.ReadFile("testdata/import.golden")
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range strings.Split("\n"+string(golden), "\n=== ")[1:] {
		_, rest, _ := strings.Cut(c, "\n")
		file, _, _ := strings.Cut(rest, "--- \n")
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, data []byte) { imported(t, string(data)) })
}
