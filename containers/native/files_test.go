package native

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"platelayer/containers"
)

func TestReadOnlyRoot(t *testing.T) {
	r := newRig(t)
	script := "for f in /x /etc/x /usr/x /bin/x; do (echo x >$f) 2>/dev/null && echo wrote $f; done; echo y >/run/y && cat /run/y; echo z >/vol/z && echo volume"
	for _, root := range []containers.Root{{Lower: busyboxRoot(t)}, {Host: true}} {
		s := r.spec("", script)
		s.Root, s.ReadOnly, s.Tmpfs = root, true, []containers.Tmpfs{{Target: "/run"}}
		s.Mounts = []containers.Mount{{Source: t.TempDir(), Target: "/vol"}}
		if out, _ := r.run(s); out != "y\nvolume\n" {
			t.Errorf("%+v: got %q", root, out)
		}
	}
}

func TestTmpfsAndShm(t *testing.T) {
	r := newRig(t)
	s := r.spec(busyboxRoot(t), "for d in /data /dev/shm; do stat -c '%a %u %g' $d; done; df() { dd if=/dev/zero of=$1/big bs=1M count=4 2>/dev/null; stat -c %s $1/big; }; df /data; df /dev/shm; cp /bin/busybox /ex/busybox && /ex/busybox true && echo ran; grep -c ' /data .*noexec' /proc/self/mounts; ls /data/below")
	must(t, os.Symlink("busybox", filepath.Join(s.Root.Lower, "bin/cp")))
	s.Resources.ShmSize = 2 << 20
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
	s.Tmpfs = []containers.Tmpfs{{Target: "/data", Size: 1 << 20, Mode: 0o750, UID: 7, GID: 8}, {Target: "/ex", Options: "exec,size=8m"}}
	s.Mounts = []containers.Mount{{Source: dir, Target: "/data/below"}}
	if out, _ := r.run(s); out != "750 7 8\n1777 0 0\n1048576\n2097152\nran\n1\nf\n" {
		t.Errorf("got %q", out)
	}
	s = r.spec(busyboxRoot(t), "true")
	s.Tmpfs = []containers.Tmpfs{{Target: "/data", Options: "bogus"}}
	if _, err := r.engine.Prepare(context.Background(), s); err == nil || !strings.Contains(err.Error(), `unknown option "bogus"`) {
		t.Errorf("got %v", err)
	}
}

func TestFiles(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	must(t, os.WriteFile(filepath.Join(root, "etc/conf"), []byte("old"), 0o644))
	s := r.spec(root, "cat /run/secrets/a /etc/conf; stat -c '%a %u %g' /run/secrets/a; (echo x >/etc/conf) 2>/dev/null || echo no; ls /run/secrets")
	s.Tmpfs = []containers.Tmpfs{{Target: "/run"}}
	s.Files = []containers.File{
		{Target: "/run/secrets/a", Content: []byte("secret\n"), Mode: 0o440, UID: 1000, GID: 50},
		{Target: "/etc/conf", Content: []byte("new\n"), Mode: 0o666},
	}
	if out, _ := r.run(s); out != "secret\nnew\n440 1000 50\nno\na\n" {
		t.Errorf("got %q", out)
	}
}

func TestFill(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	must(t, os.MkdirAll(filepath.Join(root, "srv/sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "srv/sub/f"), []byte("content\n"), 0o640))
	must(t, os.Chown(filepath.Join(root, "srv/sub/f"), 1000, 50))
	must(t, os.Link(filepath.Join(root, "srv/sub/f"), filepath.Join(root, "srv/hard")))
	must(t, os.Symlink("/etc/passwd", filepath.Join(root, "srv/link")))
	must(t, unix.Setxattr(filepath.Join(root, "srv/sub"), "trusted.mine", []byte("v"), 0))
	must(t, os.WriteFile(filepath.Join(root, "srv/sub/sparse"), nil, 0o644))
	must(t, os.Truncate(filepath.Join(root, "srv/sub/sparse"), 1<<30))
	must(t, os.Chmod(filepath.Join(root, "srv"), 0o751))
	must(t, os.Chown(filepath.Join(root, "srv"), 1000, 50))
	volume := t.TempDir()
	script := "cat /srv/sub/f; stat -c '%a %u %g %h' /srv/sub/f /srv; readlink /srv/link; test /srv/sub/f -ef /srv/hard && echo same; echo more >/srv/new"
	s := r.spec(root, script)
	s.Mounts = []containers.Mount{{Source: volume, Target: "/srv", Fill: true}}
	want := "content\n640 1000 50 2\n751 1000 50 3\n/etc/passwd\nsame\n"
	if out, _ := r.run(s); out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	b := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(volume, "sub"), "trusted.mine", b); err != nil || string(b[:n]) != "v" {
		t.Errorf("attribute: got %q, %v", b, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(volume, "sub/sparse"), &st); err != nil || st.Size != 1<<30 || st.Blocks > 100 {
		t.Errorf("sparse: %+v, %v", st, err)
	}
	must(t, os.Remove(filepath.Join(volume, "sub/sparse")))
	must(t, os.Remove(filepath.Join(volume, "sub/f")))
	s = r.spec(root, "ls /srv /srv/sub")
	s.Mounts = []containers.Mount{{Source: volume, Target: "/srv", Fill: true}}
	if out, _ := r.run(s); out != "/srv:\nhard\nlink\nnew\nsub\n\n/srv/sub:\n" {
		t.Errorf("filled again: got %q", out)
	}
}

// countdown is a context that ends after some looks at it.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func folderFD(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { closeFD(fd) })
	return fd
}

// TestFillKeepsHoles fills with a file that is large and holds nearly nothing.
func TestFillKeepsHoles(t *testing.T) {
	tree, volume := copyTree(t), t.TempDir()
	want := describe(t, tree)
	must(t, fill(context.Background(), folderFD(t, tree), folderFD(t, volume), "/srv"))
	if d := cmp.Diff(want, describe(t, volume)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestFillInterrupted has a volume that was not filled to the end be empty: it
// would pass for a filled one.
func TestFillInterrupted(t *testing.T) {
	tree := copyTree(t)
	for left := range 20 {
		volume := t.TempDir()
		err := fill(&countdown{context.Background(), left}, folderFD(t, tree), folderFD(t, volume), "/srv")
		if err == nil && left > 12 { // there are 13 things in the tree, and much in some
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "interrupted") {
			t.Errorf("after %d: %v", left, err)
		}
		if found, err := os.ReadDir(volume); err != nil || len(found) > 0 {
			t.Errorf("after %d: left %v, %v", left, found, err)
		}
	}
}

func TestSubpath(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	volume := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(volume, "a/b"), 0o755))
	must(t, os.WriteFile(filepath.Join(volume, "a/b/f"), nil, 0o644))
	must(t, os.Symlink("/a/b", filepath.Join(volume, "inside")))
	must(t, os.Symlink("../../../../../../etc", filepath.Join(volume, "outside")))
	for subpath, want := range map[string]string{"a/b": "f\n", "inside": "f\n", "../../a/b": "f\n", "outside": "", "a/none": ""} {
		s := r.spec(root, "ls /data")
		s.Mounts = []containers.Mount{{Source: volume, Target: "/data", Subpath: subpath}}
		c, err := r.engine.Prepare(context.Background(), s)
		if want == "" {
			if err == nil {
				t.Errorf("%s was taken", subpath)
				must(t, c.Discard())
			}
			continue
		}
		must(t, err)
		if out, _ := r.finish(c, s); out != want {
			t.Errorf("%s: got %q", subpath, out)
		}
	}
}

func TestPropagation(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	must(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
	must(t, os.Mkdir(filepath.Join(dir, "m"), 0o755))
	for how, want := range map[string]string{"": "", "rprivate": "", "rslave": "seen\n", "rshared": "seen\n"} {
		s := r.spec(root, "while ! test -e /v/go; do sleep 0.05; done; test -e /v/m/f && echo seen")
		s.Mounts = []containers.Mount{{Source: dir, Target: "/v", Propagation: how}}
		c, err := r.engine.Prepare(context.Background(), s)
		must(t, err)
		out := drain(t, s.Stdout)
		p, err := c.Start(context.Background())
		must(t, err)
		must(t, unix.Mount("tmpfs", filepath.Join(dir, "m"), "tmpfs", 0, ""))
		must(t, os.WriteFile(filepath.Join(dir, "m/f"), nil, 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
		_, err = p.Wait()
		must(t, err)
		must(t, unix.Unmount(filepath.Join(dir, "m"), unix.MNT_DETACH))
		must(t, os.Remove(filepath.Join(dir, "go")))
		if got := out(); got != want {
			t.Errorf("%q: got %q, want %q", how, got, want)
		}
	}
}

func TestDevices(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	device := "/dev/net/tun"
	if _, err := os.Stat(device); err != nil {
		t.Skip("no " + device)
	}
	open := "(exec 3<" + device + ") 2>/dev/null && echo open || echo no; (exec 3<>/dev/renamed/d) 2>/dev/null && echo both || echo no"
	s := r.spec(root, open)
	if out, _ := r.run(s); out != "no\nno\n" {
		t.Errorf("without: got %q", out)
	}
	s.Devices = []containers.Device{{Source: device, Target: device}, {Source: device, Target: "/dev/renamed/d", Permissions: "rw"}}
	if out, _ := r.run(s); out != "open\nboth\n" {
		t.Errorf("with: got %q", out)
	}
	s.Devices = []containers.Device{{Source: device, Target: device, Permissions: "r"}, {Source: device, Target: "/dev/renamed/d", Permissions: "r"}}
	if out, _ := r.run(s); out != "open\nno\n" {
		t.Errorf("reading alone, in the same cgroup: got %q", out)
	}
	// A node that the container makes itself opens nothing more.
	s = r.spec(root, "mknod /dev/d b 254 0 && (exec 3</dev/d) 2>/dev/null && echo open || echo no; mknod /dev/z c 1 5 && head -c 1 /dev/z | wc -c")
	s.CapAdd = []string{"MKNOD"}
	if out, _ := r.run(s); out != "no\n1\n" {
		t.Errorf("mknod: got %q", out)
	}
	s = r.spec(root, "test -e /dev/kmsg && (exec 3</dev/kmsg) && echo open; (echo 0 >/proc/sys/kernel/printk_ratelimit_burst_x) 2>&1 | grep -c 'ead-only'; touch /sys/fs/cgroup 2>&1; mount -t tmpfs none /tmp && echo mounted")
	s.Privileged = true
	if out, _ := r.run(s); out != "open\n0\nmounted\n" {
		t.Errorf("privileged: got %q", out)
	}
	for want, d := range map[string]containers.Device{
		"cannot find the device":    {Source: "/dev/none-here"},
		"not a device":              {Source: "/etc/passwd", Target: "/dev/x"},
		"not below /dev":            {Source: "/dev/null", Target: "/etc/x"},
		`unknown device permission`: {Source: "/dev/null", Target: "/dev/x", Permissions: "z"},
	} {
		s := r.spec(root, "true")
		s.Devices = []containers.Device{d}
		if _, err := r.engine.Prepare(context.Background(), s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func TestSysctls(t *testing.T) {
	r := newRig(t)
	root := busyboxRoot(t)
	s := r.spec(root, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni /proc/sys/fs/mqueue/msg_max /proc/sys/net/ipv4/conf/lo/rp_filter")
	s.NetNSPath = netNS(t)
	before, err := os.ReadFile("/proc/sys/kernel/shmmni")
	must(t, err)
	s.Sysctls = []containers.Sysctl{{Name: "net.ipv4.ip_forward", Value: "1"}, {Name: "kernel.shmmni", Value: "77"},
		{Name: "fs.mqueue.msg_max", Value: "22"}, {Name: "net/ipv4/conf/lo/rp_filter", Value: "2"}}
	if out, _ := r.run(s); out != "1\n77\n22\n2\n" {
		t.Errorf("got %q", out)
	}
	after, err := os.ReadFile("/proc/sys/kernel/shmmni")
	must(t, err)
	if string(before) != string(after) {
		t.Error("the machine's was changed")
	}
	for name, want := range map[string]string{"kernel.sysrq": "whole machine", "net.ipv4.none": "no such file", "net.ipv4.../../kernel/sysrq": "cannot set", "vm.swappiness": "whole machine"} {
		s := r.spec(root, "true")
		s.NetNSPath, s.Sysctls = netNS(t), []containers.Sysctl{{Name: name, Value: "1"}}
		if _, err := r.engine.Prepare(context.Background(), s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	s = r.spec(root, "true")
	s.Sysctls = []containers.Sysctl{{Name: "net.ipv4.ip_forward", Value: "1"}}
	if _, err := r.engine.Prepare(context.Background(), s); err == nil {
		t.Error("the machine's network was changed")
	}
}
