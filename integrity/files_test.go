package integrity

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestManifestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "seals/web/www1.sha256")
	var missing *NoManifest
	if _, err := ReadManifestFile(path); !errors.As(err, &missing) || missing.Path != path || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v, want NoManifest", err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 1234, 1235
	}
	for range 2 {
		if err := WriteManifestFile(path, Manifest{{"/a", zeros}}, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{path, filepath.Join(dir, "seals"), filepath.Join(dir, "seals/web")} {
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			t.Fatal(err)
		}
		if int(st.Uid) != uid || int(st.Gid) != gid {
			t.Errorf("%s belongs to %d:%d", p, st.Uid, st.Gid)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("something is left beside the manifest: %v", entries)
	}
	m, err := ReadManifestFile(path)
	if err != nil || len(m) != 1 {
		t.Fatal(m, err)
	}
}

func TestWriteManifestReplacesLink(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"victim": "mine"})
	path := filepath.Join(dir, "m")
	link(t, "victim", path)
	if err := WriteManifestFile(path, nil, -1, -1); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "victim")); string(text) != "mine" {
		t.Errorf("the link was followed: %q", text)
	}
}

func TestAppendLog(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "integrity.log")
	if err := AppendLog(path, -1, -1, []string{"one", "two\nforged"}); err != nil {
		t.Fatal(err)
	}
	if err := AppendLog(path, -1, -1, []string{"three"}); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(path); string(text) != "one\ntwo\\nforged\nthree\n" {
		t.Errorf("got %q", text)
	}
}

func TestAppendLogRefuses(t *testing.T) {
	for name, trap := range map[string]func(t *testing.T, path, victim string) error{
		"link":      func(_ *testing.T, path, victim string) error { return os.Symlink(victim, path) },
		"dangling":  func(_ *testing.T, path, victim string) error { return os.Symlink(victim+"x", path) },
		"hard link": func(_ *testing.T, path, victim string) error { return os.Link(victim, path) },
		"folder":    func(_ *testing.T, path, _ string) error { return os.Mkdir(path, 0o755) },
		"fifo":      func(_ *testing.T, path, _ string) error { return unix.Mkfifo(path, 0o644) },
		"read fifo": func(t *testing.T, path, _ string) error {
			if err := unix.Mkfifo(path, 0o644); err != nil {
				return err
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			t.Cleanup(func() { f.Close() })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"victim": "mine"})
			victim := filepath.Join(dir, "victim")
			path := filepath.Join(dir, "integrity.log")
			if err := trap(t, path, victim); err != nil {
				t.Fatal(err)
			}
			err := AppendLog(path, -1, -1, []string{"x"})
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
			if text, _ := os.ReadFile(victim); string(text) != "mine" {
				t.Errorf("the victim reads %q", text)
			}
			if _, err := os.Lstat(victim + "x"); err == nil {
				t.Error("a dangling link was written through")
			}
		})
	}
}
