package image

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A file is its owner's before it has its name, and no link is followed to another.
func TestReplaceFile(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it gives files owners")
	}
	dir := t.TempDir()
	name, other := filepath.Join(dir, "out"), filepath.Join(dir, "other")
	if err := errors.Join(os.WriteFile(other, []byte("kept"), 0o600), os.Symlink(other, name)); err != nil {
		t.Fatal(err)
	}
	owner := Owner{4711, 4712}
	err := ReplaceFile(name, 0o640, owner, func(w io.Writer, temporary string) error {
		if _, err := os.Lstat(temporary); err != nil {
			t.Error(err)
		}
		_, err := io.WriteString(w, "new")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	if is := st.Sys().(*syscall.Stat_t); st.Mode() != 0o640 || is.Uid != 4711 || is.Gid != 4712 {
		t.Errorf("it has mode %v, owner %d:%d", st.Mode(), is.Uid, is.Gid)
	}
	if st, err := os.Lstat(other); err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("what the link led to: %v, %v", st, err)
	}
	failed := errors.New("failed")
	if err := ReplaceFile(name, 0o640, owner, func(io.Writer, string) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(name); err != nil || string(text) != "new" {
		t.Errorf("after an error it has %q, %v", text, err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 2 {
		t.Errorf("left: %v, %v", all, err)
	}
}
