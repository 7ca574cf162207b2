package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// yard is a store with a good image in it, and a fence of files around: what is
// to be the same after something hostile was refused.
type yard struct {
	*Store
	dir    string
	before string
}

func newYard(t *testing.T) *yard {
	t.Helper()
	s := newStore(t)
	y := &yard{s, filepath.Dir(s.dir), ""}
	for _, name := range []string{"etc/passwd", "x", "escaped"} {
		path := filepath.Join(y.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("theirs"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	good := makeImage(t, v1.Config{}, makeTar(t, file("good", "")), makeTar(t, file("better", "")))
	if _, err := s.Load(context.Background(), given(t, layoutOf(t, good, map[string]string{nameAnnotation: "good:1"}).tar(t)), LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	s.limits = limits{Entries: 100, Bytes: 8 << 20, Ratio: 1100, Trusted: 8 << 20}
	y.before = y.look(t)
	return y
}

// look describes all that is there: names, modes, sizes, times.
func (y *yard) look(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(y.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		when := st.ModTime().UnixNano()
		switch filepath.Base(path) {
		case "ingest", "sha256", "layers": // it comes and goes there
			when = 0
		case ".use", ".index":
			return nil
		}
		fmt.Fprintln(&b, path, st.Mode(), st.Size(), when)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// refuses wants an error that is the image's fault and says so, and that nothing
// has changed.
func (y *yard) refuses(t *testing.T, err error, want string) {
	t.Helper()
	wrong := new(BadImageError)
	switch {
	case err == nil:
		t.Error("it was taken")
	case !errors.As(err, &wrong):
		t.Errorf("the error is not about the image: %v", err)
	case !strings.Contains(err.Error(), want):
		t.Errorf("got %v, want %q in it", err, want)
	case len(err.Error()) > 2000:
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
	y.unchanged(t)
}

func (y *yard) unchanged(t *testing.T) {
	t.Helper()
	if now := y.look(t); now != y.before {
		t.Errorf("it changed something:\n%s", cmp.Diff(strings.Split(y.before, "\n"), strings.Split(now, "\n")))
	}
	for _, name := range []string{"/escaped", "/tmp/escaped"} {
		if _, err := os.Lstat(name); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

func typed(name string, kind byte) entry { return entry{tar.Header{Name: name, Typeflag: kind}, ""} }

func pax(name string, records map[string]string) entry {
	return entry{tar.Header{Name: name, Format: tar.FormatPAX, PAXRecords: records}, ""}
}

// TestHostileLayers: each is unpacked from an import, from what `docker save`
// writes and from an OCI archive.
func TestHostileLayers(t *testing.T) {
	long := strings.Repeat("n", 300)
	deep := strings.Repeat("d/", 2100) + "x"
	for _, c := range []struct {
		name string
		tar  []byte
		want string
	}{
		{"name up", makeTar(t, file("../escaped", "")), `"../escaped": the name leads upwards`},
		{"name up within", makeTar(t, file("a/../../escaped", "")), "leads upwards"},
		{"name up at the end", makeTar(t, folder("a/..", 0o755)), "leads upwards"},
		{"name absolute", makeTar(t, file("/escaped", "")), `"/escaped": the name is absolute`},
		{"name twice absolute", makeTar(t, file("//escaped", "")), "is absolute"},
		{"name too long for a file system", makeTar(t, file(long, "")), "too long"},
		{"name too long", makeTar(t, file(deep, "")), "the name is too long"},
		{"link up", makeTar(t, link("a", "../.."), file("a/escaped", "")), `"a/escaped": the folder "a" is behind a link that leads out`},
		{"link up, from below", makeTar(t, folder("b", 0o755), link("b/a", "../.."), file("b/a/escaped", "")), "leads out of the image"},
		{"links in two steps", makeTar(t, folder("b", 0o755), link("b/one", ".."), link("b/one/two", ".."), file("two/escaped", "")), "leads out of the image"},
		{"link to nowhere", makeTar(t, link("a", "/none"), file("a/escaped", "")), `the folder "a" is a link that leads nowhere`},
		{"links to great depths", makeTar(t, deepLinks()...), `is behind links and too deep`},
		{"folders that are only mentioned", makeTar(t, file(strings.Repeat("d/", 101)+"x", "")), "more than 100 entries"},
		{"link to an empty name", makeTar(t, link("a", "")), "it is a link to nothing"},
		{"links in a circle", makeTar(t, link("a", "b"), link("b", "a"), file("a/x", "")), "circle"},
		{"absolute links in a circle", makeTar(t, link("a", "/b"), link("b", "/a"), file("a/x", "")), "circle"},
		{"absolute, then up", makeTar(t, link("a", "/../../tmp"), file("a/escaped", "")), "leads out of the image"},
		{"link, then folder", makeTar(t, link("a", "/tmp"), folder("a", 0o777), file("a/escaped", "")), "twice"},
		{"link, then file", makeTar(t, link("a", "/tmp/escaped"), file("a", "x")), "twice"},
		{"link to proc", makeTar(t, link("a", "/proc/self/root"), file("a/tmp/escaped", "")), "leads nowhere"},
		{"hard link up", makeTar(t, hard("a", "../../etc/passwd")), `"a": its target: the name leads upwards`},
		{"hard link absolute", makeTar(t, hard("a", "/etc/passwd")), "its target: the name is absolute"},
		{"hard link through a link", makeTar(t, link("l", "../.."), hard("a", "l/x")), "leads out of the image"},
		{"hard link through an absolute link", makeTar(t, link("l", "/etc"), hard("a", "l/passwd")), "which is not there"},
		{"hard link to nothing", makeTar(t, hard("a", "none")), `it is a hard link to "none", which is not there`},
		{"hard link to a folder", makeTar(t, folder("d", 0o755), hard("a", "d")), "hard link to the folder"},
		{"hard link to the root", makeTar(t, hard("a", ".")), "hard link to the folder"},
		{"hard link to itself", makeTar(t, hard("a", "a")), "which is not there"},
		{"hard link to a whiteout", makeTar(t, file(".wh.b", ""), hard("a", "b")), "which the layer deletes"},
		{"hard link over a file", makeTar(t, file("a", ""), file("b", ""), hard("a", "b")), "twice"},
		{"block device", makeTar(t, entry{tar.Header{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8}, ""}), `"sda": it is a device node`},
		{"character device", makeTar(t, entry{tar.Header{Name: "lib/mem", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 1}, ""}), "it is a device node"},
		{"device dev", makeTar(t, typed("dev", tar.TypeChar)), "it is a device node"},
		{"device beside dev", makeTar(t, typed("devel/x", tar.TypeChar)), "it is a device node"},
		{"whiteout by device", makeTar(t, typed("etc/passwd", tar.TypeChar)), "it is a device node"},
		{"device out of dev", makeTar(t, typed("dev/../sda", tar.TypeBlock)), "leads upwards"},
		{"whiteout of nothing", makeTar(t, file("a/.wh.", "")), `"a/.wh.": it deletes nothing`},
		{"whiteout of the folder", makeTar(t, file("a/.wh..", "")), "it deletes nothing"},
		{"whiteout of the parent", makeTar(t, file("a/.wh...", "")), "it deletes nothing"},
		{"whiteout of the root", makeTar(t, file(".wh..", "")), "it deletes nothing"},
		{"below a whiteout", makeTar(t, file(".wh.a/b", "")), `it is below ".wh.a"`},
		{"opaque by attribute", makeTar(t, pax("a", map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y"})), "which is overlayfs's own"},
		{"redirect by attribute", makeTar(t, pax("a", map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc"})), "which is overlayfs's own"},
		{"metacopy by attribute", makeTar(t, pax("a", map[string]string{"SCHILY.xattr.user.overlay.metacopy": ""})), "which is overlayfs's own"},
		{"attribute without a name", makeTar(t, pax("a", map[string]string{"SCHILY.xattr.": "y"})), `"a"`},
		{"attribute of no kind", makeTar(t, pax("a", map[string]string{"SCHILY.xattr.user." + long: "y"})), `"a"`},
		{"attribute too large", makeTar(t, pax("a", map[string]string{"SCHILY.xattr.user.x": strings.Repeat("y", 70_000)})), `"a"`},
		{"capability that is none", makeTar(t, pax("a", map[string]string{"SCHILY.xattr.security.capability": "root"})), `"a"`},
		{"owner -1", rawTar("a", func(h []byte) { base256(h[108:116], -1) }), "its owner is -1:"},
		{"owner too large", makeTar(t, entry{tar.Header{Name: "a", Uid: 1<<32 - 1}, ""}), "its owner is 4294967295:0"},
		{"group far too large", makeTar(t, entry{tar.Header{Name: "a", Gid: 1 << 40}, ""}), "which no file can have"},
		{"size too large", rawTar("a", func(h []byte) { base256(h[124:136], 1<<40) }), `"a"`},
		{"size negative", rawTar("a", func(h []byte) { base256(h[124:136], -1) }), "not a tar archive"},
		{"size beyond the end", rawTar("a", func(h []byte) { copy(h[124:136], "00000100000\x00") }), "the layer ends within it"},
		{"sizes together", makeTar(t, file("a", string(make([]byte, 5<<20))), file("b", string(make([]byte, 5<<20)))), "more than 8388608 bytes"},
		{"sparse and huge", sparseTar(t, 1<<40), "more than 8388608 bytes"},
		{"sparse and wrong", sparseTar(t, -5), "tar"},
		{"too many entries", makeTar(t, many(101)...), "more than 100 entries"},
		{"twice", makeTar(t, file("a", "1"), file("a", "2")), `"a": the layer has it twice`},
		{"twice, spelled otherwise", makeTar(t, file("d/a", "1"), file("./d//a", "2")), "twice"},
		{"folder and file", makeTar(t, folder("a", 0o755), file("a", "")), "twice"},
		{"file and folder", makeTar(t, file("a", ""), folder("a", 0o755)), "twice"},
		{"file used as folder", makeTar(t, file("a", ""), file("a/b", "")), `"a" is not a folder`},
		{"FIFO twice", makeTar(t, typed("a", tar.TypeFifo), typed("a", tar.TypeFifo)), "twice"},
		{"root is a file", makeTar(t, file(".", "")), "the root is not a folder"},
		{"root is a link", makeTar(t, link(".", "/")), "the root is not a folder"},
		{"no name", makeTar(t, file("", "")), ""},
		{"unknown type", makeTar(t, typed("a", 'Z')), "type 'Z'"},
		{"PAX record of 2 MiB", largePAX(), "not a tar archive"},
		{"no tar", bytes.Repeat([]byte("no tar "), 100), "not a tar archive"},
		{"packed twice", pack(t, pack(t, makeTar(t, file("a", "")), gzipped), gzipped), "packed twice"},
		{"xz", append([]byte("\xfd7zXZ\x00"), make([]byte, 600)...), "xz"},
		{"gzip bomb", pack(t, make([]byte, 9<<20), gzipped), "more than 8388608 bytes"},
		{"zstd bomb", pack(t, make([]byte, 9<<20), zstandard), "more than 8388608 bytes"},
		{"damaged gzip", damaged(pack(t, makeTar(t, file("a", strings.Repeat("abc", 5000))), gzipped)), "damaged"},
		{"damaged zstd", damaged(pack(t, makeTar(t, file("a", strings.Repeat("abc", 5000))), zstandard)), "damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			y, ctx := newYard(t), context.Background()
			if c.tar == nil {
				t.Fatal("nothing was made")
			}
			_, err := y.Import(ctx, given(t, c.tar), ImportOptions{Name: "docker.io/library/bad:1"})
			y.refuses(t, err, c.want)
			m := layersOf(t, c.tar)
			_, err = y.Load(ctx, given(t, dockerOf(t, m, "bad:1").tar(t)), LoadOptions{})
			y.refuses(t, err, "")
			_, err = y.Load(ctx, given(t, layoutOf(t, m, nil).tar(t)), LoadOptions{})
			y.refuses(t, err, "")
			// As the second of two, of which the first is good.
			m = layersOf(t, makeTar(t, file("fine", "")), c.tar)
			_, err = y.Load(ctx, given(t, layoutOf(t, m, nil).tar(t)), LoadOptions{})
			y.refuses(t, err, "")
		})
	}
}

// Layers that each hold little enough to be trusted aren't together.
func TestInflatedTogether(t *testing.T) {
	y, ctx := newYard(t), context.Background()
	tiny := func(name string) []byte { return makeTar(t, file(name, "")) }
	zeros := func(name string) []byte { return makeTar(t, file(name, string(make([]byte, 7<<20)))) }
	one := makeImage(t, v1.Config{}, tiny("a"), tiny("b"), zeros("c"))
	if _, err := y.Load(ctx, given(t, layoutOf(t, one, nil).tar(t)), LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := y.Prune(ctx, func(n Named) bool { return n.Name == "" }); err != nil {
		t.Fatal(err)
	}
	y.before = y.look(t)
	two := makeImage(t, v1.Config{}, tiny("a"), tiny("b"), zeros("c"), tiny("d"), tiny("e"), zeros("f"))
	_, err := y.Load(ctx, given(t, layoutOf(t, two, nil).tar(t)), LoadOptions{})
	y.refuses(t, err, "more than 1100 times that")
}

// What looks odd and is harmless is taken.
func TestOddLayers(t *testing.T) {
	for name, b := range map[string][]byte{
		"devices of dev":        makeTar(t, folder("dev", 0o755), typed("dev/null", tar.TypeChar), typed("dev/pts/0", tar.TypeBlock)),
		"absolute link":         makeTar(t, folder("run", 0o755), folder("var", 0o755), link("var/run", "/run"), file("var/run/x", "")),
		"link out, unused":      makeTar(t, link("a", "../../../etc/passwd"), link("b", "/etc/shadow")),
		"hard link to a link":   makeTar(t, link("a", "/etc/passwd"), hard("b", "a")),
		"folder again":          makeTar(t, folder("a", 0o755), file("a/b", ""), folder("a/", 0o700)),
		"whiteout and new":      makeTar(t, file(".wh.a", ""), file("a", "")),
		"AUFS's own":            makeTar(t, file(".wh..wh.aufs", ""), folder(".wh..wh.plnk", 0o700), file(".wh..wh.plnk/1.2", "")),
		"nothing at all":        makeTar(t),
		"no owner, no time":     rawTar("a", func(h []byte) { clear(h[108:124]); clear(h[136:148]) }),
		"before 1970":           makeTar(t, entry{tar.Header{Name: "a", ModTime: time.Unix(-86400, 5), Format: tar.FormatPAX}, ""}),
		"names that look wrong": makeTar(t, file("...", ""), file("a\nb", ""), file("\x1b[31m", ""), file("-rf", "")),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := newStore(t).Import(context.Background(), given(t, b), ImportOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// layersOf is an image of layers as they are.
func layersOf(t *testing.T, layers ...[]byte) *made {
	t.Helper()
	c := v1.ConfigFile{Architecture: "amd64", OS: "linux", RootFS: v1.RootFS{Type: "layers"}}
	m := &made{blobs: map[v1.Hash][]byte{}}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for _, l := range layers {
		h := digestOf(string(l))
		m.blobs[h] = l
		manifest.Layers = append(manifest.Layers, v1.Descriptor{MediaType: types.OCIUncompressedLayer, Digest: h, Size: int64(len(l))})
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, h)
	}
	text := asJSON(t, c)
	m.blobs[digestOf(text)] = []byte(text)
	manifest.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: digestOf(text), Size: int64(len(text))}
	m.manifest = []byte(asJSON(t, manifest))
	return m
}

// deepLinks lead into each other, each as deep as a name may be.
func deepLinks() (all []entry) {
	deep := strings.Repeat("d/", 10) + "d"
	for n, at := 0, deep; n < 3; n++ {
		all = append(all, folder(at, 0o755))
		name := fmt.Sprintf("l%d", n)
		all = append(all, link(name, strings.Repeat("./", 1900)+at))
		at = name + "/" + deep
	}
	return append(all, folder("l2/"+deep+"/x", 0o755))
}

func many(n int) (all []entry) {
	for i := range n {
		all = append(all, file(fmt.Sprint("f", i), ""))
	}
	return all
}

// rawTar is a tar of one header that is changed as no library would.
func rawTar(name string, change func(header []byte)) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	h[156] = '0'
	copy(h[257:], "ustar\x0000")
	change(h)
	copy(h[148:156], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return append(h, make([]byte, 1024)...)
}

// base256 writes a number as GNU tar does where octal digits end.
func base256(field []byte, n int64) {
	fill := byte(0)
	if n < 0 {
		fill = 0xff
	}
	for i := range field {
		field[i] = fill
	}
	binary.BigEndian.PutUint64(field[len(field)-8:], uint64(n))
	field[0] |= 0x80
}

// sparseTar has a file of a few bytes that is said to have more (GNU tar, "PAX
// Format, Version 0.1").
func sparseTar(t *testing.T, size int64) []byte {
	t.Helper()
	records := ""
	for _, kv := range []string{"GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.name=a", fmt.Sprintf("GNU.sparse.size=%d", size), "GNU.sparse.numblocks=1", "GNU.sparse.map=0,4"} {
		n := len(kv) + 3
		for len(fmt.Sprintf("%d %s\n", n, kv)) != n {
			n++
		}
		records += fmt.Sprintf("%d %s\n", n, kv)
	}
	head := rawTar("pax", func(h []byte) {
		h[156] = 'x'
		copy(h[124:136], fmt.Sprintf("%011o\x00", len(records)))
	})[:512]
	body := append([]byte(records), make([]byte, (512-len(records)%512)%512)...)
	content := rawTar("a", func(h []byte) { copy(h[124:136], "00000000004\x00") })[:512]
	return append(append(append(append(head, body...), content...), append([]byte("data"), make([]byte, 508)...)...), make([]byte, 1024)...)
}

// largePAX has a record of 2 MiB before its file.
func largePAX() []byte {
	record := fmt.Sprintf("%d comment=%s\n", 2<<20, strings.Repeat("c", 2<<20-17))
	head := rawTar("pax", func(h []byte) {
		h[156] = 'x'
		copy(h[124:136], fmt.Sprintf("%011o\x00", len(record)))
	})[:512]
	return append(append(head, record...), rawTar("a", func([]byte) {})...)
}

func damaged(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 0x55
	return b
}

// fifo, socket and link make what a blob of a folder may not be.
func fifo(t *testing.T, path string) {
	if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o666)); err != nil {
		t.Fatal(err)
	}
}

func socket(t *testing.T, path string) {
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	// The name of a socket is short.
	dir := filepath.Dir(path)
	t.Chdir(dir)
	l, err := net.Listen("unix", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Rename("s", path); err != nil {
		t.Fatal(err)
	}
}
