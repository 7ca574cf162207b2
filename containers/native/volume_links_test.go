package native

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"platelayer/containers"
)

// A source that must have no links is not opened through one.
func TestNoLinks(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "real"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "real/mark"), []byte("here\n"), 0o644))
	must(t, os.Symlink("real", filepath.Join(dir, "link")))
	root := busyboxRoot(t)
	must(t, os.Symlink(root, filepath.Join(dir, "root")))
	for _, c := range []struct {
		source, root string
		problem      string
	}{
		{dir + "/real", root, ""},
		{dir + "/real/mark", root, ""},
		{dir + "/link", root, "there is a link in it now"},
		{dir + "/link/mark", root, "there is a link in it now"},
		{dir + "/real", dir + "/root", "there is a link in it now"},
	} {
		s := r.spec("", "cat /x/mark /x 2>/dev/null")
		s.Root = containers.Root{Lower: c.root, NoLinks: true}
		s.Mounts = []containers.Mount{{Source: c.source, Target: "/x", NoLinks: true}}
		if c.problem == "" {
			if out, _ := r.run(s); out != "here\n" {
				t.Errorf("%s: got %q", c.source, out)
			}
		} else if _, err := r.engine.Prepare(context.Background(), s); err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s on %s: got %v", c.source, c.root, err)
		}
	}
}
