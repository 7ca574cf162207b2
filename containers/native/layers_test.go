package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// An image's layers are the lower ones, more of them than one mount option of
// 255 bytes can name, and than one page can before Linux 6.5.
func TestLayers(t *testing.T) {
	r := newRig(t)
	for _, n := range []int{2, 127, 499} {
		dir := t.TempDir()
		must(t, os.Rename(busyboxRoot(t), filepath.Join(dir, "base-layer")))
		must(t, os.WriteFile(filepath.Join(dir, "base-layer", "gone"), nil, 0o644))
		layers := []string{"base-layer"}
		for i := 1; i < n; i++ {
			name := fmt.Sprintf("LAYER%08d/fs", i)
			must(t, os.MkdirAll(filepath.Join(dir, name, "etc"), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, name, "etc", "top"), fmt.Appendf(nil, "%d\n", i), 0o644))
			must(t, os.WriteFile(filepath.Join(dir, name, "etc", fmt.Sprintf("l%d", i)), nil, 0o644))
			layers = append([]string{name}, layers...)
		}
		top := filepath.Join(dir, layers[0])
		must(t, os.Chmod(top, 0o770))
		must(t, unix.Mknod(filepath.Join(top, "gone"), unix.S_IFCHR, 0))
		s := r.spec("", "cat /etc/top; ls /etc | grep -c '^l[0-9]'; stat -c %a /; ls /gone 2>/dev/null; echo x >/etc/new && cat /etc/new")
		s.Root = containers.Root{Lower: dir, Layers: layers}
		if n == 499 && !kernelAtLeast(t, 6, 5) {
			var missing *containers.Unsupported
			if _, err := r.engine.Prepare(context.Background(), s); !errors.As(err, &missing) {
				t.Errorf("%d layers: got %v", n, err)
			}
			continue
		}
		if out, _ := r.run(s); out != fmt.Sprintf("%d\n%d\n775\nx\n", n-1, n-1) {
			t.Errorf("%d layers: got %q", n, out)
		}
	}
	s := r.spec("", "true")
	s.Root = containers.Root{Lower: t.TempDir(), Layers: []string{"../x"}}
	if _, err := r.engine.Prepare(context.Background(), s); err == nil {
		t.Error("a layer elsewhere is taken")
	}
}

func kernelAtLeast(t *testing.T, major, minor int) bool {
	var name unix.Utsname
	must(t, unix.Uname(&name))
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &a, &b); err != nil {
		t.Fatal(err)
	}
	return a > major || a == major && b >= minor
}
