package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// made is an image made by a test: its blobs are what a source gives.
type made struct {
	manifest []byte
	blobs    map[v1.Hash][]byte
}

func (m *made) Blob(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	b, ok := m.blobs[d.Digest]
	if !ok {
		return nil, 0, errors.New("no such blob")
	}
	return io.NopCloser(bytes.NewReader(b[offset:])), offset, nil
}

func (*made) Again(error) bool { return false }

// makeImage makes one of layers given as tars, packed by turns.
func makeImage(t *testing.T, config v1.Config, layers ...[]byte) *made {
	t.Helper()
	m := &made{blobs: map[v1.Hash][]byte{}}
	put := func(b []byte) (v1.Hash, int64) {
		h, n, err := v1.SHA256(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		m.blobs[h] = b
		return h, n
	}
	c := v1.ConfigFile{Architecture: "amd64", OS: "linux", Config: config, RootFS: v1.RootFS{Type: "layers"}}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for i, l := range layers {
		diff, _, _ := v1.SHA256(bytes.NewReader(l))
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, diff)
		h, n := put(pack(t, l, packing(i%3)))
		manifest.Layers = append(manifest.Layers, v1.Descriptor{MediaType: types.OCILayer, Digest: h, Size: n})
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	h, n := put(text)
	manifest.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: h, Size: n}
	if m.manifest, err = json.Marshal(manifest); err != nil {
		t.Fatal(err)
	}
	return m
}

func pack(t *testing.T, b []byte, how packing) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case gzipped:
		w = gzip.NewWriter(&out)
	case zstandard:
		w, err = zstd.NewWriter(&out)
	default:
		return b
	}
	if err == nil {
		_, err = w.Write(b)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// entry is one of a layer's tar; its content makes it a file.
type entry struct {
	tar.Header
	content string
}

func makeTar(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.content))
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, content string) entry { return entry{tar.Header{Name: name}, content} }
func folder(name string, mode int64) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}, ""}
}
func link(name, to string) entry {
	return entry{tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}, ""}
}
func hard(name, to string) entry {
	return entry{tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeLink}, ""}
}

func newStore(t testing.TB) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root, and CI has it")
		}
		t.Skip("needs root: it gives files owners")
	}
	s, err := OpenStore(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAddAndUnpack(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	m := makeImage(t, v1.Config{Cmd: []string{"/bin/a"}},
		makeTar(t, folder("tmp/", 0o1777), folder("bin", 0o755), file("bin/a", "one"), file("bin/b", "two"), folder("old", 0o755), file("old/x", "x")),
		makeTar(t, file("tmp/new", "in an implied folder"), file("bin/.wh.b", ""), file("old/.wh..wh..opq", ""), file("old/y", "y"), hard("bin/c", "bin/a")),
		makeTar(t, file(".wh.old", ""), folder("old", 0o700), file("sparse", string(make([]byte, 1<<20))+"end")))
	i, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/a:latest"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds all there
		if err := s.Unpack(ctx, i, AddOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := s.Find("a"); err != nil || found.Digest != i.Digest || found.Config.Config.Cmd[0] != "/bin/a" {
		t.Errorf("got %v, %v", found, err)
	}
	for n, want := range []map[string]string{
		{"tmp": "dtrwxrwxrwx", "bin/a": "one", "bin/b": "two", "old/x": "x"},
		{"tmp": "dtrwxrwxrwx", "tmp/new": "in an implied folder", "bin/b": "Dc---------", "bin/c": "one", "bin/a": "one", "old/y": "y"},
		{"old": "drwx------"},
	} {
		for name, want := range want {
			path := filepath.Join(s.Tree(&i.Layers[n]), name)
			st, err := os.Lstat(path)
			if err != nil {
				t.Error(err)
				continue
			}
			got := st.Mode().String()
			if st.Mode().IsRegular() {
				b, _ := os.ReadFile(path)
				got = string(b)
			}
			if got != want {
				t.Errorf("layer %d, %s: got %q, want %q", n, name, got, want)
			}
		}
	}
	if left, err := os.ReadDir(s.path("ingest")); err != nil || len(left) > 0 {
		t.Errorf("left in ingest: %v, %v", left, err)
	}
}

// What a layer doesn't say of its folders isn't the umask's to say.
func TestUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	s := newStore(t)
	i, err := s.Import(context.Background(), given(t, makeTar(t, file("a/b/c", ""), typed("p", tar.TypeFifo))), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{".": 0o755, "a": 0o755, "a/b": 0o755, "a/b/c": 0o644, "p": 0o644} {
		if st, err := os.Lstat(filepath.Join(s.Tree(&i.Layers[0]), name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}

// TestFoldersBehindLinks makes folders that are only mentioned where the image's
// own links lead: from its root or from where they are.
func TestFoldersBehindLinks(t *testing.T) {
	s := newStore(t)
	m := makeImage(t, v1.Config{}, makeTar(t, folder("to", 0o755), folder("a/b", 0o755), link("a/abs", "/to"), link("a/b/rel", "../../to"), link("a/two", "abs/one"),
		file("a/abs/one/x", "1"), file("a/b/rel/three/x", "3"), file("a/two/four/x", "4")))
	loaded, err := s.Load(context.Background(), given(t, layoutOf(t, m, nil).tar(t)), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tree := s.Tree(&loaded[0].Layers[0])
	for name, want := range map[string]string{"to/one/x": "1", "to/three/x": "3", "to/one/four/x": "4"} {
		if got, err := os.ReadFile(filepath.Join(tree, name)); string(got) != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(tree, "a/to")); err == nil {
		t.Error("an absolute link began at its own folder")
	}
}

// TestOpaqueRoot: overlayfs wouldn't heed an attribute of the layer's own root.
func TestOpaqueRoot(t *testing.T) {
	s := newStore(t)
	m := makeImage(t, v1.Config{}, makeTar(t, file("gone", "1"), folder("bin", 0o755), file("bin/gone", "1"), folder("old", 0o755), file("kept", "1"), folder("lib", 0o755)),
		makeTar(t, file("lower", "2")),
		makeTar(t, file("kept", "3"), folder("lib", 0o755), file(".wh..wh..opq", ""), file("bin/new", "3"), file("new", "3")))
	loaded, err := s.Load(context.Background(), given(t, layoutOf(t, m, nil).tar(t)), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tree := s.Tree(&loaded[0].Layers[2])
	for name, want := range map[string]string{"gone": "Dc---------", "lower": "Dc---------", "old": "Dc---------", "kept": "-rw-r--r--", "new": "-rw-r--r--", "bin": "drwxr-xr-x", "lib": "drwxr-xr-x"} {
		st, err := os.Lstat(filepath.Join(tree, name))
		if err != nil || st.Mode().String() != want {
			t.Errorf("%s: got %v, %v, want %s", name, st, err, want)
		}
	}
	for _, name := range []string{"bin", "lib"} {
		value := make([]byte, 8)
		if n, err := unix.Lgetxattr(filepath.Join(tree, name), "trusted.overlay.opaque", value); err != nil || string(value[:n]) != "y" {
			t.Errorf("%s shows what is below it: %v", name, err)
		}
	}
}
