package native

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"platelayer/containers"
)

func TestWriteFiles(t *testing.T) {
	r := newRig(t)
	bound := filepath.Join(t.TempDir(), "bound")
	must(t, os.WriteFile(bound, []byte("bound\n"), 0o644))
	folder := t.TempDir()
	must(t, os.Chmod(folder, 0o755))
	must(t, os.WriteFile(filepath.Join(folder, "hosts"), []byte("kept\n"), 0o644))
	const both = "10.0.0.9 new\nnameserver 10.0.0.53\n"
	for _, tc := range []struct {
		what, script string
		host         bool
		mounts       []containers.Mount
		bound        string // path that stays
		want         string
	}{
		{"plain", "true", false, nil, "", both},
		{"host root", "true", true, nil, "", both},
		{"links", "rm /etc/hosts /etc/resolv.conf; ln -s /tmp/x /etc/hosts; ln -s ../tmp/x /etc/resolv.conf; echo x >/tmp/x", false, nil, "", both},
		{"gone", "rm /etc/hosts /etc/resolv.conf", false, nil, "", both},
		{"FIFO", "rm /etc/hosts; mknod /etc/hosts p", false, nil, "", both},
		{"hard link", "echo kept >/etc/other; rm /etc/hosts; ln /etc/other /etc/hosts", false, nil, "", both},
		{"folder link", "mv /etc /else; ln -s /else /etc", false, nil, "", both},
		{"hosts bound", "true", false, []containers.Mount{{Source: bound, Target: "/etc/hosts"}}, "/etc/hosts", "bound\nnameserver 10.0.0.53\n"},
		{"folder bound", "true", false, []containers.Mount{{Source: folder, Target: "/etc"}}, "/etc/hosts", "kept\n"},
		{"link into a volume", "mv /etc /else; ln -s /v /etc", false, []containers.Mount{{Source: folder, Target: "/v"}}, "/etc/hosts", "kept\n"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := r.spec(busyboxRoot(t), tc.script+"; touch /tmp/ready; exec sleep 1000")
			if tc.host {
				s.Root = containers.Root{Host: true}
			}
			s.Mounts = tc.mounts
			p := r.start(s)
			root, err := OpenRoot(p.Ref())
			must(t, err)
			defer root.Close()
			read := func(name string) string {
				b, _ := readIn(int(root.Fd()), name, 1000)
				return string(b)
			}
			eventually(t, "it is ready", func() bool {
				fd, err := openIn(int(root.Fd()), "/tmp/ready", 0, 0)
				closeFD(fd)
				return err == nil
			})
			err = WriteFiles(p.Ref(), "10.0.0.9 new\n", "nameserver 10.0.0.53\n")
			var b *containers.Bound
			if errors.As(err, &b) != (tc.bound != "") || b != nil && b.Path != tc.bound || b == nil && err != nil {
				t.Errorf("got %v", err)
			}
			if got := read("/etc/hosts") + read("/etc/resolv.conf"); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if got := read("/tmp/x") + read("/etc/other"); got != "" && got != "x\n" && got != "kept\n" {
				t.Errorf("another file holds %q", got)
			}
			for name, want := range map[string]string{bound: "bound\n", filepath.Join(folder, "hosts"): "kept\n"} {
				if b, err := os.ReadFile(name); err != nil || string(b) != want {
					t.Errorf("the machine's %s: %q, %v", name, b, err)
				}
			}
			must(t, p.Signal(syscall.SIGKILL))
			_, err = p.Wait()
			must(t, err)
			if err := WriteFiles(p.Ref(), "x", "x"); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("ended: got %v", err)
			}
		})
	}
}

func TestOwnMounts(t *testing.T) {
	const info = `21 1 0:30 / / rw,relatime - overlay overlay rw,lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work,volatile
22 21 0:31 / /v rw - overlay overlay rw,lowerdir=/a,upperdir=/b/upper/upper,workdir=/c
23 21 0:32 / /etc rw shared:7 - overlay overlay rw,lowerdir=/hide-etc:/etc,upperdir=/upper/etc/upper,workdir=/upper/etc/work
24 21 0:33 / /upperdir=/upper/x rw - tmpfs tmpfs rw,mode=755
`
	got := ownMounts(info)
	if len(got) != 2 || !got[21] || !got[23] {
		t.Errorf("got %v", got)
	}
}
