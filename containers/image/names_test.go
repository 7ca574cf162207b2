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
