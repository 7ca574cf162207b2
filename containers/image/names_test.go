package image

import (
	"context"
	"fmt"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// An image that is called like another's digest doesn't stand in for it.
func TestNamedLikeDigest(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	good, evil := simple(t), layersOf(t, makeTar(t, file("evil", "")))
	digest := digestOf(string(good.manifest))
	// An image without layers, whose configuration is the good one's manifest.
	hollow := &made{blobs: map[v1.Hash][]byte{digest: good.manifest}, manifest: fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`, types.OCIManifestSchema1, types.OCIConfigJSON, digest, len(good.manifest))}
	for _, f := range []files{layoutOf(t, hollow, map[string]string{nameAnnotation: "hollow:1"}), layoutOf(t, good, map[string]string{nameAnnotation: "good:1"}), dockerOf(t, evil, digest.String())} {
		if _, err := s.Load(ctx, given(t, f.tar(t)), LoadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if i, err := s.Find(digest.String()); err != nil || i.Digest != digest {
		t.Errorf("got %v, %v", i, err)
	}
	if n, err := s.NamesOf(digest.String()); err != nil || n.Digest != digest {
		t.Errorf("got %+v, %v", n, err)
	}
	if i, err := s.Find("docker.io/library/" + digest.String()); err != nil || i.Digest == digest {
		t.Errorf("the other one's whole name is %v, %v", i, err)
	}
}

// What one name of an image says of its index holds for a digest, whichever name
// comes first.
func TestIndexOfAnotherName(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	m := simple(t)
	i, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/a:1"})
	if err != nil {
		t.Fatal(err)
	}
	of := digestOf("an index")
	err = s.changeIndex(ctx, func(index *v1.IndexManifest) error {
		d := index.Manifests[0]
		d.Annotations = map[string]string{nameAnnotation: "docker.io/library/b:1", indexAnnotation: of.String()}
		index.Manifests = append(index.Manifests, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a:1", "b:1", i.Digest.String(), i.Digest.Hex[:12], "a@" + i.Digest.String()} {
		if found, err := s.Find(name); err != nil || found.Index != of {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
	}
}
