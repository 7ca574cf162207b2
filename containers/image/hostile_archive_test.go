package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// edited is a layout whose documents are changed as JSON says, digests and sizes
// made right again.
func edited(t *testing.T, change func(m *v1.Manifest, c *string)) files {
	t.Helper()
	made := simple(t)
	m, err := v1.ParseManifest(bytes.NewReader(made.manifest))
	if err != nil {
		t.Fatal(err)
	}
	config := string(made.blobs[m.Config.Digest])
	delete(made.blobs, m.Config.Digest)
	was := config
	change(m, &config)
	if config != was {
		m.Config.Digest, m.Config.Size = digestOf(config), int64(len(config))
	}
	made.blobs[digestOf(config)] = []byte(config)
	made.manifest = []byte(asJSON(t, m))
	return layoutOf(t, made, nil)
}

// indexed is a layout whose index.json is some text.
func indexed(t *testing.T, text string) files {
	f := layoutOf(t, simple(t), nil)
	f["index.json"] = text
	return f
}

func entryOf(text string, kind types.MediaType) v1.Descriptor {
	return v1.Descriptor{MediaType: kind, Digest: digestOf(text), Size: int64(len(text))}
}

// deepIndex has indexes in indexes, and at the end an image.
func deepIndex(t *testing.T, levels int) files {
	f := layoutOf(t, simple(t), nil)
	for range levels {
		text := f["index.json"]
		f[blobName(digestOf(text))] = text
		f["index.json"] = asJSON(t, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{entryOf(text, types.OCIImageIndex)}})
	}
	return f
}

// cyclicIndex: an index that contains itself by another's digest.
func cyclicIndex(t *testing.T) files {
	f := files{"oci-layout": layoutVersion}
	a := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("a", 64)}
	b := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("b", 64)}
	for from, to := range map[v1.Hash]v1.Hash{a: b, b: a} {
		f[blobName(from)] = asJSON(t, v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{{MediaType: types.OCIImageIndex, Digest: to, Size: 231}}})
	}
	f["index.json"] = asJSON(t, v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{{MediaType: types.OCIImageIndex, Digest: a, Size: int64(len(f[blobName(a)]))}}})
	return f
}

// both is an OCI layout that has an image several times, without a name.
func both(t *testing.T, times int) files {
	f := layoutOf(t, simple(t), nil)
	var index v1.IndexManifest
	if err := json.Unmarshal([]byte(f["index.json"]), &index); err != nil {
		t.Fatal(err)
	}
	index.Manifests = slices.Repeat(index.Manifests, times)
	f["index.json"] = asJSON(t, index)
	return f
}

func docker(t *testing.T, manifest string) files {
	f := dockerOf(t, simple(t), "x:1")
	f["manifest.json"] = manifest
	return f
}

func with(f files, name, text string) files {
	f[name] = text
	return f
}

func without(f files, part string) files {
	for name := range f {
		if strings.Contains(name, part) {
			delete(f, name)
			break
		}
	}
	return f
}

func TestHostileArchives(t *testing.T) {
	config := mustConfig(t, simple(t))
	layer := fmt.Sprintf("%064d/layer.tar", 0)
	bomb := strings.Repeat("[", 2<<20)
	padded := `{"schemaVersion":2,"x":"` + strings.Repeat("p", 5<<20) + `"}`
	for _, c := range []struct {
		name string
		f    files
		want string
	}{
		{"nothing in it", files{}, "neither index.json nor manifest.json"},
		{"nothing known", files{"x": "y"}, "neither index.json nor manifest.json"},
		{"before Docker 1.10", files{"repositories": "{}"}, "before 1.10"},
		{"index of no image", indexed(t, `{"schemaVersion":2,"manifests":[]}`), "holds no image"},
		{"index null", indexed(t, `null`), "holds no image"},
		{"index a list", indexed(t, `[]`), "index.json is not a valid index"},
		{"index cut", indexed(t, `{"schemaVersion":2,"manifests":[{`), "index.json is not a valid index"},
		{"index of 5 MiB", indexed(t, padded), `"index.json" has 5242`},
		{"index as a JSON bomb", indexed(t, bomb), "index.json is not a valid index"},
		{"index of 2000", indexed(t, `{"schemaVersion":2,"manifests":[`+strings.Repeat("{},", 1999)+"{}]}"), "more than 1000 entries"},
		{"index with a digest upwards", indexed(t, `{"manifests":[{"digest":"sha256:../../../etc/passwd","size":1}]}`), ""},
		{"index with sha512", indexed(t, `{"manifests":[{"digest":"sha512:`+strings.Repeat("a", 128)+`","size":1}]}`), ""},
		{"index with capital digits", indexed(t, `{"manifests":[{"digest":"sha256:`+strings.Repeat("A", 64)+`","size":1}]}`), ""},
		{"index of what is not there", indexed(t, asJSON(t, v1.IndexManifest{Manifests: []v1.Descriptor{entryOf("none", types.OCIManifestSchema1)}})), "the archive lacks blobs/sha256/"},
		{"index of negative size", indexed(t, `{"manifests":[{"digest":"`+digestOf("x").String()+`","size":-1}]}`), ""},
		{"indexes 20 deep", deepIndex(t, 20), "its indexes are more than 8 deep"},
		{"indexes in a circle", cyclicIndex(t), ""},
		{"a name that is none", layoutOf(t, simple(t), map[string]string{nameAnnotation: "Not/A Name:1"}), `"Not/A Name:1" is not an image's name`},
		{"a name upwards", layoutOf(t, simple(t), map[string]string{"io.containerd.image.name": "../../etc/passwd"}), "is not an image's name"},
		{"a name of 1 MiB", layoutOf(t, simple(t), map[string]string{nameAnnotation: "a/" + strings.Repeat("n", 1<<20)}), "is not an image's name"},
		{"another platform", edited(t, func(*v1.Manifest, *string) {}), ""}, // replaced below
		{"manifest of 501 layers", edited(t, func(m *v1.Manifest, _ *string) {
			for len(m.Layers) < 501 {
				m.Layers = append(m.Layers, m.Layers[0])
			}
		}), "it has 501 layers; overlayfs takes 500"},
		{"manifest of another type", edited(t, func(m *v1.Manifest, _ *string) { m.MediaType = "application/vnd.docker.distribution.manifest.v1+json" }), "is not an image's"},
		{"configuration of another type", edited(t, func(m *v1.Manifest, _ *string) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }), "holds no image"},
		{"layer elsewhere", edited(t, func(m *v1.Manifest, _ *string) { m.Layers[0].URLs = []string{"http://192.0.2.9/"} }), "outside the registry"},
		{"layer of negative size", edited(t, func(m *v1.Manifest, _ *string) { m.Layers[0].Size = -1 }), "is said to have -1 bytes"},
		{"layer shorter", edited(t, func(m *v1.Manifest, _ *string) { m.Layers[0].Size++ }), "and is said to have"},
		{"layer longer", edited(t, func(m *v1.Manifest, _ *string) { m.Layers[0].Size-- }), "and is said to have"},
		{"layer of another digest", edited(t, func(m *v1.Manifest, _ *string) { m.Layers[0].Digest = digestOf("none") }), "the archive lacks blobs/sha256/"},
		{"layers in another order", edited(t, func(m *v1.Manifest, _ *string) { slices.Reverse(m.Layers) }), "the image's configuration says"},
		{"configuration said to be huge", edited(t, func(m *v1.Manifest, _ *string) { m.Config.Size = 1 << 40 }), "configuration is said to have"},
		{"configuration of 5 MiB", edited(t, func(_ *v1.Manifest, c *string) { *c = padded }), "configuration is said to have 5242"},
		{"configuration null", edited(t, func(_ *v1.Manifest, c *string) { *c = "null" }), "3 layers and its configuration 0"},
		{"configuration a bomb", edited(t, func(_ *v1.Manifest, c *string) { *c = bomb }), "configuration is not valid"},
		{"configuration of more layers", edited(t, func(_ *v1.Manifest, c *string) {
			*c = strings.Replace(*c, `"diff_ids":[`, `"diff_ids":["`+digestOf("x").String()+`",`, 1)
		}), "3 layers and its configuration 4"},
		{"configuration with a digest upwards", edited(t, func(_ *v1.Manifest, c *string) { *c = strings.ReplaceAll(*c, "sha256:", "sha256:../") }), ""},
		{"configuration of wrong content", edited(t, func(_ *v1.Manifest, c *string) { *c = strings.ReplaceAll(*c, "sha256:", "sha256:0000")[:len(*c)] }), ""},
		{"blob of wrong content", with(layoutOf(t, simple(t), nil), blobName(firstLayer(t)), strings.Repeat("x", sizeOf(t, firstLayer(t)))), "has the digest sha256:"},
		{"blob missing", without(layoutOf(t, simple(t), nil), firstLayer(t).Hex), "the archive lacks blobs/sha256/" + firstLayer(t).Hex},

		{"Docker null", docker(t, "null"), "holds no image"},
		{"Docker an object", docker(t, "{}"), "as in skopeo's dir:"},
		{"Docker a bomb", docker(t, bomb), "manifest.json is not valid"},
		{"Docker 5 MiB", docker(t, padded), `"manifest.json" has`},
		{"Docker 20000 names", docker(t, `[{"RepoTags":[`+strings.Repeat(`"a:1",`, 20_000)+`"a:1"]}]`), "more than 10000 names"},
		{"Docker 20000 names of OCI images", with(both(t, 3), "manifest.json", `[{"Config":"`+simple(t).parsed(t).Config.Digest.Hex+`","RepoTags":[`+strings.Repeat(`"a:1",`, 8000)+`"a:1"]}]`), "more than 10000 names"},
		{"Docker 2000 images", docker(t, "["+strings.Repeat("{},", 1999)+"{}]"), "more than 1000 images"},
		{"Docker configuration upwards", docker(t, `[{"Config":"../../../../etc/passwd","Layers":[]}]`), `"../../../../etc/passwd"`},
		{"Docker configuration absolute", docker(t, `[{"Config":"/etc/passwd","Layers":[]}]`), `"/etc/passwd"`},
		{"Docker layers upwards", docker(t, `[{"Config":"`+config+`","Layers":["../../../etc/passwd","/dev/zero","x"]}]`), `"../../../etc/passwd"`},
		{"Docker too few layers", docker(t, `[{"Config":"`+config+`","Layers":["`+layer+`"]}]`), "manifest.json has 1 layers and the configuration 3"},
		{"Docker wrong layers", docker(t, `[{"Config":"`+config+`","Layers":["`+layer+`","`+layer+`","`+layer+`"]}]`), ""},
		{"Docker wrong content", with(dockerOf(t, simple(t), "x:1"), layer, "x"), ""},
		{"Docker configuration a bomb", with(dockerOf(t, simple(t), "x:1"), config, bomb), "is not valid"},
		{"Docker name that is none", dockerOf(t, simple(t), "x:1", "y:z:1"), `"y:z:1" is not an image's name`},
		{"Docker layer by bzip2", with(dockerOf(t, simple(t), "x:1"), layer, "BZh91AY&SY"), "packed as no layer may be"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "another platform" {
				c.f, c.want = otherPlatform(t), "for linux/s390x only"
			}
			y, ctx := newYard(t), context.Background()
			b := c.f.tar(t)
			for what, r := range map[string]*os.File{"archive": given(t, b), "packed": given(t, pack(t, b, gzipped)), "pipe": piped(t, b), "folder": opened(t, c.f.folder(t))} {
				_, err := y.Load(ctx, r, LoadOptions{})
				y.refuses(t, err, c.want)
				if t.Failed() {
					t.Fatalf("by %s", what)
				}
			}
		})
	}
}

func otherPlatform(t *testing.T) files {
	f := layoutOf(t, simple(t), nil)
	index, err := parseIndex("", []byte(f["index.json"]))
	if err != nil {
		t.Fatal(err)
	}
	index.Manifests[0].Platform = &v1.Platform{OS: "linux", Architecture: "s390x"}
	return with(f, "index.json", asJSON(t, index))
}

func opened(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func firstLayer(t *testing.T) v1.Hash {
	m, err := v1.ParseManifest(bytes.NewReader(simple(t).manifest))
	if err != nil {
		t.Fatal(err)
	}
	return m.Layers[0].Digest
}

func sizeOf(t *testing.T, h v1.Hash) int { return len(simple(t).blobs[h]) }

// TestHostileMembers: what the archive's own tar may not have.
func TestHostileMembers(t *testing.T) {
	good := func(t *testing.T) []entry {
		var all []entry
		for name, text := range layoutOf(t, simple(t), nil) {
			all = append(all, file(name, text))
		}
		return all
	}
	layer := blobName(firstLayer(t))
	for _, c := range []struct {
		name string
		more []entry
		want string
	}{
		{"name up", []entry{file("../../x", "theirs?")}, `archive member "../../x": the name leads upwards`},
		{"name absolute", []entry{file("/escaped", "")}, `archive member "/escaped": the name is absolute`},
		{"link up", []entry{link("blobs/l", "../../x")}, `"blobs/l": it is a link that leads out of the archive`},
		{"link absolute", []entry{link("l", "/etc/passwd")}, "leads out of the archive"},
		{"hard link up", []entry{hard("l", "../x")}, "leads out of the archive"},
		{"device", []entry{typed("dev", tar.TypeBlock)}, "neither file, folder nor link"},
		{"FIFO", []entry{typed("f", tar.TypeFifo)}, "neither file, folder nor link"},
		{"twice", []entry{file(layer, "other")}, `the archive has it twice`},
		{"twice, spelled otherwise", []entry{file("./"+layer, "other")}, `the archive has it twice`},
		{"index twice", []entry{file("index.json", "{}")}, `"index.json": the archive has it twice`},
	} {
		t.Run(c.name, func(t *testing.T) {
			y := newYard(t)
			b := makeTar(t, append(good(t), c.more...)...)
			_, err := y.Load(context.Background(), given(t, b), LoadOptions{})
			y.refuses(t, err, c.want)
			_, err = y.Load(context.Background(), piped(t, pack(t, b, zstandard)), LoadOptions{})
			y.refuses(t, err, c.want)
		})
	}
	for name, b := range map[string][]byte{
		"members without end": endless(t),
		"links in a circle":   makeTar(t, link("index.json", "a"), link("a", "b"), link("b", "a")),
		"sparse":              sparseTar(t, 100),
		"a bomb":              pack(t, make([]byte, 9<<20), gzipped),
		"packed twice":        pack(t, pack(t, makeTar(t, good(t)...), gzipped), zstandard),
		"random":              bytes.Repeat([]byte{7, 99, 31}, 3000),
		"empty":               {},
		"damaged gzip":        damaged(pack(t, makeTar(t, good(t)...), gzipped)),
	} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t)
			_, err := y.Load(context.Background(), given(t, b), LoadOptions{})
			y.refuses(t, err, "")
		})
	}
}

// endless has more members than are taken.
func endless(t *testing.T) []byte {
	one := rawTar("f", func([]byte) {})[:512]
	var b bytes.Buffer
	for i := range maxMembers + 1 {
		h := bytes.Clone(one)
		copy(h, rawTar(fmt.Sprint("f", i), func([]byte) {})[:512])
		b.Write(h)
		if b.Len() > 60<<20 {
			t.Fatal("too large a test")
		}
	}
	return b.Bytes()
}

// TestHostileFolder: the files of an OCI folder that are none.
func TestHostileFolder(t *testing.T) {
	blob := blobName(firstLayer(t))
	for _, c := range []struct {
		name string
		harm func(t *testing.T, dir string) error
		want string
	}{
		{"blob a link", func(_ *testing.T, dir string) error {
			path := filepath.Join(dir, blob)
			return errors.Join(os.Rename(path, path+"x"), os.Symlink(filepath.Base(path)+"x", path))
		}, blob + `" in the folder is a link`},
		{"blob a link out", func(_ *testing.T, dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, blob)), os.Symlink("/etc/passwd", filepath.Join(dir, blob)))
		}, "in the folder is a link"},
		{"blob a FIFO", func(t *testing.T, dir string) error { fifo(t, filepath.Join(dir, blob)); return nil }, "in the folder is not a file"},
		{"blob a socket", func(t *testing.T, dir string) error { socket(t, filepath.Join(dir, blob)); return nil }, "in the folder is not a file"},
		{"blob a folder", func(_ *testing.T, dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, blob)), os.Mkdir(filepath.Join(dir, blob), 0o755))
		}, "in the folder is not a file"},
		{"blobs a link", func(_ *testing.T, dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, "blobs"), filepath.Join(dir, "b")), os.Symlink("b", filepath.Join(dir, "blobs")))
		}, "is a link, or behind one"},
		{"index a link", func(_ *testing.T, dir string) error {
			path := filepath.Join(dir, "index.json")
			return errors.Join(os.Rename(path, path+"x"), os.Symlink("index.jsonx", path))
		}, `"index.json" in the folder is a link`},
		{"index a FIFO", func(t *testing.T, dir string) error { fifo(t, filepath.Join(dir, "index.json")); return nil }, `"index.json" in the folder is not a file`},
	} {
		t.Run(c.name, func(t *testing.T) {
			y := newYard(t)
			dir := layoutOf(t, simple(t), nil).folder(t)
			r := opened(t, dir)
			if err := c.harm(t, dir); err != nil {
				t.Fatal(err)
			}
			_, err := y.Load(context.Background(), r, LoadOptions{})
			y.refuses(t, err, c.want)
		})
	}
}

// TestTruncated cuts archives and layers at each block: what is taken is the
// whole image.
func TestTruncated(t *testing.T) {
	m := layersOf(t, makeTar(t, file("a", "one"), file("b", strings.Repeat("x", 700))), makeTar(t, file(".wh.a", "")))
	for name, b := range map[string][]byte{
		"OCI":    layoutOf(t, m, map[string]string{nameAnnotation: "x:1"}).tar(t),
		"Docker": dockerOf(t, m, "x:1").tar(t),
		"gzip":   pack(t, dockerOf(t, m, "x:1").tar(t), gzipped),
		"zstd":   pack(t, layoutOf(t, m, nil).tar(t), zstandard),
	} {
		t.Run(name, func(t *testing.T) {
			y, step, whole := newYard(t), 512, 0
			if name == "gzip" || name == "zstd" {
				step = 97
			}
			for n := 0; n < len(b); n += step {
				s := y
				loaded, err := s.Load(context.Background(), given(t, b[:n]), LoadOptions{})
				if err != nil {
					y.refuses(t, err, "")
				} else {
					// Only the end of the tar was cut.
					if whole++; len(loaded[0].Layers) != 2 {
						t.Errorf("at %d of %d: it has %d layers", n, len(b), len(loaded[0].Layers))
					}
					if v, err := s.Verify(context.Background(), nil, VerifyOptions{}); err != nil || len(v.Damage) > 0 {
						t.Errorf("at %d: %v, %v", n, v, err)
					}
					if err := s.Remove(context.Background(), loaded[0].Digest); err != nil {
						t.Fatal(err)
					}
					y.before = y.look(t)
				}
				if t.Failed() {
					t.Fatalf("cut at %d of %d bytes", n, len(b))
				}
			}
			if whole > 3 { // at the tar's two last blocks, or before oci-layout, which says nothing
				t.Errorf("%d cut archives were taken", whole)
			}
		})
	}
}
