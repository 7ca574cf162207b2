package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// nested gives an index of an index that has the image, and that one.
func nested(t *testing.T, m, other *made) (outer, inner string) {
	inner = asJSON(t, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{
		{MediaType: types.OCIManifestSchema1, Digest: sumOf(other.manifest), Size: int64(len(other.manifest)), Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}},
		{MediaType: types.OCIManifestSchema1, Digest: digestOf(string(m.manifest)), Size: int64(len(m.manifest)), Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}}})
	outer = asJSON(t, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{
		{MediaType: types.OCIImageIndex, Digest: digestOf(inner), Size: int64(len(inner)), Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}}})
	return outer, inner
}

// A pin by the digest of an index, which is what docker prints and files have,
// finds the image after a pull, and wherever it is carried from there.
func TestIndexPin(t *testing.T) {
	ctx := context.Background()
	r, m, other := newTestRegistry(t), simple(t), makeImage(t, v1.Config{}, makeTar(t, file("z", "z")))
	outer, inner := nested(t, m, other)
	r.offer("shop/web", "amd64", m)
	r.offer("shop/web", "s390x", other)
	r.put("shop/web/manifests/"+digestOf(inner).String(), string(types.OCIImageIndex), []byte(inner))
	r.put("shop/web/manifests/1", string(types.OCIImageIndex), []byte(outer))
	r.put("shop/web/manifests/"+digestOf(outer).String(), string(types.OCIImageIndex), []byte(outer))
	name := r.host() + "/shop/web"
	pin := name + "@" + digestOf(outer).String()
	never := func(Named) bool { return false }
	here := func(t *testing.T, s *Store, what string) *Image {
		t.Helper()
		if _, err := s.Prune(ctx, never); err != nil {
			t.Fatal(err)
		}
		i, err := Obtain(ctx, s, pin, ObtainOptions{Never: true, Platform: Platform{Architecture: "amd64"}})
		if err != nil || i.Digest != sumOf(m.manifest) || i.Index != digestOf(outer) {
			t.Fatalf("%s: %v, %v", what, i, err)
		}
		if v, err := s.Verify(ctx, nil, VerifyOptions{}); err != nil || len(v.Damage) > 0 {
			t.Fatalf("%s: %+v, %v", what, v, err)
		}
		return i
	}
	for _, asked := range []string{name + ":1", pin} {
		s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
		ref, err := ParseReference(asked)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Pull(ctx, s, ref, Platform{Architecture: "amd64"}, AddOptions{}); err != nil {
			t.Fatal(err)
		}
		i := here(t, s, asked)
		if found, err := s.Find(digestOf(outer).Hex[:12]); err != nil || found.Digest != i.Digest {
			t.Errorf("by the index's digits: %v, %v", found, err)
		}
		for n, o := range []SaveOptions{{}, {Docker: true}} {
			var saved bytes.Buffer
			if err := s.Save(ctx, &saved, []Named{{ref.String(), i}}, o); err != nil {
				t.Fatal(err)
			}
			other := newStore(t)
			loaded, err := other.Load(ctx, given(t, saved.Bytes()), LoadOptions{})
			if err != nil || len(loaded[0].Names) != 1 || loaded[0].Names[0] != ref.String() {
				t.Fatalf("%d: %+v, %v", n, loaded, err)
			}
			i := here(t, other, "loaded")
			dir := filepath.Join(t.TempDir(), "layout")
			if err := other.SaveFolder(ctx, dir, Owner{os.Getuid(), os.Getgid()}, []Named{{"docker.io/library/x:1", i}}, o); err != nil {
				t.Fatal(err)
			}
			third := newStore(t)
			if _, err := third.Load(ctx, opened(t, dir), LoadOptions{}); err != nil {
				t.Fatal(err)
			}
			here(t, third, "loaded again")
			// It had come by itself.
			fourth := newStore(t)
			for range 2 {
				if _, err := fourth.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/x:1"}); err != nil {
					t.Fatal(err)
				}
			}
			var unnamed bytes.Buffer
			if err := s.Save(ctx, &unnamed, []Named{{"", i}}, o); err != nil {
				t.Fatal(err)
			}
			if _, err := fourth.Load(ctx, given(t, unnamed.Bytes()), LoadOptions{}); err != nil {
				t.Fatal(err)
			}
			here(t, fourth, "loaded beside")
			// It came by itself, too, and is still of the index.
			if _, err := third.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/x:1"}); err != nil {
				t.Fatal(err)
			}
			here(t, third, "added")
		}
		// One platform of an index goes as an image, as docker's does.
		to, _ := ParseReference(r.host() + "/other/web:1")
		if sent, err := c.Push(ctx, s, i, to, AddOptions{}); err != nil || sent.Digest != i.Digest {
			t.Errorf("pushed %v, %v", sent, err)
		}
	}
}

// An archive can't give an image out for one of an index that doesn't list it.
func TestIndexClaimed(t *testing.T) {
	ctx := context.Background()
	right, wrong := simple(t), makeImage(t, v1.Config{}, makeTar(t, file("z", "z")))
	outer, inner := nested(t, right, right)
	f := layoutOf(t, wrong, nil)
	f[blobName(digestOf(outer))], f[blobName(digestOf(inner))] = outer, inner
	pin := "registry.example/web@" + digestOf(outer).String()
	f["index.json"] = asJSON(t, v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{{MediaType: types.OCIManifestSchema1, Digest: sumOf(wrong.manifest),
		Size: int64(len(wrong.manifest)), Annotations: map[string]string{indexAnnotation: digestOf(outer).String(), nameAnnotation: pin}}}})
	s := newStore(t)
	loaded, err := s.Load(ctx, given(t, f.tar(t)), LoadOptions{})
	if err != nil || len(loaded[0].Names) > 0 {
		t.Fatalf("%+v, %v", loaded, err)
	}
	unknown := new(UnknownError)
	if i, err := Obtain(ctx, s, pin, ObtainOptions{Never: true}); !errors.As(err, &unknown) {
		t.Errorf("got %v, %v", i, err)
	}
	if _, err := os.Lstat(s.blobPath(digestOf(outer))); err == nil {
		t.Error("the index was kept")
	}
}
