package image

import (
	"runtime"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// platformRank tells how well a platform suits this machine: 0 best, -1 not at
// all. An image that says nothing of its variant is of the oldest.
func platformRank(p *v1.Platform) int {
	if p == nil {
		return 0
	}
	if p.OS != "linux" && p.OS != "" || p.Architecture != runtime.GOARCH && p.Architecture != "" {
		return -1
	}
	// Every 64-bit ARM runs v8 and every x86-64 v1; more is not asked for.
	runs := map[string][]string{"amd64": {"", "v1"}, "arm64": {"v8", ""}, "arm": {"v7", "v6", "v5", ""}}[runtime.GOARCH]
	if runs == nil {
		return 0
	}
	return slices.Index(runs, p.Variant)
}

// bestOf picks from an index what suits this machine; false when nothing does.
func bestOf(all []v1.Descriptor) (v1.Descriptor, bool) {
	best, found := -1, v1.Descriptor{}
	for _, d := range all {
		if d.Annotations["vnd.docker.reference.type"] != "" { // an attestation about another
			continue
		}
		if rank := platformRank(d.Platform); rank >= 0 && (best < 0 || rank < best) {
			best, found = rank, d
		}
	}
	return found, best >= 0
}
