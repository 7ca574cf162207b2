package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
)

func TestUniqueSizes(t *testing.T) {
	named := func(name string, digest, config int, layers ...int) image.Named {
		i := &image.Image{Digest: blobOf(digest), Manifest: &v1.Manifest{Config: v1.Descriptor{Digest: blobOf(config), Size: 1}}}
		for _, l := range layers {
			i.Layers = append(i.Layers, image.Layer{Digest: blobOf(l), Size: int64(10 * l)})
		}
		return image.Named{Name: name, Image: i}
	}
	// The second has a layer twice, and two names.
	all := []image.Named{named("a", 1, 5, 7, 8), named("b", 2, 6, 7, 9, 9), named("c", 2, 6, 7, 9, 9), named("d", 3, 5, 7)}
	want := map[v1.Hash]int64{blobOf(1): 80, blobOf(2): 91, blobOf(3): 0}
	if d := cmp.Diff(want, uniqueSizes(all)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
