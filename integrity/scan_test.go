package integrity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// openRoot opens a folder as an engine hands it over.
func openRoot(t testing.TB, dir string) *os.File {
	t.Helper()
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func link(t testing.TB, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, root *os.File, paths []string, m Manifest) []string {
	t.Helper()
	bad, err := Check(t.Context(), root, paths, m)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range bad {
		got = append(got, b.Path+" "+b.Reason)
	}
	return got
}

func TestLinksStayInRoot(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "root")
	write(t, outer, map[string]string{"secret": "outside"})
	write(t, dir, map[string]string{
		"secret":      "inside",
		"etc/app/a":   "a",
		"opt/conf/x":  "x",
		"opt/conf/y":  "y",
		"etc/other/z": "z",
	})
	app := filepath.Join(dir, "etc/app")
	link(t, "/secret", filepath.Join(app, "absolute"))
	link(t, "../../../../secret", filepath.Join(app, "dots"))
	link(t, filepath.Join(outer, "secret"), filepath.Join(app, "dangling"))
	link(t, "/opt/conf", filepath.Join(app, "conf"))
	link(t, ".", filepath.Join(app, "self"))
	link(t, "/etc", filepath.Join(app, "loop"))
	link(t, "circle", filepath.Join(dir, "circle"))
	link(t, "/proc/self/root/secret", filepath.Join(app, "magic"))
	root := openRoot(t, dir)
	m, err := Make(t.Context(), root, []string{"/etc/app"})
	if err != nil {
		t.Fatal(err)
	}
	want := Manifest{
		{"/etc/app/a", sumOf("a")},
		{"/etc/app/absolute", sumOf("inside")},
		{"/etc/app/conf/x", sumOf("x")},
		{"/etc/app/conf/y", sumOf("y")},
		{"/etc/app/dots", sumOf("inside")},
		// The link to /etc leads back to /etc/app, which is passed over.
		{"/etc/app/loop/other/z", sumOf("z")},
	}
	if d := cmp.Diff(want, m); d != "" {
		t.Error(d)
	}
	if _, err := Make(t.Context(), root, []string{"/circle"}); err == nil || !strings.Contains(err.Error(), "/circle") {
		t.Errorf("a circle of links: got %v", err)
	}
	if _, err := Make(t.Context(), root, []string{"/nothing", "/none"}); err == nil ||
		!strings.Contains(err.Error(), "/nothing") || !strings.Contains(err.Error(), "/none") {
		t.Errorf("missing paths: got %v", err)
	}
	for _, p := range []string{"relative", "/a/../b", "/a/"} {
		if _, err := Make(t.Context(), root, []string{p}); err == nil {
			t.Errorf("path %q is taken", p)
		}
	}
}

func TestCheckFindsEachChange(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"etc/a": "a", "etc/sub/b": "b", "srv/c": "c"})
	if err := os.MkdirAll(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	root := openRoot(t, dir)
	paths := []string{"/etc", "/srv/c", "/etc/sub", "/empty"}
	m, err := Make(t.Context(), root, paths)
	if err != nil {
		t.Fatal(err)
	}
	if got := check(t, root, paths, m); got != nil {
		t.Fatalf("unchanged, and bad: %v", got)
	}
	write(t, dir, map[string]string{"etc/a": "A", "etc/new": "", "empty/n": ""})
	link(t, "/srv/c", filepath.Join(dir, "etc/link"))
	link(t, "/nowhere", filepath.Join(dir, "etc/dangling"))
	if err := os.Remove(filepath.Join(dir, "srv/c")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "etc/sub"), filepath.Join(dir, "etc/moved")); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"/empty/n extra", "/etc/a changed", "/etc/moved/b extra", "/etc/new extra",
		"/etc/sub/b missing", "/srv/c missing",
	}
	if d := cmp.Diff(want, check(t, root, paths, m)); d != "" {
		t.Error(d)
	}
	write(t, dir, map[string]string{"nowhere": "now it resolves"})
	if got := check(t, root, paths, m); !slices.Contains(got, "/etc/dangling extra") {
		t.Errorf("a link that began to resolve is not extra: %v", got)
	}
}

func TestSpecialFilesAreNeverOpened(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"etc/a": "a", "etc/b": "b"})
	root := openRoot(t, dir)
	m, err := Make(t.Context(), root, []string{"/etc"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "etc/b")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc/b", "etc/fifo"} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(dir, "etc/socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := []string{"/etc/b unreadable", "/etc/fifo extra", "/etc/socket extra"}
	if d := cmp.Diff(want, check(t, root, []string{"/etc"}, m)); d != "" {
		t.Error(d)
	}
	_, err = Make(t.Context(), root, []string{"/etc"})
	if err == nil || !strings.Contains(err.Error(), "/etc/fifo: it is a FIFO") {
		t.Errorf("sealing a FIFO: got %v", err)
	}
}

func TestHostileNamesPassSha256sum(t *testing.T) {
	tool, err := exec.LookPath("sha256sum")
	if err != nil {
		t.Skip("needs sha256sum, of Debian's coreutils")
	}
	// The manifest's names are absolute in the root; for the tool to find the
	// files, the machine's root is the root here.
	dir := t.TempDir()
	files := map[string]string{}
	for i, name := range []string{"new\nline", `back\slash`, "-dash", "*star", " blank ", "cr\rend\r", "invalid\xff\xfe", "tab\t", `\n`, "# hash", "$(id)", "größe", `"`} {
		files[name] = fmt.Sprint(i)
	}
	write(t, dir, files)
	m, err := Make(t.Context(), openRoot(t, "/"), []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	if len(m) != len(files) {
		t.Fatalf("got %d entries, want %d", len(m), len(files))
	}
	manifest := filepath.Join(t.TempDir(), "m.sha256")
	if err := WriteManifestFile(manifest, m, -1, -1); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, "--strict", "-c", manifest).CombinedOutput()
	if err != nil {
		t.Fatalf("sha256sum does not take the manifest: %v\n%s", err, out)
	}
	args := []string{"-b"}
	for name := range files {
		args = append(args, filepath.Join(dir, name))
	}
	made, err := exec.Command(tool, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := Parse(strings.NewReader(string(made)))
	if err != nil {
		t.Fatal(err)
	}
	if got := check(t, openRoot(t, "/"), []string{dir}, theirs); got != nil {
		t.Errorf("what sha256sum made is bad: %v", got)
	}
}

func TestManyFiles(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{}
	for i := range 10_000 {
		files[fmt.Sprintf("%d/%d", i%100, i)] = fmt.Sprint(i)
	}
	write(t, dir, files)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 256
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	m, err := Make(t.Context(), openRoot(t, dir), []string{"/"})
	if err != nil {
		t.Fatal(err)
	}
	if len(m) != len(files) {
		t.Errorf("got %d entries, want %d", len(m), len(files))
	}
	for _, e := range m {
		if e.SHA256 != sumOf(files[e.Path[1:]]) {
			t.Fatalf("wrong checksum of %s", e.Path)
		}
	}
}

func TestDeepTreeIsBounded(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{strings.Repeat("d/", maxDepth+10) + "f": ""})
	_, err := Make(t.Context(), openRoot(t, dir), []string{"/d"})
	if err == nil || !strings.Contains(err.Error(), "folders deep") {
		t.Errorf("got %v", err)
	}
}

func TestScanEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": ""})
	if _, err := Check(ctx, openRoot(t, dir), []string{"/a"}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func benchmarkTree(b *testing.B, files int, size int64, tool bool) {
	dir := b.TempDir()
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprint(i%100))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), make([]byte, size), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	root := openRoot(b, "/")
	m, err := Make(b.Context(), root, []string{dir})
	if err != nil {
		b.Fatal(err)
	}
	manifest := filepath.Join(b.TempDir(), "m")
	if err := WriteManifestFile(manifest, m, -1, -1); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(files) * size)
	for b.Loop() {
		if tool {
			if out, err := exec.Command("sha256sum", "--quiet", "-c", manifest).CombinedOutput(); err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
			continue
		}
		bad, err := Check(b.Context(), root, []string{dir}, m)
		if err != nil || len(bad) > 0 {
			b.Fatal(err, bad)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	for _, c := range []struct {
		name string
		tool bool
	}{{"platelayer", false}, {"sha256sum", true}} {
		b.Run("20000x4KiB/"+c.name, func(b *testing.B) { benchmarkTree(b, 20_000, 4<<10, c.tool) })
		b.Run("1x1GiB/"+c.name, func(b *testing.B) { benchmarkTree(b, 1, 1<<30, c.tool) })
	}
}
