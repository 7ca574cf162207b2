package image

import (
	"context"
	"errors"
	"os"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A store that has lost its names, or has junk for them, removes nothing, and
// lists its images again.
func TestLostNames(t *testing.T) {
	for _, junk := range []string{"", "{}", "null", `{"schemaVersion":2,"manifests":[{"digest":"x"}]}`, "gone"} {
		s, ctx := newStore(t), context.Background()
		m := simple(t)
		inner := asJSON(t, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{{MediaType: types.OCIManifestSchema1, Digest: sumOf(m.manifest), Size: int64(len(m.manifest))}}})
		outer := asJSON(t, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{{MediaType: types.OCIImageIndex, Digest: digestOf(inner), Size: int64(len(inner))}}})
		i, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/a:1", Unpack: true, Indexes: [][]byte{[]byte(outer), []byte(inner)}})
		if err != nil {
			t.Fatal(err)
		}
		other := layersOf(t, makeTar(t, file("other", "")))
		if _, err := s.Add(ctx, other.manifest, other, AddOptions{Name: "docker.io/library/b:1", Unpack: true}); err != nil {
			t.Fatal(err)
		}
		if err := s.Hold(ctx, "shop", []v1.Hash{i.Digest}, false); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(s.path("index.json")); err != nil {
			t.Fatal(err)
		}
		if junk != "gone" {
			if err := os.WriteFile(s.path("index.json"), []byte(junk), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if s, err = OpenStore(s.dir); err != nil {
			t.Fatal(err)
		}
		all := func(Named) bool { return true }
		before := listing(t, s.dir)
		var lost *NamesError
		if _, err := s.Prune(ctx, all); !errors.As(err, &lost) {
			t.Errorf("%q: pruned: %v", junk, err)
		}
		if err := s.Name(ctx, "docker.io/library/c:1", i); !errors.As(err, &lost) {
			t.Errorf("%q: named: %v", junk, err)
		}
		if after := listing(t, s.dir); len(after) != len(before) {
			t.Errorf("%q: from %v to %v", junk, before, after)
		}
		v, err := s.Verify(ctx, nil, VerifyOptions{Repair: true})
		if err != nil || len(v.Damage) != 1 || !v.Damage[0].Repaired {
			t.Errorf("%q: %+v, %v", junk, v, err)
		}
		images, err := s.List()
		if err != nil || len(images) != 2 {
			t.Fatalf("%q: %v, %v", junk, images, err)
		}
		for _, n := range images {
			if n.Name != "" || n.Digest == i.Digest && n.Index != digestOf(outer) {
				t.Errorf("%q: listed as %q, of %s", junk, n.Name, n.Index)
			}
		}
		if p, err := s.Prune(ctx, all); err != nil || len(p.Images) != 1 || p.Layers != 1 {
			t.Errorf("%q: pruned %+v, %v", junk, p, err)
		}
		if there, err := s.usable(i); err != nil || !there || !s.Unpacked(&i.Layers[0]) {
			t.Errorf("%q: what runs is gone: %v", junk, err)
		}
		// Which layers those are, only the manifest says.
		if err := errors.Join(os.Remove(s.blobPath(i.Digest)), s.rewriteIndex(ctx, withoutImages(i.Digest))); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Prune(ctx, all); err == nil || !s.Unpacked(&i.Layers[0]) {
			t.Errorf("%q: pruned what a topology runs: %v", junk, err)
		}
	}
}
