package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// small keeps a fuzzer from filling the disk.
func small() limits { return limits{Entries: 200, Bytes: 1 << 20, Ratio: 1100, Trusted: 64 << 20} }

// fenced gives a folder in another, and tells whether anything beside it came.
func fenced(t testing.TB) (dir string, check func()) {
	outer := t.TempDir()
	dir = filepath.Join(outer, "inner")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, func() {
		if entries, err := os.ReadDir(outer); err != nil || len(entries) != 1 {
			t.Errorf("beside the folder: %v, %v", entries, err)
		}
	}
}

// FuzzUnpackTar: whatever a layer says, nothing comes beside its folder.
func FuzzUnpackTar(f *testing.F) {
	newStore(f) // root
	t := new(testing.T)
	for _, b := range [][]byte{
		makeTar(t, folder("a", 0o755), file("a/b", "x"), link("l", "a"), file("l/c", "y"), hard("h", "a/b"), file(".wh.gone", ""), file("a/.wh..wh..opq", "")),
		makeTar(t, link("l", "/a"), folder("a", 0o700), file("l/x", string(make([]byte, 5000)))),
		makeTar(t, link("l", "../.."), file("l/x", "")),
		makeTar(t, pax("p", map[string]string{"SCHILY.xattr.user.x": "y"})),
		sparseTar(t, 9000), rawTar("a", func([]byte) {}),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dir, check := fenced(t)
		unpackInto(t, filepath.Join(dir, "one"), b)
		check()
	})
}

// FuzzLayers unpacks two layers above each other, of entries that are well formed
// and get in each other's way. What is refused is their fault.
func FuzzLayers(f *testing.F) {
	newStore(f)
	f.Add([]byte("\x00\x01\x02\x10\x11\x22"), []byte("\x30\x01\x21\x42\x12\x06"))
	f.Add([]byte("\x01\x00\x10\x02\x51\x10\x00\x16\x12"), []byte("\x02\x71\x10\x03\x01\x15\x00\x11\x63"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		dir, check := fenced(t)
		below := filepath.Join(dir, "one")
		var wrong *BadImageError
		err := unpackInto(t, below, madeUp(t, one))
		if err == nil {
			err = unpackInto(t, filepath.Join(dir, "two"), madeUp(t, two), below)
		}
		if err != nil && !errors.As(err, &wrong) {
			t.Errorf("the machine is blamed: %v", err)
		}
		check()
	})
}

// madeUp makes three bytes an entry each: its kind, its name and what it links to.
func madeUp(t *testing.T, b []byte) []byte {
	kinds := []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo, tar.TypeChar}
	parts := []string{"a", "b", "c", ".wh.a", ".wh.b", ".wh..wh..opq", "..", "/", "dev", ".", ".wh..wh.x", "a/b", "a/b/c", "../a", "/a", "/a/.."}
	var all []entry
	for ; len(b) >= 3; b = b[3:] {
		h := tar.Header{Name: parts[b[1]>>4] + "/" + parts[b[1]&15], Linkname: parts[b[2]>>4] + "/" + parts[b[2]&15], Typeflag: kinds[b[0]%6], Mode: 0o755}
		if b[0]&64 != 0 {
			h.Name = parts[b[1]&15]
		}
		if b[0]&128 != 0 {
			h.Linkname = parts[b[2]&15]
		}
		h.Name = strings.TrimRight(h.Name, "/") // which means a folder
		if h.Typeflag != tar.TypeSymlink && h.Typeflag != tar.TypeLink {
			h.Linkname = ""
		}
		all = append(all, entry{h, ""})
	}
	return makeTar(t, all...)
}

func unpackInto(t *testing.T, dir string, b []byte, below ...string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := openTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	u := &unpacker{root: int(root.Fd()), limits: small()}
	for _, dir := range below {
		parent, err := openTree(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer parent.Close()
		u.parents = append(u.parents, int(parent.Fd()))
	}
	return u.unpackTar(context.Background(), bytes.NewReader(b))
}

// FuzzManifest: what is taken can be read again, and keeps its bounds.
func FuzzManifest(f *testing.F) {
	m := simple(new(testing.T))
	f.Add(m.manifest)
	f.Add([]byte(`{"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:1","size":1},"layers":[{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseManifest(text)
		if err != nil {
			return
		}
		for _, d := range append([]v1.Descriptor{got.Config}, got.Layers...) {
			if checkHash(d.Digest) != nil || d.Size < 0 {
				t.Errorf("it has %v", d)
			}
		}
		if _, err := parseManifest([]byte(asJSON(t, got))); err != nil {
			t.Errorf("what was taken isn't: %v", err)
		}
	})
}

// FuzzLoad: an archive is loaded whole, or the store is as it was.
func FuzzLoad(f *testing.F) {
	newStore(f)
	t := new(testing.T)
	m := layersOf(t, makeTar(t, file("a", "")))
	for _, b := range [][]byte{
		layoutOf(t, m, map[string]string{nameAnnotation: "x:1"}).tar(t), dockerOf(t, m, "x:1").tar(t), pack(t, dockerOf(t, m, "x:1").tar(t), gzipped),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dir, check := fenced(t)
		s, err := OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		s.limits = small()
		ctx := context.Background()
		r := given(t, b)
		_, err = s.Load(ctx, r, LoadOptions{})
		check()
		if err != nil {
			for _, part := range []string{"blobs/sha256", "layers", "ingest"} {
				if left, err := os.ReadDir(s.path(part)); err != nil || len(left) > 0 {
					t.Errorf("left in %s: %v, %v", part, left, err)
				}
			}
			return
		}
		v, err := s.Verify(ctx, nil, VerifyOptions{})
		if err != nil || len(v.Damage) > 0 {
			t.Errorf("what was loaded is damaged: %v, %v", v, err)
		}
	})
}

// FuzzReference: a name's whole form means the same.
func FuzzReference(f *testing.F) {
	for _, text := range []string{"nginx", "a/b:1", "r.example:5000/x@sha256:" + digestOf("").Hex, "localhost/x", "[::1]:80/x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := ParseReference(text)
		if err != nil {
			return
		}
		for _, form := range []string{ref.String(), ref.Short()} {
			if again, err := ParseReference(form); err != nil || again != ref {
				t.Errorf("%q is %s and %s is %v, %v", text, ref, form, again, err)
			}
		}
	})
}

// FuzzChanges: a change is taken or refused, and never loses what was there.
func FuzzChanges(f *testing.F) {
	for _, text := range []string{`CMD ["a"]`, "ENV A=1 B='2 3'", "EXPOSE 80", "HEALTHCHECK --interval=1s CMD x", `LABEL a="b\"c"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		had := v1.Config{Env: []string{"KEPT=1"}}
		if c, err := changed(had, []string{text}); err == nil && len(c.Env) == 0 && !slices.Contains(c.Env, "KEPT=1") {
			t.Errorf("%q lost what was there", text)
		}
	})
}
