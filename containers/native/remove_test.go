package native

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemoveDeep removes more folders in each other than there are descriptors,
// and nothing that a link in them leads to.
func TestRemoveDeep(t *testing.T) {
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "kept"), nil, 0o600))
	top := filepath.Join(t.TempDir(), "top")
	for _, branch := range []string{"a", "b"} {
		must(t, os.MkdirAll(filepath.Join(top, branch), 0o755))
		deepTree(t, filepath.Join(top, branch), 1500)
		must(t, os.Symlink(outside, filepath.Join(top, branch, "deep/deep/link")))
	}
	var before unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 400, Max: before.Max}))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &before)) }()
	must(t, RemoveAll(top))
	if _, err := os.Lstat(top); !os.IsNotExist(err) {
		t.Errorf("it is left: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(outside, "kept")); err != nil {
		t.Error(err)
	}
}
