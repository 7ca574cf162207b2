package lifecycle

import (
	"testing"

	"platelayer/containers"
	"platelayer/topology"
)

func loadText(t *testing.T, text string) *topology.Topology {
	t.Helper()
	top, err := topology.Load("t.yaml", []byte(text), topology.Options{Name: "t"})
	if err != nil {
		t.Fatal(err)
	}
	return top
}

// TestOneOffsInEdits edits a file while one-off stations of it run.
func TestOneOffsInEdits(t *testing.T) {
	old := &Intent{Topology: loadText(t, "clusters: {lan: {subnet: 10.1.0.0/24, stations: {web: , db: }}, far: {subnet: 10.2.0.0/24, stations: {x: }}}")}
	for _, of := range []string{"lan/web", "far/x"} {
		station, err := old.Topology.Lookup(of)
		if err != nil {
			t.Fatal(err)
		}
		s, err := old.Topology.OneOff(station, "")
		if err != nil {
			t.Fatal(err)
		}
		s.DependsOn = []topology.Dependency{{Station: "lan/db", Condition: topology.Started}}
		s.Digest = "sha256:" + s.Name
		old.keepImage(s.Digest, Images{s.Digest: {"LAYER/fs"}})
		old.Topology, _ = old.Topology.With(s)
		old.keep(s.ID(), OneOff{Of: of, Runner: &containers.ProcessRef{Pid: 1}})
	}
	address := old.Topology.Clusters[0].Stations[2].Addresses[0].String()
	for what, tc := range map[string]struct {
		text string
		kept []string
	}{
		"the same file":          {"clusters: {lan: {subnet: 10.1.0.0/24, stations: {web: , db: }}, far: {subnet: 10.2.0.0/24, stations: {x: }}}", []string{"lan/web-run-1", "far/x-run-1"}},
		"its station is gone":    {"clusters: {lan: {subnet: 10.1.0.0/24, stations: {db: }}, far: {subnet: 10.2.0.0/24, stations: {x: }}}", []string{"lan/web-run-1", "far/x-run-1"}},
		"its cluster is gone":    {"clusters: {lan: {subnet: 10.1.0.0/24, stations: {web: }}}", []string{"lan/web-run-1"}},
		"its cluster has moved":  {"clusters: {lan: {subnet: 10.3.0.0/24, stations: {web: }}, far: {subnet: 10.2.0.0/24, stations: {x: }}}", []string{"far/x-run-1"}},
		"its address is another": {"clusters: {lan: {subnet: 10.1.0.0/24, stations: {web: {address: " + address + "}}}}", nil},
		"its name is another's":  {"clusters: {lan: {subnet: 10.1.0.0/24, stations: {web-run-1: }}}", nil},
	} {
		next := (&Intent{Topology: loadText(t, tc.text)}).withOneOffs(old)
		if len(next.OneOffs) != len(tc.kept) {
			t.Errorf("%s: kept are %v, want %v", what, next.OneOffs, tc.kept)
		}
		for _, id := range tc.kept {
			s, err := next.Topology.Lookup(id)
			if err != nil || next.OneOffs[id].Runner == nil {
				t.Errorf("%s: %s is lost (%v)", what, id, err)
				continue
			}
			if len(next.Images[s.Digest]) != 1 || len(next.Images) != len(tc.kept) {
				t.Errorf("%s: the images are %v", what, next.Images)
			}
			if _, err := next.Topology.Lookup("lan/db"); (err == nil) != (len(s.DependsOn) == 1) {
				t.Errorf("%s: it depends on %v", what, s.DependsOn)
			}
		}
	}
	if len(old.OneOffs) != 2 || len(old.Topology.Stations()) != 5 {
		t.Errorf("the old intent has changed: %+v", old)
	}
}
