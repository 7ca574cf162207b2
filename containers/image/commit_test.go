package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// overlayOn mounts an overlay of an image's layers until the test's end, with a
// writable layer where there is a folder for it.
func overlayOn(t *testing.T, s *Store, i *Image, writable string) (root string) {
	t.Helper()
	root = t.TempDir()
	var lower []string
	for n := range i.Layers {
		lower = append([]string{s.Tree(&i.Layers[n])}, lower...)
	}
	options := "redirect_dir=on,metacopy=off,index=off,lowerdir=" + strings.Join(lower, ":")
	if writable != "" {
		for _, dir := range []string{"upper", "work"} {
			if err := os.MkdirAll(filepath.Join(writable, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		options += ",upperdir=" + writable + "/upper,workdir=" + writable + "/work"
	} else {
		options += ":" + t.TempDir() // one layer alone is refused
	}
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	return root
}

// treeOf describes all of a tree that an image carries.
func treeOf(t *testing.T, root string) string {
	t.Helper()
	var lines []string
	first := map[inode]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		line := fmt.Sprintf("%s %o %d:%d %d.%09d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			key := inode{uint64(st.Dev), st.Ino}
			if st.Nlink > 1 && first[key] == "" {
				first[key] = name
			}
			line += fmt.Sprintf(" %d %x %s sparse=%v", st.Size, sha256.Sum256(b), first[key], st.Blocks*512 < st.Size)
		case unix.S_IFLNK:
			to, _ := os.Readlink(path)
			line += " -> " + to
		}
		list := make([]byte, 4096)
		n, err := unix.Llistxattr(path, list)
		if err != nil {
			return err
		}
		keys := splitZero(string(list[:n]))
		slices.Sort(keys)
		for _, key := range keys {
			value := make([]byte, 4096)
			n, err := unix.Lgetxattr(path, key, value)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %s=%x", key, value[:n])
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// capability is cap_net_raw=ep as the kernel keeps it (linux/capability.h,
// vfs_cap_data).
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// change does to a tree all that a layer has a form for.
func changeTree(t *testing.T, root string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(root, name) }
	for _, step := range []struct {
		what string
		err  error
	}{
		{"delete", os.Remove(at("bin/b"))},
		{"delete all", os.RemoveAll(at("gone"))},
		{"opaque", errors.Join(os.RemoveAll(at("old")), os.Mkdir(at("old"), 0o711), os.WriteFile(at("old/z"), []byte("z"), 0o640))},
		{"file to dir", errors.Join(os.Remove(at("turn")), os.MkdirAll(at("turn/in/it"), 0o750))},
		{"dir to link", errors.Join(os.RemoveAll(at("turn2")), os.Symlink("bin/a", at("turn2")))},
		{"hard links", errors.Join(os.WriteFile(at("h1"), []byte("links"), 0o600), os.Link(at("h1"), at("bin/h2")), os.Link(at("h1"), at("old/h3")))},
		{"link link", errors.Join(os.Symlink("/nowhere/é", at("s1")), os.Link(at("s1"), at("s2")))},
		{"setuid, owner", errors.Join(os.WriteFile(at("bin/su"), []byte("su"), 0o600), os.Chown(at("bin/su"), 12, 34567), unix.Chmod(at("bin/su"), 0o6755))},
		{"mode alone", os.Chmod(at("bin/a"), 0o511)},
		{"capability", errors.Join(os.WriteFile(at("bin/ping"), []byte("p"), 0o755), unix.Setxattr(at("bin/ping"), "security.capability", []byte(capability), 0))},
		{"attributes", errors.Join(unix.Setxattr(at("bin/ping"), "user.note", []byte("a\x00b\n"), 0), unix.Setxattr(at("old"), "trusted.mine", []byte("t"), 0),
			unix.Lsetxattr(at("s1"), "trusted.link", []byte("l"), 0))},
		{"FIFO", unix.Mkfifo(at("fifo"), 0o622)},
		{"empty name", os.WriteFile(at(" "), nil, 0o644)},
		{"long name", errors.Join(os.MkdirAll(at(strings.Repeat("d", 200)), 0o755), os.WriteFile(at(strings.Repeat("d", 200)+"/"+strings.Repeat("f", 250)), []byte("l"), 0o644))},
		{"rename", os.Rename(at("lib"), at("opt-lib"))},
		{"then more", errors.Join(os.WriteFile(at("opt-lib/new"), []byte("n"), 0o644), os.Remove(at("opt-lib/sub/two")))},
		{"times", os.Chtimes(at("bin"), time.Unix(1, 2), time.Unix(3, 4))},
	} {
		if step.err != nil {
			t.Fatalf("%s: %v", step.what, step.err)
		}
	}
}

func TestCommit(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	m := makeImage(t, v1.Config{Cmd: []string{"/bin/a"}, Env: []string{"A=1"}},
		makeTar(t, folder("bin", 0o755), file("bin/a", "one"), file("bin/b", "two"), folder("old", 0o755), file("old/x", "x"), folder("gone", 0o700), file("gone/f", "f"),
			file("turn", "t"), folder("turn2", 0o755), file("turn2/in", "i"), folder("lib", 0o751), file("lib/one", "1"), folder("lib/sub", 0o755), file("lib/sub/two", "2"),
			folder("etc", 0o755), file("etc/hosts", "theirs")),
		makeTar(t, file("lib/sub/three", "3"), file("lib/four", "4"), hard("lib/five", "lib/one")))
	base, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/base:latest"})
	if err == nil {
		err = s.Unpack(ctx, base, AddOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	writable := t.TempDir()
	first := overlayOn(t, s, base, writable)
	changeTree(t, first)
	sparse, err := os.Create(filepath.Join(first, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = sparse.WriteAt([]byte("end"), 20<<20)
	if err = errors.Join(err, sparse.Close()); err != nil {
		t.Fatal(err)
	}
	want := treeOf(t, first)
	// What is no part of an image.
	for name, err := range map[string]error{
		"etc/hosts": os.WriteFile(filepath.Join(first, "etc/hosts"), []byte("ours"), 0o644),
		"sock":      unix.Mknod(filepath.Join(first, "sock"), unix.S_IFSOCK|0o600, 0),
		"node":      unix.Mknod(filepath.Join(first, "node"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))),
		".wh.bin":   os.WriteFile(filepath.Join(first, ".wh.bin"), nil, 0o644),
	} {
		if err != nil {
			t.Fatal(name, err)
		}
	}
	if r, err := os.ReadFile(writable + "/upper/opt-lib/four"); err == nil {
		t.Fatalf("the renamed folder was copied: %q", r)
	}
	dir := func(path string) *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	w := &containers.Written{Changes: dir(writable + "/upper"), Whole: []containers.Part{{Dir: dir(first)}}}
	var notices []string
	commit := func() *Image {
		notices = nil
		i, err := s.Commit(ctx, w, CommitOptions{Name: "docker.io/library/made:latest", Base: base, Changes: []string{`CMD ["/bin/su"]`}, Comment: "why",
			Created: time.Unix(1700000000, 0), Skip: []string{"etc/hosts"}, Notice: func(text string) { notices = append(notices, text) }})
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	made := commit()
	if got := strings.Join(notices, "\n"); len(notices) != 3 || !strings.Contains(got, `the socket "sock"`) || !strings.Contains(got, `the device node "node"`) || !strings.Contains(got, `".wh.bin"`) {
		t.Errorf("notices: %s", got)
	}
	if again := commit(); again.Digest != made.Digest {
		t.Error("the same changes give another image")
	}
	c := made.Config
	if len(made.Layers) != 3 || made.Layers[1] != base.Layers[1] || c.Config.Cmd[0] != "/bin/su" || c.Config.Env[0] != "A=1" || c.History[len(c.History)-1].Comment != "why" {
		t.Errorf("got %+v", c)
	}
	second := overlayOn(t, s, made, "")
	if got := treeOf(t, second); withoutTimes(got) != withoutTimes(want) {
		t.Errorf("the tree is another:\n%s", differing(got, want))
	}
	if b, err := os.ReadFile(second + "/etc/hosts"); err != nil || string(b) != "theirs" {
		t.Errorf("etc/hosts: %q, %v", b, err)
	}

	// The root as a whole, as one layer.
	all, err := s.Commit(ctx, w, CommitOptions{Created: time.Unix(1, 0), Config: v1.Config{Cmd: []string{"/x"}}, Skip: []string{"etc/hosts", ".wh.bin"}})
	if err != nil || len(all.Layers) != 1 || all.Config.Config.Cmd[0] != "/x" {
		t.Fatalf("got %+v, %v", all, err)
	}
	want = strings.Replace(want, "\netc/hosts", "\nskipped", 1)
	if got := treeOf(t, s.Tree(&all.Layers[0])); withoutTimes(got) != withoutTimes(want) {
		t.Errorf("the whole tree is another:\n%s", differing(got, want))
	}
}

// A root of several parts, as that of the machine's own programs.
func TestCommitParts(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	w := &containers.Written{}
	for _, p := range []struct{ at, file string }{{"", "top"}, {"usr", "bin"}, {"etc", "conf"}} {
		dir := t.TempDir()
		for name, content := range map[string]string{p.file: p.at + "!", "usr/hidden": "x"} {
			if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w.Whole = append(w.Whole, containers.Part{At: p.at, Dir: f})
	}
	i, err := s.Commit(ctx, w, CommitOptions{Created: time.Unix(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.SplitSeq(treeOf(t, s.Tree(&i.Layers[0])), "\n") {
		name, _, _ := strings.Cut(line, " ")
		got = append(got, name)
	}
	if want := ". etc etc/conf etc/usr etc/usr/hidden top usr usr/bin usr/usr usr/usr/hidden"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	w.Changes = w.Whole[0].Dir
	if _, err := s.Commit(ctx, w, CommitOptions{Check: func() error { return errors.New("it went on") }}); err == nil || !strings.Contains(err.Error(), "it went on") {
		t.Errorf("got %v", err)
	}
}

// withoutTimes leaves out the times of the two folders that the test itself
// wrote to after it had looked, and what it put there.
func withoutTimes(tree string) string {
	var kept []string
	for line := range strings.SplitSeq(tree, "\n") {
		name, rest, _ := strings.Cut(line, " ")
		switch name {
		case ".", "etc":
			fields := strings.SplitN(rest, " ", 4)
			line = name + strings.Join(fields[:2], " ") + strings.Join(fields[3:], "")
		case "skipped", "etc/hosts":
			continue
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "\n")
}

func differing(got, want string) string {
	var out []string
	for line := range strings.SplitSeq(got, "\n") {
		if !strings.Contains("\n"+want+"\n", "\n"+line+"\n") {
			out = append(out, "+ "+line)
		}
	}
	for line := range strings.SplitSeq(want, "\n") {
		if !strings.Contains("\n"+got+"\n", "\n"+line+"\n") {
			out = append(out, "- "+line)
		}
	}
	return strings.Join(out, "\n")
}

// TestCommitHoles refuses a file of holes by its size: nobody waits until they are
// read while a station is paused.
func TestCommitHoles(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "holes"), nil, 0o600), os.Truncate(filepath.Join(dir, "holes"), 10<<40)); err != nil {
		t.Skip(err) // the file system has no such files
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = s.Commit(ctx, &containers.Written{Whole: []containers.Part{{Dir: root}}}, CommitOptions{Name: "docker.io/library/a:1"})
	if err == nil || !strings.Contains(err.Error(), `"holes": it is more than a layer may hold`) {
		t.Errorf("got %v", err)
	}
}
