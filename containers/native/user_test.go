package native

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUserOfBrokenRoot looks users up in roots that say nothing of them.
func TestUserOfBrokenRoot(t *testing.T) {
	for what, spoil := range map[string]func(path string) error{
		"missing": func(string) error { return nil },
		"a FIFO":  func(path string) error { return unix.Mkfifo(path, 0o644) },
		"a loop":  func(path string) error { return os.Symlink(filepath.Base(path), path) },
		"a folder": func(path string) error {
			return os.Mkdir(path, 0o755)
		},
		"enormous": func(path string) error {
			if err := os.WriteFile(path, []byte("root:x:0:0::/root:\n"), 0o644); err != nil {
				return err
			}
			return os.Truncate(path, 1<<40)
		},
		"one long line": func(path string) error {
			return os.WriteFile(path, []byte("root:x:0:0:"+strings.Repeat("x", 1<<20)), 0o644)
		},
		"nonsense": func(path string) error { return os.WriteFile(path, []byte("\x00\n:::::\n0\n:0:0\n"), 0o644) },
	} {
		root := t.TempDir()
		must(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
		must(t, spoil(filepath.Join(root, "etc/passwd")))
		must(t, spoil(filepath.Join(root, "etc/group")))
		fd := folderFD(t, root)
		for spec, want := range map[string][2]uint32{"": {0, 0}, "0": {0, 0}, "1000": {1000, 0}, "1000:50": {1000, 50}} {
			u, err := lookupUser(fd, spec, []string{"7"})
			if err != nil || u.uid != want[0] || u.gid != want[1] || len(u.groups) != 1 || u.groups[0] != 7 {
				t.Errorf("%s: user %q is %+v, %v", what, spec, u, err)
			}
		}
		for _, spec := range []string{"ann", "1000:staff", "-1", "99999999999"} {
			_, err := lookupUser(fd, spec, nil)
			if err == nil || strings.Count(err.Error(), "find") > 1 {
				t.Errorf("%s: user %q: %v", what, spec, err)
			}
		}
		if _, err := lookupUser(fd, "0", []string{"staff"}); err == nil {
			t.Errorf("%s: there is a group", what)
		}
	}
}

// TestUserOfLargeNumbers: a root's own files name no user that 32 bits would
// make another one.
func TestUserOfLargeNumbers(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("most:x:2147483647:2147483647::/:\nmore:x:2147483648:1::/:\n"+
		"none:x:4294967295:1::/:\nroot2:x:4294967296:1::/:\nminus:x:-1:1::/:\ngid:x:1:4294967296::/:\nmember:x:1:1::/:\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "etc/group"), []byte("huge:x:4294967296:member\n"), 0o644))
	fd := folderFD(t, root)
	if u, err := lookupUser(fd, "most", nil); err != nil || u.uid != 2147483647 || u.gid != 2147483647 {
		t.Errorf("most is %+v, %v", u, err)
	}
	for _, spec := range []string{"more", "none", "root2", "minus", "gid", "member", "most:huge"} {
		if u, err := lookupUser(fd, spec, nil); err == nil {
			t.Errorf("%s is %+v", spec, u)
		}
	}
}
