package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// files is an archive of images in the making: what it has under which name.
type files map[string]string

func (f files) tar(t *testing.T) []byte {
	t.Helper()
	var names []string
	for name := range f {
		names = append(names, name)
	}
	slices.Sort(names)
	var entries []entry
	for _, name := range names {
		entries = append(entries, file(name, f[name]))
	}
	return makeTar(t, entries...)
}

func (f files) folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range f {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func digestOf(text string) v1.Hash {
	h, _, _ := v1.SHA256(strings.NewReader(text))
	return h
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// layoutOf is an OCI layout with a made image.
func layoutOf(t *testing.T, m *made, annotations map[string]string) files {
	t.Helper()
	f := files{"oci-layout": layoutVersion}
	for h, b := range m.blobs {
		f[blobName(h)] = string(b)
	}
	h := digestOf(string(m.manifest))
	f[blobName(h)] = string(m.manifest)
	f["index.json"] = asJSON(t, v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{
		{MediaType: types.OCIManifestSchema1, Digest: h, Size: int64(len(m.manifest)), Annotations: annotations}}})
	return f
}

// dockerOf is what `docker save` before 25 writes.
func dockerOf(t *testing.T, m *made, names ...string) files {
	t.Helper()
	manifest, err := v1.ParseManifest(bytes.NewReader(m.manifest))
	if err != nil {
		t.Fatal(err)
	}
	one := savedImage{Config: manifest.Config.Digest.Hex + ".json", RepoTags: names}
	f := files{one.Config: string(m.blobs[manifest.Config.Digest])}
	for n, d := range manifest.Layers {
		name := fmt.Sprintf("%064d/layer.tar", n)
		f[name] = string(m.blobs[d.Digest])
		one.Layers = append(one.Layers, name)
	}
	f["manifest.json"] = asJSON(t, []savedImage{one})
	return f
}

// given is a file as a user gives it.
func given(t *testing.T, b []byte) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f
}

// piped is the same through a pipe.
func piped(t *testing.T, b []byte) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer w.Close()
		w.Write(b)
	}()
	return r
}

// simple is an image of three layers, packed by no, gzip and zstd.
func simple(t *testing.T) *made {
	return makeImage(t, v1.Config{Cmd: []string{"/a"}},
		makeTar(t, file("a", "one")), makeTar(t, file("b", "two")), makeTar(t, file(".wh.a", ""), file("c", "three")))
}

func TestLoad(t *testing.T) {
	m := simple(t)
	digest := digestOf(string(m.manifest))
	oci := layoutOf(t, m, map[string]string{nameAnnotation: "example.com/x:1"})
	docker := dockerOf(t, m, "x:1", "y:2")
	// A new Docker's has both.
	both := layoutOf(t, m, map[string]string{nameAnnotation: "1"})
	config := digestOf(docker[mustConfig(t, m)])
	both["manifest.json"] = asJSON(t, []savedImage{{Config: blobName(config), RepoTags: []string{"x:1"}}})
	open := func(path string) *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, c := range []struct {
		name  string
		r     *os.File
		names string
		keeps bool // its digest
	}{
		{"OCI archive", given(t, oci.tar(t)), "example.com/x:1", true},
		{"OCI archive, gzip", given(t, pack(t, oci.tar(t), gzipped)), "example.com/x:1", true},
		{"OCI archive, zstd, pipe", piped(t, pack(t, oci.tar(t), zstandard)), "example.com/x:1", true},
		{"OCI archive, pipe", piped(t, oci.tar(t)), "example.com/x:1", true},
		{"OCI folder", open(oci.folder(t)), "example.com/x:1", true},
		{"a tag only", given(t, layoutOf(t, m, map[string]string{nameAnnotation: "latest"}).tar(t)), "", true},
		{"containerd's names", given(t, layoutOf(t, m, map[string]string{nameAnnotation: "1", "io.containerd.image.name": "docker.io/library/x:1"}).tar(t)), "docker.io/library/x:1", true},
		{"Docker, new", given(t, both.tar(t)), "docker.io/library/x:1", true},
		{"Docker, old", given(t, docker.tar(t)), "docker.io/library/x:1 docker.io/library/y:2", false},
		{"Docker, old, gzip", given(t, pack(t, docker.tar(t), gzipped)), "docker.io/library/x:1 docker.io/library/y:2", false},
		{"Docker, old, pipe", piped(t, docker.tar(t)), "docker.io/library/x:1 docker.io/library/y:2", false},
		{"Docker, old, folder", open(docker.folder(t)), "docker.io/library/x:1 docker.io/library/y:2", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			loaded, err := s.Load(context.Background(), c.r, LoadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(loaded[0].Names, " "); got != c.names {
				t.Errorf("got the names %q, want %q", got, c.names)
			}
			if (loaded[0].Digest == digest) != c.keeps {
				t.Errorf("got the digest %s of %s", loaded[0].Digest, digest)
			}
			for _, name := range append(loaded[0].Names, loaded[0].Digest.Hex[:12]) {
				if i, err := s.Find(name); err != nil || i.Config.Config.Cmd[0] != "/a" {
					t.Errorf("%s: %v, %v", name, i, err)
				}
			}
			if b, err := os.ReadFile(filepath.Join(s.Tree(&loaded[0].Layers[1]), "b")); err != nil || string(b) != "two" {
				t.Errorf("got %q, %v", b, err)
			}
			// What wasn't packed isn't packed.
			l := loaded[0].Layers[0]
			if l.Digest != l.DiffID || !c.keeps && loaded[0].Manifest.Layers[0].MediaType != types.OCIUncompressedLayer {
				t.Errorf("a layer was packed: %v", loaded[0].Manifest.Layers[0])
			}
			if left, err := os.ReadDir(s.path("ingest")); err != nil || len(left) > 0 {
				t.Errorf("left in ingest: %v, %v", left, err)
			}
		})
	}
}

// What go-containerregistry doesn't know of a configuration is read, too.
func TestStartInterval(t *testing.T) {
	m := simple(t)
	for said, want := range map[string]time.Duration{"2000000000": 2 * time.Second, "0": 0, `"2s"`: -1} {
		text := strings.Replace(string(m.blobs[m.parsed(t).Config.Digest]), `"config":{`, `"config":{"Healthcheck":{"Test":["CMD","a"],"StartInterval":`+said+`},`, 1)
		i, err := assemble(sumOf(m.manifest), m.parsed(t), []byte(text))
		if (err == nil) != (want >= 0) || err == nil && i.StartInterval != want {
			t.Errorf("%s: got %+v, %v", said, i, err)
		}
	}
}

func mustConfig(t *testing.T, m *made) string {
	t.Helper()
	manifest, err := v1.ParseManifest(bytes.NewReader(m.manifest))
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Config.Digest.Hex + ".json"
}

// Old Docker has a layer of two images once, and a link to it.
func TestLoadLinkedLayer(t *testing.T) {
	m := makeImage(t, v1.Config{}, makeTar(t, file("a", "one")))
	f := dockerOf(t, m, "x")
	layer := f[fmt.Sprintf("%064d/layer.tar", 0)]
	b := makeTar(t, file("real/layer.tar", layer), link(fmt.Sprintf("%064d/layer.tar", 0), "../real/layer.tar"),
		file(mustConfig(t, m), f[mustConfig(t, m)]), file("manifest.json", f["manifest.json"]))
	if _, err := newStore(t).Load(context.Background(), given(t, b), LoadOptions{}); err != nil {
		t.Error(err)
	}
}

func TestLoadOneOfSeveral(t *testing.T) {
	a, b := simple(t), makeImage(t, v1.Config{}, makeTar(t, file("z", "z")))
	f := layoutOf(t, a, nil)
	for name, text := range layoutOf(t, b, nil) {
		f[name] = text
	}
	hash := []v1.Hash{digestOf(string(a.manifest)), digestOf(string(b.manifest))}
	f["index.json"] = asJSON(t, v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{
		{MediaType: types.OCIManifestSchema1, Digest: hash[0], Size: int64(len(a.manifest)), Annotations: map[string]string{nameAnnotation: "a:1"}},
		{MediaType: types.OCIManifestSchema1, Digest: hash[0], Size: int64(len(a.manifest)), Annotations: map[string]string{nameAnnotation: "a:2"}},
		{MediaType: types.OCIManifestSchema1, Digest: hash[1], Size: int64(len(b.manifest))}}})
	ctx := context.Background()
	for _, c := range []struct {
		o     LoadOptions
		want  v1.Hash
		names []string
	}{
		{LoadOptions{Only: "a:2"}, hash[0], []string{"docker.io/library/a:2"}},
		{LoadOptions{Only: hash[1].Hex[:10]}, hash[1], nil},
		{LoadOptions{Only: hash[1].String(), Name: "docker.io/library/n:1"}, hash[1], []string{"docker.io/library/n:1"}},
	} {
		loaded, err := newStore(t).Load(ctx, given(t, f.tar(t)), c.o)
		if err != nil || len(loaded) != 1 || loaded[0].Digest != c.want || !slices.Equal(loaded[0].Names, c.names) {
			t.Errorf("%+v: got %v, %v", c.o, loaded, err)
		}
	}
	s := newStore(t)
	if loaded, err := s.Load(ctx, given(t, f.tar(t)), LoadOptions{}); err != nil || len(loaded) != 3 {
		t.Errorf("got %v, %v", loaded, err)
	}
	if all, err := s.List(); err != nil || len(all) != 3 {
		t.Errorf("got %v, %v", all, err)
	}
	_, err := s.Load(ctx, given(t, f.tar(t)), LoadOptions{Only: "a:3"})
	if want := `it has docker.io/library/a:1, docker.io/library/a:2, ` + hash[1].String(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Load(ctx, given(t, f.tar(t)), LoadOptions{Name: "n"}); err == nil {
		t.Error("one name for two images")
	}
}

// The platform is chosen as a registry's client does it.
func TestLoadIndex(t *testing.T) {
	a, b := simple(t), makeImage(t, v1.Config{}, makeTar(t, file("z", "z")))
	f := layoutOf(t, a, nil)
	for name, text := range layoutOf(t, b, nil) {
		f[name] = text
	}
	index := asJSON(t, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{
		{MediaType: types.OCIManifestSchema1, Digest: digestOf("elsewhere"), Size: 9, Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}},
		{MediaType: types.OCIManifestSchema1, Digest: digestOf("too new"), Size: 9, Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH, Variant: "v99"}},
		{MediaType: types.OCIManifestSchema1, Digest: digestOf(string(b.manifest)), Size: int64(len(b.manifest)), Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}},
		{MediaType: types.OCIManifestSchema1, Digest: digestOf("about it"), Size: 9, Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}}})
	f[blobName(digestOf(index))] = index
	f["index.json"] = asJSON(t, v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{
		{MediaType: types.OCIImageIndex, Digest: digestOf(index), Size: int64(len(index)), Annotations: map[string]string{nameAnnotation: "m:1"}}}})
	s := newStore(t)
	loaded, err := s.Load(context.Background(), given(t, f.tar(t)), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if loaded[0].Digest != digestOf(string(b.manifest)) || loaded[0].Index != digestOf(index) {
		t.Errorf("got %s of %s", loaded[0].Digest, loaded[0].Index)
	}
	if i, err := s.Find("m@" + digestOf(index).String()); err != nil || i.Digest != loaded[0].Digest {
		t.Errorf("got %v, %v", i, err)
	}
}

// What another kind of machine runs is loaded where it is asked for by its digest.
func TestLoadForeign(t *testing.T) {
	s, m := newStore(t), simple(t)
	f := layoutOf(t, m, nil)
	f["index.json"] = asJSON(t, v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{
		{MediaType: types.OCIManifestSchema1, Digest: sumOf(m.manifest), Size: int64(len(m.manifest)), Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}}})
	if _, err := s.Load(context.Background(), given(t, f.tar(t)), LoadOptions{}); err == nil || !strings.Contains(err.Error(), "it has images for linux/s390x only; this machine is linux/") {
		t.Errorf("got %v", err)
	}
	if loaded, err := s.Load(context.Background(), given(t, f.tar(t)), LoadOptions{Only: sumOf(m.manifest).String()}); err != nil || len(loaded) != 1 {
		t.Errorf("got %v, %v", loaded, err)
	}
}

// What is saved is loaded as the same, and saving it again gives the same bytes.
func TestSave(t *testing.T) {
	ctx := context.Background()
	s, m := newStore(t), simple(t)
	i, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/a:1"})
	if err != nil {
		t.Fatal(err)
	}
	images := []Named{{"docker.io/library/a:1", i}, {"registry.example:5000/b:2", i}}
	for _, o := range []SaveOptions{{}, {Docker: true}} {
		var first, second bytes.Buffer
		for _, b := range []*bytes.Buffer{&first, &second} {
			if err := s.Save(ctx, b, images, o); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Error("two archives of the same differ")
		}
		dir := filepath.Join(t.TempDir(), "folder")
		if err := s.SaveFolder(ctx, dir, Owner{os.Getuid(), os.Getgid()}, images, o); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []*os.File{given(t, first.Bytes()), f} {
			other := newStore(t)
			loaded, err := other.Load(ctx, r, LoadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for n, l := range loaded {
				if l.Digest != i.Digest || !slices.Equal(l.Names, []string{images[n].Name}) {
					t.Errorf("got %s %v", l.Digest, l.Names)
				}
			}
			var again bytes.Buffer
			if all, err := other.List(); err != nil {
				t.Error(err)
			} else if err := other.Save(ctx, &again, all, o); err != nil || !bytes.Equal(again.Bytes(), first.Bytes()) {
				t.Errorf("an archive of what was loaded differs (%v)", err)
			}
		}
	}
	// Older ones read manifest.json alone, and take no digest for a tag.
	var b bytes.Buffer
	if err := s.Save(ctx, &b, append(images, Named{"docker.io/library/a@" + i.Digest.String(), i}), SaveOptions{Docker: true}); err != nil {
		t.Fatal(err)
	}
	a, err := indexTar(ctx, given(t, b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	all, err := (saved{archive: a}).images(ctx)
	if err != nil || len(all) != 1 || strings.Join(all[0].names, " ") != "docker.io/library/a:1 registry.example:5000/b:2" {
		t.Errorf("got %v, %v", all, err)
	}
	if list, err := (saved{archive: a}).list(); err != nil || len(list[0].RepoTags) != 2 {
		t.Errorf("got %v, %v", list, err)
	}
}

// A damaged blob isn't passed on, and leaves no file.
func TestSaveDamaged(t *testing.T) {
	ctx := context.Background()
	s, m := newStore(t), simple(t)
	i, err := s.Add(ctx, m.manifest, m, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	blob := s.blobPath(i.Layers[1].Digest)
	b, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(blob, b, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	err = s.SaveFile(ctx, filepath.Join(dir, "x.tar"), Owner{os.Getuid(), os.Getgid()}, []Named{{"", i}}, SaveOptions{})
	if damaged := new(CorruptError); !errors.As(err, &damaged) || damaged.Digest != i.Layers[1].Digest {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

// Large members of what can't be sought in become blobs as they are: right ones
// only.
func TestLoadLargeMembers(t *testing.T) {
	ctx := context.Background()
	content := make([]byte, 3*largeMember)
	for i := range content {
		content[i] = byte(i * i >> 7)
	}
	m := makeImage(t, v1.Config{}, makeTar(t, file("big", string(content))), makeTar(t, file("bigger", string(content)+"more")), makeTar(t, file("small", "")))
	oci, docker := layoutOf(t, m, map[string]string{nameAnnotation: "x:1"}), dockerOf(t, m, "x:1")
	for name, b := range map[string][]byte{"OCI": oci.tar(t), "Docker": docker.tar(t)} {
		for _, r := range []*os.File{piped(t, b), given(t, pack(t, b, gzipped)), piped(t, pack(t, b, zstandard))} {
			s := newStore(t)
			loaded, err := s.Load(ctx, r, LoadOptions{})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if v, err := s.Verify(ctx, nil, VerifyOptions{}); err != nil || len(v.Damage) > 0 || v.Blobs != 5 || v.Layers != 3 {
				t.Errorf("%s: %+v, %v", name, v, err)
			}
			if st, err := os.Stat(s.blobPath(loaded[0].Layers[0].Digest)); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", name, st, err)
			}
		}
	}
	// A byte of the first layer, which is not packed, is another.
	for name, f := range map[string]files{"OCI": oci, "Docker": docker} {
		for member, text := range f {
			if at := strings.Index(text, string(content[:1000])); at >= 0 && !strings.Contains(text, "more") {
				f[member] = text[:at+2000] + "X" + text[at+2001:]
			}
		}
		y := newYard(t)
		_, err := y.Load(ctx, piped(t, f.tar(t)), LoadOptions{})
		y.refuses(t, err, "has the digest sha256:")
		if t.Failed() {
			t.Fatal(name)
		}
	}
}
