package native

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// copyRoot is a folder that stands for a container's root.
func copyRoot(t *testing.T, dir, path string) CopySide {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	root := os.NewFile(uintptr(fd), dir)
	t.Cleanup(func() { root.Close() })
	return CopySide{Root: root, Path: path, Name: "a:"}
}

// describe tells all about a tree that a copy is to keep.
func describe(t *testing.T, top string) map[string]string {
	t.Helper()
	all, names := map[string]string{}, map[uint64]string{}
	must(t, filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		name, _ := filepath.Rel(top, path)
		said := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			must(t, err)
			said += " -> " + target
		case unix.S_IFREG:
			f, err := os.Open(path)
			must(t, err)
			defer f.Close()
			if st.Size < 1<<24 {
				b, err := os.ReadFile(path)
				must(t, err)
				said += fmt.Sprintf(" %x", sha256.Sum256(b))
			}
			s := &copySource{fd: int(f.Fd()), it: &copyItem{size: st.Size}}
			for at := int64(0); at < st.Size; {
				data, hole, err := s.extent(at)
				must(t, err)
				said += fmt.Sprintf(" [%d,%d)", data, hole)
				at = hole
			}
			attrs, err := readAttrs(int(f.Fd()), copiedAttr)
			must(t, err)
			slices.SortFunc(attrs, func(a, b copyAttr) int { return strings.Compare(a.name, b.name) })
			said += fmt.Sprintf(" %q", attrs)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			if first, ok := names[st.Ino]; ok {
				said += " also " + first
			} else {
				names[st.Ino] = name
			}
		}
		all[name] = said
		return nil
	}))
	return all
}

// copyTree makes a folder with one of everything.
func copyTree(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	top := filepath.Join(t.TempDir(), "tree")
	in := func(name string) string { return filepath.Join(top, name) }
	must(t, os.MkdirAll(in("folder/locked"), 0o755))
	must(t, os.WriteFile(in("plain"), []byte("plain\n"), 0o640))
	must(t, os.WriteFile(in("empty"), nil, 0o444))
	must(t, os.WriteFile(in("folder/locked/-odd\n\x1b[1m name"), []byte("odd"), 0o600))
	must(t, os.WriteFile(in("set"), []byte("#!/bin/sh\n"), 0o755))
	must(t, os.Chown(in("set"), 1000, 50))
	must(t, unix.Chmod(in("set"), 0o6751))
	big := make([]byte, 3<<20)
	rand.Read(big)
	must(t, os.WriteFile(in("big"), big, 0o600))
	must(t, os.Link(in("big"), in("folder/big too")))
	must(t, os.Symlink("/etc/passwd", in("absolute")))
	must(t, os.Symlink("../nowhere", in("folder/relative")))
	must(t, os.Link(in("absolute"), in("folder/absolute too")))
	must(t, os.Lchown(in("folder/relative"), 7, 8))
	must(t, unix.Mkfifo(in("fifo"), 0o622))
	must(t, os.Chown(in("fifo"), 9, 10))
	f, err := os.Create(in("sparse"))
	must(t, err)
	must(t, f.Truncate(1<<30))
	for _, at := range []int64{8 << 20, 500 << 20} {
		_, err := f.WriteAt([]byte("here"), at)
		must(t, err)
	}
	must(t, f.Close())
	if err := unix.Setxattr(in("plain"), "user.kind", []byte("x"), 0); err != unix.EOPNOTSUPP { // as a tmpfs before Linux 6.6
		must(t, err)
	}
	must(t, unix.Setxattr(in("plain"), "trusted.secret", []byte("x"), 0))
	// cap_net_raw+ep: struct vfs_cap_data of linux/capability.h, version 2.
	must(t, unix.Setxattr(in("empty"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(t, os.Chmod(in("folder/locked"), 0o555))
	must(t, os.Chown(in("folder"), 3, 4))
	must(t, unix.Chmod(in("folder"), 0o2711))
	for i, name := range []string{"plain", "absolute", "fifo", "sparse", "folder/relative", "folder/locked", "folder", "."} {
		moment := []unix.Timespec{{Sec: 1e9, Nsec: 1}, {Sec: 1e9 + int64(i), Nsec: 123456789}}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in(name), moment, unix.AT_SYMLINK_NOFOLLOW))
	}
	return top
}

// deepTree makes folders, each in the one before.
func deepTree(t *testing.T, top string, depth int) {
	t.Helper()
	fd, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range depth {
		must(t, unix.Mkdirat(fd, "deep", 0o755))
		next, err := unix.Openat(fd, "deep", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		closeFD(fd)
		fd = next
	}
	closeFD(fd)
}

// TestCopyDeep refuses what is too deep with few words, and copies what is not.
func TestCopyDeep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	tree, root := t.TempDir(), t.TempDir()
	deepTree(t, tree, maxCopyDepth-1)
	so, err := Copy(context.Background(), CopySide{Path: tree + "/."}, copyRoot(t, root, "/"), CopyOptions{})
	if err != nil || so.Folders != maxCopyDepth-1 {
		t.Errorf("copied %+v: %v", so, err)
	}
	tree = t.TempDir()
	deepTree(t, tree, 2*maxCopyDepth)
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || len(err.Error()) > 500 || !strings.Contains(err.Error(), "it lies in more than 1000 folders") {
			t.Errorf("%s: %v", what, err)
		}
	}
	so, err = Copy(context.Background(), CopySide{Path: tree}, copyRoot(t, t.TempDir(), "/"), CopyOptions{})
	refused("copy", err)
	if so.Folders != maxCopyDepth {
		t.Errorf("copied %+v", so)
	}
	_, err = CopyToTar(context.Background(), CopySide{Path: tree}, io.Discard, CopyOptions{})
	refused("archive", err)
	volume := t.TempDir()
	refused("fill", fill(context.Background(), folderFD(t, tree), folderFD(t, volume), "/srv"))
	if found, err := os.ReadDir(volume); err != nil || len(found) > 0 {
		t.Errorf("the volume has %v, %v", found, err)
	}
}

func TestCopyArchive(t *testing.T) {
	tree := copyTree(t)
	want := describe(t, tree)
	if len(want) != 14 || !strings.Contains(want["folder/big too"], " also big") || strings.Count(want["sparse"], "[") < 2 {
		t.Fatalf("the tree is not as it should be: %q", want)
	}
	root, back := t.TempDir(), t.TempDir()
	so, err := Copy(context.Background(), CopySide{Path: tree}, copyRoot(t, root, "/"), CopyOptions{Archive: true})
	must(t, err)
	if d := cmp.Diff(want, describe(t, root+"/tree")); d != "" {
		t.Errorf("in (-want +got):\n%s", d)
	}
	if so.Files != 11 || so.Bytes < 3<<20 || so.Bytes > 4<<20 {
		t.Errorf("counted %+v", so)
	}
	// Over what is there already, all is the same again and nothing is left.
	for range 2 {
		_, err = Copy(context.Background(), copyRoot(t, root, "/tree/."), CopySide{Path: back}, CopyOptions{Archive: true})
		must(t, err)
		got := describe(t, back)
		got["."] = want["."] // it was there before the first
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("out (-want +got):\n%s", d)
		}
	}
	if n, err := unix.Getxattr(back+"/plain", "trusted.secret", nil); err != unix.ENODATA {
		t.Errorf("a trusted attribute was copied: %d, %v", n, err)
	}
}

func TestCopyOwners(t *testing.T) {
	tree := copyTree(t)
	to := t.TempDir()
	var notices []string
	_, err := Copy(context.Background(), copyRoot(t, filepath.Dir(tree), "tree"), CopySide{Path: to},
		CopyOptions{UID: 1234, GID: 5678, DropSetID: true, Notice: func(s string) { notices = append(notices, s) }})
	must(t, err)
	for name, said := range describe(t, to+"/tree") {
		if !strings.Contains(said, " 1234:5678 ") {
			t.Errorf("%s: %s", name, said)
		}
		if name == "set" && !strings.HasPrefix(said, "100751 ") {
			t.Errorf("set-ID bits: %s", said)
		}
		if strings.Contains(said, "user.kind") || strings.Contains(said, "security") {
			t.Errorf("attributes: %s", said)
		}
	}
	if d := cmp.Diff([]string{"without the set-ID bits: a:tree/set; -a keeps them"}, notices); d != "" {
		t.Error(d)
	}
	to = t.TempDir()
	_, err = Copy(context.Background(), CopySide{Path: tree}, copyRoot(t, to, "/"), CopyOptions{})
	must(t, err)
	if said := describe(t, to+"/tree")["set"]; !strings.HasPrefix(said, "106751 0:0 ") {
		t.Errorf("set-ID bits into a root: %s", said)
	}
}

// TestCopyMerge copies into a folder that has some of it already.
func TestCopyMerge(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(from+"/d/sub", 0o700))
	must(t, os.WriteFile(from+"/d/sub/new", []byte("new"), 0o600))
	must(t, os.WriteFile(from+"/d/file", []byte("changed"), 0o600))
	must(t, os.MkdirAll(to+"/d/sub", 0o755))
	must(t, unix.Chmod(to+"/d/sub", 0o1777))
	must(t, os.WriteFile(to+"/d/sub/old", []byte("old"), 0o600))
	must(t, os.WriteFile(to+"/other", []byte("other"), 0o600))
	must(t, os.Link(to+"/other", to+"/d/file"))
	opened, err := os.Open(to + "/other")
	must(t, err)
	defer opened.Close()
	_, err = Copy(context.Background(), CopySide{Path: from + "/d"}, copyRoot(t, to, "/"), CopyOptions{})
	must(t, err)
	for name, want := range map[string]string{"d/sub/new": "new", "d/sub/old": "old", "d/file": "changed", "other": "other"} {
		if b, err := os.ReadFile(to + "/" + name); string(b) != want {
			t.Errorf("%s: got %q, %v", name, b, err)
		}
	}
	if info, err := os.Stat(to + "/d/sub"); err != nil || info.Mode().Perm()|info.Mode()&fs.ModeSticky != fs.ModeSticky|0o777 {
		t.Errorf("the folder's mode was changed: %v, %v", info.Mode(), err)
	}
	for name, make := range map[string]func(string) error{
		"a link":      func(p string) error { return os.Symlink("sub", p) },
		"a file":      func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"a dead link": func(p string) error { return os.Symlink("none", p) },
	} {
		clash := t.TempDir()
		must(t, os.Mkdir(clash+"/d", 0o755))
		must(t, make(clash+"/d/sub"))
		_, err := Copy(context.Background(), CopySide{Path: from + "/d"}, copyRoot(t, clash, "/"), CopyOptions{})
		if err == nil || !strings.Contains(err.Error(), "cannot write a:/d/sub: there is something else of that name") {
			t.Errorf("a folder over %s: %v", name, err)
		}
	}
}

func TestCopyDestinations(t *testing.T) {
	from := t.TempDir()
	must(t, os.WriteFile(from+"/f", []byte("f"), 0o644))
	must(t, os.MkdirAll(from+"/d/e", 0o755))
	must(t, os.WriteFile(from+"/d/g", []byte("g"), 0o644))
	must(t, os.Symlink("f", from+"/l"))
	must(t, os.Symlink("d", from+"/ld"))
	for _, tc := range []struct {
		source, destination string
		follow              bool
		want                string // a path below the root that is then there, or an error
	}{
		{source: "f", destination: "/", want: "f"},
		{source: "f", destination: "/folder", want: "folder/f"},
		{source: "f", destination: "/folder/", want: "folder/f"},
		{source: "f", destination: "/folder/.", want: "folder/f"},
		{source: "f", destination: "/new", want: "new"},
		{source: "f", destination: "new", want: "new"},
		{source: "f", destination: "/../../new", want: "new"},
		{source: "f", destination: "/file", want: "file"},
		{source: "f", destination: "/tolink", want: "folder/f"},
		{source: "f", destination: "/tofile", want: "file"},
		{source: "f", destination: "/dangling", want: "folder/made"},
		{source: "f", destination: "/chain", want: "folder/made"},
		{source: "f", destination: "/upwards", want: "made"},
		{source: "f", destination: "/new/", want: "no such folder"},
		{source: "f", destination: "/file/", want: "not a directory"},
		{source: "f", destination: "/none/new", want: "there is no folder a:/none/"},
		{source: "f", destination: "/loop", want: "too many levels"},
		{source: "f", destination: "/loop/new", want: "too many levels"},
		{source: "f", destination: "/taken", want: "there is a folder of that name"},
		{source: "d", destination: "/folder", want: "folder/d/g"},
		{source: "d/", destination: "/folder", want: "folder/d/g"},
		{source: "d/.", destination: "/folder", want: "folder/g"},
		{source: "d", destination: "/new", want: "new/g"},
		{source: "d", destination: "/new/", want: "new/g"},
		{source: "d/.", destination: "/new", want: "new/e"},
		{source: "d/e/..", destination: "/folder", want: "folder/d/g"},
		{source: "d", destination: "/file", want: "cannot copy a folder over a:/file"},
		{source: "d/.", destination: "/file", want: "cannot copy a folder over a:/file"},
		{source: "d", destination: "/none/new", want: "there is no folder a:/none/"},
		{source: "l", destination: "/new", want: "new -> f"},
		{source: "l", destination: "/folder", follow: true, want: "folder/l"},
		{source: "ld", destination: "/new", want: "new -> d"},
		{source: "ld/", destination: "/new", want: "new/g"},
		{source: "ld", destination: "/new", follow: true, want: "new/g"},
		{source: "f/", destination: "/new", want: "not a directory"},
		{source: "f/.", destination: "/new", want: "not a directory"},
		{source: "none", destination: "/new", want: "no such file"},
	} {
		root := t.TempDir()
		must(t, os.Mkdir(root+"/folder", 0o755))
		must(t, os.MkdirAll(root+"/taken/f", 0o755))
		must(t, os.WriteFile(root+"/file", []byte("old"), 0o644))
		for link, target := range map[string]string{"tolink": "folder", "tofile": "/../file", "dangling": "folder/made", "chain": "/dangling",
			"loop": "loop", "upwards": "tolink/../made"} {
			must(t, os.Symlink(target, root+"/"+link))
		}
		_, err := Copy(context.Background(), CopySide{Path: from + "/" + tc.source}, copyRoot(t, root, tc.destination), CopyOptions{Follow: tc.follow})
		what := tc.source + " to " + tc.destination
		if strings.Contains(tc.want, " ") && !strings.Contains(tc.want, "->") {
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got %v, want %s", what, err, tc.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		name, target, link := strings.Cut(tc.want, " -> ")
		if got, err := os.Readlink(root + "/" + name); link && got != target {
			t.Errorf("%s: got %q, %v", what, got, err)
		}
		if b, err := os.ReadFile(root + "/" + name); !link && name != "new/e" && (err != nil || string(b) == "old") {
			t.Errorf("%s: got %q, %v", what, b, err)
		}
	}
}

func TestCopyLeftOut(t *testing.T) {
	from := copyTree(t)
	l, err := net.Listen("unix", from+"/socket")
	must(t, err)
	defer l.Close()
	must(t, unix.Mknod(from+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(from+"/disk", unix.S_IFBLK|0o666, int(unix.Mkdev(7, 255))))
	var notices []string
	o := CopyOptions{Notice: func(s string) { notices = append(notices, s) }}
	to := t.TempDir()
	_, err = Copy(context.Background(), CopySide{Path: from}, copyRoot(t, to, "/"), o)
	must(t, err)
	slices.Sort(notices)
	if d := cmp.Diff([]string{"skipped " + from + "/disk: it is a device", "skipped " + from + "/null: it is a device", "skipped " + from + "/socket: it is a socket"}, notices); d != "" {
		t.Error(d)
	}
	for _, name := range []string{"null", "disk", "socket"} {
		if _, err := os.Lstat(to + "/tree/" + name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was copied: %v", name, err)
		}
		if _, err := Copy(context.Background(), CopySide{Path: from + "/" + name}, copyRoot(t, to, "/"), o); err == nil {
			t.Errorf("%s by its own name: no error", name)
		}
	}
	for _, path := range []string{"/proc/self", "/proc/version", "/sys/kernel", "/proc/self/exe"} {
		_, err := Copy(context.Background(), CopySide{Path: path}, copyRoot(t, to, "/x"), o)
		if err == nil || !strings.Contains(err.Error(), "a file system of the kernel's own") {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

func TestCopyIntoItself(t *testing.T) {
	top := t.TempDir()
	must(t, os.MkdirAll(top+"/d/e", 0o755))
	for _, paths := range [][2]string{{"/d", "/d"}, {"/d", "/d/e"}, {"/d/.", "/d"}, {"/d", "/d/new"}, {"/", "/d/e"}, {"/", "/d/new"}} {
		_, err := Copy(context.Background(), copyRoot(t, top, paths[0]), copyRoot(t, top, paths[1]), CopyOptions{})
		if err == nil || !strings.Contains(err.Error(), "it is where the copy goes") {
			t.Errorf("%v: got %v", paths, err)
		}
	}
}

func TestCopyInterrupted(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(from+"/f", bytes.Repeat([]byte("x"), 8<<20), 0o644))
	must(t, os.WriteFile(to+"/f", []byte("before"), 0o644))
	ctx, cancel := context.WithCancel(context.Background())
	c := CopyOptions{Progress: func(so Copied, next string) {
		if so.Bytes > 0 {
			cancel()
		}
		time.Sleep(100 * time.Millisecond) // until it is told again
	}}
	if _, err := Copy(ctx, CopySide{Path: from + "/f"}, copyRoot(t, to, "/"), c); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(to + "/f"); string(b) != "before" {
		t.Errorf("got %d bytes, %v", len(b), err)
	}
	if left := readDir(t, to); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

// TestCopyWithoutName: a file that is not complete has no name which a killed
// program would leave behind, whether it replaces one or not.
func TestCopyWithoutName(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, name := range []string{"new", "old"} {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o640, Size: 3 << 20}))
		_, err := w.Write(bytes.Repeat([]byte("x"), 3<<20))
		must(t, err)
	}
	must(t, w.Close())
	dir, looks := t.TempDir(), 0
	must(t, os.WriteFile(filepath.Join(dir, "old"), []byte("old"), 0o600))
	look := readerFunc(func(b []byte) (int, error) {
		entries, err := os.ReadDir(dir)
		must(t, err)
		for _, e := range entries {
			if e.Name() != "new" && e.Name() != "old" {
				t.Errorf("there is %s meanwhile", e.Name())
			}
		}
		looks++
		return archive.Read(b)
	})
	_, err := CopyFromTar(t.Context(), look, copyRoot(t, dir, "/"), CopyOptions{})
	must(t, err)
	for _, name := range []string{"new", "old"} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if info.Size() != 3<<20 || info.Mode() != 0o640 {
			t.Errorf("%s has %d bytes and mode %s", name, info.Size(), info.Mode())
		}
	}
	if looks < 4 {
		t.Errorf("looked %d times", looks)
	}
}

type readerFunc func(b []byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
