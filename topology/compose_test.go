package topology

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestComposeKeys: each service key of the compose specification is taken or
// refused with a reason, and the table in the reference has no other.
func TestComposeKeys(t *testing.T) {
	data, err := os.ReadFile("testdata/compose-service-keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(string(data))
	taken := map[string]bool{}
	for _, k := range keyTable()[stationLevel] {
		taken[k.name] = true
		if !slices.Contains(known, k.name) && !slices.Contains(notCompose(), k.name) {
			t.Errorf("%s is neither compose's nor known as ours", k.name)
		}
	}
	foreign := foreignKeys(stationLevel)
	for _, name := range known {
		if taken[name] == (foreign[name] != "") {
			t.Errorf("%s is taken: %v, refused: %q", name, taken[name], foreign[name])
		}
		if !strings.Contains(Reference(), "\n| `"+name+"` | ") {
			t.Errorf("%s is not in the table", name)
		}
	}
	for name := range foreign {
		if !slices.Contains(known, name) {
			t.Errorf("%s is refused, but is not in the list of compose's keys", name)
		}
	}
}
