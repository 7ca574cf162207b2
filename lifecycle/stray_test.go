package lifecycle

import (
	"strings"
	"testing"
)

// TestStrayStart has the policy of a station ask for it after a change has
// recorded a file without its cluster, and before it has ended the station.
func TestStrayStart(t *testing.T) {
	old := mustLoad(t, "name: n\nclusters: {lan: {stations: {a: }}, far: {stations: {b: {restart: always}}}}\n")
	k := &keeper{name: "n", intent: &Intent{Topology: old}}
	for _, s := range old.Stations() {
		m := newMember(k, &ContainerState{State: Running})
		m.station = s
		k.members = append(k.members, m)
	}
	a, b := k.members[0], k.members[1]
	if _, err := k.newRoot(b); err != nil {
		t.Errorf("before the change: %v", err)
	}
	k.intent = &Intent{Topology: mustLoad(t, "name: n\nclusters: {lan: {stations: {a: }}}\n")}
	a.station = k.intent.Topology.Stations()[0]
	if _, err := k.newRoot(a); err != nil {
		t.Errorf("one that is left: %v", err)
	}
	if _, err := k.newRoot(b); err == nil || !strings.Contains(err.Error(), `"far/b" no longer`) {
		t.Errorf("a stray: %v", err)
	}
	if _, err := b.start(t.Context(), nil, true); err == nil {
		t.Error("a stray was started")
	}
}
