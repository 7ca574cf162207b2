package native

import (
	"archive/tar"
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// exchanger exchanges pairs of names in a folder all the time, until it is
// stopped; it tells how often.
func exchanger(t *testing.T, dir string, pairs ...[2]string) (count *atomic.Int64, stop func()) {
	t.Helper()
	count = new(atomic.Int64)
	var ended atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !ended.Load() {
			for _, p := range pairs {
				if unix.Renameat2(unix.AT_FDCWD, dir+"/"+p[0], unix.AT_FDCWD, dir+"/"+p[1], unix.RENAME_EXCHANGE) == nil {
					count.Add(1)
				}
			}
		}
	}()
	return count, func() { ended.Store(true); <-done }
}

// outside is a folder that nothing may be read from or written to.
func outside(t *testing.T) (dir string, untouched func()) {
	t.Helper()
	dir = t.TempDir()
	must(t, os.MkdirAll(dir+"/below", 0o755))
	for _, name := range []string{"f", "below/f"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("CANARY"), 0o600))
	}
	must(t, os.Chown(dir+"/below", 77, 77))
	before := describe(t, dir)
	return dir, func() {
		t.Helper()
		if d := cmp.Diff(before, describe(t, dir)); d != "" {
			t.Errorf("outside (-before +after):\n%s", d)
		}
	}
}

const exchanges = 20000

// TestCopyOutExchanged copies out of a root in which folders and files are
// exchanged for links to the outside, and files for FIFOs, all the time
// (CVE-2018-15664).
func TestCopyOutExchanged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	out, untouched := outside(t)
	root := t.TempDir()
	up := strings.Repeat("../", 20) + out
	must(t, os.MkdirAll(root+"/data/a/below", 0o755))
	must(t, os.WriteFile(root+"/data/a/f", []byte("inside"), 0o644))
	must(t, os.WriteFile(root+"/data/a/below/f", []byte("inside"), 0o644))
	must(t, os.Symlink(up, root+"/data/b"))
	must(t, os.WriteFile(root+"/data/c", []byte("inside"), 0o644))
	must(t, os.Symlink(up+"/f", root+"/data/d"))
	must(t, os.WriteFile(root+"/data/e", []byte("inside"), 0o644))
	must(t, unix.Mkfifo(root+"/data/g", 0o666))
	must(t, unix.Mknod(root+"/data/h", unix.S_IFCHR|0o666, int(unix.Mkdev(5, 0))))
	count, stop := exchanger(t, root+"/data", [2]string{"a", "b"}, [2]string{"c", "d"}, [2]string{"e", "g"}, [2]string{"e", "h"})
	defer stop()
	to, copied := t.TempDir(), 0
	for i := 0; i < 25 || count.Load() < exchanges; i++ {
		for _, path := range []string{"/data", "/data/.", "/data/a", "/data/a/below", "/data/a/f", "/data/a/below/f", "/data/c", "/data/e"} {
			must(t, os.RemoveAll(to))
			must(t, os.Mkdir(to, 0o755))
			if so, err := Copy(context.Background(), copyRoot(t, root, path), CopySide{Path: to}, CopyOptions{Archive: true, Follow: i%2 == 0}); err == nil {
				copied += so.Files
			}
			noCanary(t, to)
		}
	}
	untouched()
	t.Logf("%d files copied, %d exchanges", copied, count.Load())
	if copied == 0 {
		t.Error("nothing was copied at all")
	}
}

func noCanary(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		must(t, err)
		if !e.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		must(t, err)
		if string(b) != "inside" {
			t.Fatalf("%s holds %q", path, b)
		}
		return nil
	}))
}

// TestCopyInExchanged copies into a root in which folders and files are
// exchanged for links to the outside all the time.
func TestCopyInExchanged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	out, untouched := outside(t)
	root, from := t.TempDir(), t.TempDir()
	up := strings.Repeat("../", 20) + out
	must(t, os.MkdirAll(root+"/data/a/below", 0o755))
	must(t, os.Symlink(up, root+"/data/b"))
	must(t, os.WriteFile(root+"/data/f", []byte("old"), 0o644))
	must(t, os.Symlink(up+"/f", root+"/data/g"))
	must(t, os.MkdirAll(from+"/a/below", 0o755))
	must(t, os.Symlink("f", from+"/a/link"))
	must(t, unix.Mkfifo(from+"/a/fifo", 0o666))
	for _, name := range []string{"f", "a/f", "a/below/f"} {
		must(t, os.WriteFile(filepath.Join(from, name), []byte("inside"), 0o640))
	}
	must(t, os.Link(from+"/a/f", from+"/a/below/too"))
	for _, path := range []string{"f", "a", "a/f", "a/below", "a/link"} {
		must(t, os.Lchown(filepath.Join(from, path), 5, 6))
	}
	var archive bytes.Buffer
	_, err := CopyToTar(context.Background(), CopySide{Path: from + "/."}, &archive, CopyOptions{})
	must(t, err)
	count, stop := exchanger(t, root+"/data", [2]string{"a", "b"}, [2]string{"f", "g"})
	defer stop()
	copied := 0
	for i := 0; i < 25 || count.Load() < exchanges; i++ {
		for _, paths := range [][2]string{{"a", "/data"}, {"a/.", "/data/a"}, {"f", "/data/a/f"}, {"f", "/data/a/below"}, {"f", "/data/f"}, {"f", "/data"}} {
			so, err := Copy(context.Background(), CopySide{Path: from + "/" + paths[0]}, copyRoot(t, root, paths[1]), CopyOptions{Archive: true})
			if err == nil {
				copied += so.Files
			}
		}
		if _, err := CopyFromTar(context.Background(), bytes.NewReader(archive.Bytes()), copyRoot(t, root, "/data"), CopyOptions{Archive: true}); err == nil {
			copied++
		}
	}
	untouched()
	t.Logf("%d files copied, %d exchanges", copied, count.Load())
	if copied == 0 {
		t.Error("nothing was copied at all")
	}
}

// TestCopyExchangedWhenMade has whoever may write to the destination put other
// things in the place of what has just been made: those must not be given away.
func TestCopyExchangedWhenMade(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	from, count := t.TempDir(), 0
	must(t, os.Symlink("elsewhere", from+"/link"))
	must(t, os.Mkdir(from+"/folder", 0o755))
	for i := 0; i < 300 || count < 50; i++ {
		dir := filepath.Join(t.TempDir(), "d")
		must(t, os.MkdirAll(dir+"/treasury", 0o700))
		must(t, os.WriteFile(dir+"/treasury/f", nil, 0o600))
		must(t, os.WriteFile(dir+"/precious", []byte("precious"), 0o600))
		var ended atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			for !ended.Load() {
				entries, _ := os.ReadDir(dir)
				for _, e := range entries {
					for fresh, other := range map[string]string{".platelayer-": "precious", "folder": "treasury"} {
						if strings.HasPrefix(e.Name(), fresh) &&
							unix.Renameat2(unix.AT_FDCWD, dir+"/"+e.Name(), unix.AT_FDCWD, dir+"/"+other, unix.RENAME_EXCHANGE) == nil {
							count++
						}
					}
				}
			}
		}()
		_, _ = Copy(context.Background(), CopySide{Path: from + "/."}, copyRoot(t, dir, "/"), CopyOptions{UID: 1000, GID: 1000})
		ended.Store(true)
		<-done
		for _, e := range readDir(t, dir) {
			path := filepath.Join(dir, e.Name())
			var st unix.Stat_t
			must(t, unix.Lstat(path, &st))
			b, _ := os.ReadFile(path)
			_, full := os.Lstat(path + "/f")
			if (string(b) == "precious" || full == nil) && st.Uid != 0 {
				t.Fatalf("%s was given to %d", e.Name(), st.Uid)
			}
		}
	}
}

func TestCopyTar(t *testing.T) {
	tree := copyTree(t)
	var archive bytes.Buffer
	must(t, os.Remove(tree+"/sparse")) // a gigabyte in the archive
	f, err := os.Create(tree + "/sparse")
	must(t, err)
	must(t, f.Truncate(4<<20))
	_, err = f.WriteAt([]byte("here"), 2<<20)
	must(t, err)
	must(t, f.Close())
	moment := []unix.Timespec{{Sec: 1e9}, {Sec: 1e9}}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, tree, moment, 0))
	want := describe(t, tree)
	so, err := CopyToTar(context.Background(), CopySide{Path: tree}, &archive, CopyOptions{Archive: true})
	must(t, err)
	if so.Files != 11 {
		t.Errorf("counted %+v", so)
	}
	root := t.TempDir()
	_, err = CopyFromTar(context.Background(), &archive, copyRoot(t, root, "/"), CopyOptions{Archive: true})
	must(t, err)
	if d := cmp.Diff(want, describe(t, root+"/tree")); d != "" {
		t.Errorf("through an archive (-want +got):\n%s", d)
	}
}

// TestCopyTarTricks unpacks archives whose names try to leave the folder.
func TestCopyTarTricks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	out, untouched := outside(t)
	up := strings.Repeat("../", 20) + out
	file := func(name string) *tar.Header { return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	link := func(kind byte, name, to string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: kind, Linkname: to, Mode: 0o644}
	}
	for what, tc := range map[string]struct {
		headers []*tar.Header
		want    string // an error, or "" where it is to be confined
	}{
		"dots":                     {[]*tar.Header{file("../f")}, "the name leads out"},
		"dots within":              {[]*tar.Header{file("a/../../f")}, "the name leads out"},
		"dots at the end":          {[]*tar.Header{{Name: "a/..", Typeflag: tar.TypeDir, Mode: 0o777}}, "the name leads out"},
		"an absolute name":         {[]*tar.Header{file(out + "/f")}, "the name leads out"},
		"a link, then through it":  {[]*tar.Header{link(tar.TypeSymlink, "l", up), file("l/f")}, "cannot write"},
		"an absolute link":         {[]*tar.Header{link(tar.TypeSymlink, "l", out), file("l/f")}, "cannot write"},
		"a link to a link":         {[]*tar.Header{link(tar.TypeSymlink, "l", up), link(tar.TypeSymlink, "m", "l/below"), file("m/f")}, "cannot write"},
		"over a link":              {[]*tar.Header{link(tar.TypeSymlink, "l", up+"/f"), file("l")}, ""},
		"a folder over a link":     {[]*tar.Header{link(tar.TypeSymlink, "l", up), {Name: "l/", Typeflag: tar.TypeDir, Mode: 0o777}}, "something else of that name"},
		"a folder through a link":  {[]*tar.Header{link(tar.TypeSymlink, "l", up), {Name: "l/below", Typeflag: tar.TypeDir, Mode: 0o777}}, "cannot write"},
		"a hard link up":           {[]*tar.Header{link(tar.TypeLink, "l", up+"/f")}, "the name leads out"},
		"an absolute hard link":    {[]*tar.Header{link(tar.TypeLink, "l", out+"/f")}, "the name leads out"},
		"a hard link through one":  {[]*tar.Header{link(tar.TypeSymlink, "l", up), link(tar.TypeLink, "h", "l/f"), file("h")}, "there is no l/f to link to"},
		"a hard link to a link":    {[]*tar.Header{link(tar.TypeSymlink, "l", up+"/f"), link(tar.TypeLink, "h", "l"), file("h")}, ""},
		"magic links":              {[]*tar.Header{link(tar.TypeSymlink, "l", "/proc/self/root"+out), file("l/f")}, "cannot write"},
		"a device":                 {[]*tar.Header{{Name: "d", Typeflag: tar.TypeBlock, Devmajor: 254, Mode: 0o666}}, ""},
		"cut short":                {[]*tar.Header{{Name: "f", Typeflag: tar.TypeReg, Size: 100, Mode: 0o644}}, "cannot read archive:f: unexpected EOF"},
		"parents that are not in":  {[]*tar.Header{file("x/y/z")}, ""},
		"the folder itself":        {[]*tar.Header{{Name: "./", Typeflag: tar.TypeDir, Mode: 0o777, Uid: 5}, file("./f")}, ""},
		"a name that is not there": {[]*tar.Header{link(tar.TypeLink, "h", "none")}, "there is no none to link to"},
	} {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		for _, h := range tc.headers {
			must(t, w.WriteHeader(h))
		}
		_ = w.Close() // it complains of what is cut short
		root := t.TempDir()
		must(t, os.Mkdir(root+"/d", 0o755))
		_, err := CopyFromTar(context.Background(), &archive, copyRoot(t, root, "/d"), CopyOptions{Archive: true, Notice: func(string) {}})
		if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", what, err, tc.want)
		}
		if left := readDir(t, root); len(left) != 1 {
			t.Errorf("%s: left %v", what, left)
		}
		if info, err := os.Stat(root + "/d"); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: changed the folder: %v, %v", what, info.Mode(), err)
		}
	}
	untouched()
}
