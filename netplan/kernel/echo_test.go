package kernel

import (
	"net/netip"
	"slices"
	"testing"
)

// TestEcho: kernels answer for their namespaces; who is not there does not, and
// neither does a namespace that is gone.
func TestEcho(t *testing.T) {
	l := up(t, "echo")
	netns := func(node string) string { return l.plan.Topology + "." + node }
	asks := []Ask{
		{netns("web.a"), netip.MustParseAddr("10.20.0.11")},
		{netns("web.a"), netip.MustParseAddr("fd00:20::11")},
		{netns("web.a"), netip.MustParseAddr("10.20.0.77")},
		{netns("plain.c"), netip.MustParseAddr("10.30.0.12")},
		{netns("plain.c"), netip.MustParseAddr("fd00:20::11")},
		{netns("plain.gone"), netip.MustParseAddr("10.30.0.12")},
		{netns("backbone"), netip.MustParseAddr("203.0.113.11")},
	}
	got, err := Echo(t.Context(), l.options, asks)
	if err != nil {
		t.Fatal(err)
	}
	if want := []bool{true, true, false, true, false, false, true}; !slices.Equal(got, want) {
		t.Errorf("answered: %v, want %v", got, want)
	}
	if got, err := Echo(t.Context(), l.options, nil); err != nil || len(got) != 0 {
		t.Errorf("nothing asked: %v, %v", got, err)
	}
}
