package kernel

import (
	"context"
	"errors"
	"testing"

	"platelayer/netplan"
	"platelayer/topology"
)

func tagged(name string) *topology.Topology {
	t := sample(name)
	t.Clusters[1].Stations[0].VLANs = topology.VLANs{Untagged: 10}
	return t
}

// needsVLANs skips a test where the kernel has none on bridges; the one that
// ci/kernel61 boots has.
func needsVLANs(t *testing.T) {
	t.Helper()
	p, err := netplan.Build(tagged("probe"))
	if err != nil {
		t.Fatal(err)
	}
	lacks := new(Unsupported)
	if err := able(p, Options{}); errors.As(err, &lacks) && lacks.Feature == featureVLANs {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// TestVLANsAreRefused: a kernel without them says so before anything differs.
func TestVLANsAreRefused(t *testing.T) {
	p, err := netplan.Build(tagged("probe"))
	if err != nil {
		t.Fatal(err)
	}
	if able(p, Options{}) == nil {
		t.Skip("the kernel has VLANs on bridges: one without shows it, as CI's own does")
	}
	l := up(t, "vlans")
	if p, err = netplan.Build(tagged(l.plan.Topology)); err != nil {
		t.Fatal(err)
	}
	lacks := new(Unsupported)
	if err := Extend(context.Background(), p, l.options); !errors.As(err, &lacks) || lacks.Feature != featureVLANs {
		t.Errorf("the change gives %v", err)
	}
	if sent := l.converge(l.plan.NetNSNames()...); sent != 0 {
		t.Errorf("%d requests after the refusal", sent)
	}
	other := optionsFor(l.plan.Topology + "-other")
	t.Cleanup(func() { _ = Remove(other) })
	if p, err = netplan.Build(tagged(l.plan.Topology + "-other")); err != nil {
		t.Fatal(err)
	}
	if err := Apply(context.Background(), p, other); !errors.As(err, &lacks) || lacks.Feature != featureVLANs {
		t.Errorf("from nothing gives %v", err)
	}
}
