package native

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// What a container wrote is reached wherever it is kept, without its volumes,
// and nothing of the machine or of the container changes by that.
func TestWritten(t *testing.T) {
	r := newRig(t)
	for _, what := range []string{"disk", "memory", "host"} {
		t.Run(what, func(t *testing.T) {
			volume := t.TempDir()
			s := r.spec(busyboxRoot(t), "echo new >/etc/new; rm /etc/passwd; echo v >/data/v; touch /tmp/ready; exec sleep 1000")
			s.Mounts = []containers.Mount{{Source: volume, Target: "/data", Propagation: "rshared"}}
			switch what {
			case "disk":
				s.Root.WritableDir = filepath.Join(t.TempDir(), "w")
			case "host":
				s.Root = containers.Root{Host: true}
				s.Args[len(s.Args)-1] = strings.Replace(s.Args[len(s.Args)-1], "rm /etc/passwd; ", "", 1)
			}
			p := r.start(s)
			root, err := OpenRoot(p.Ref())
			must(t, err)
			defer root.Close()
			eventually(t, "it is ready", func() bool { return Holds("/proc/self/fd/"+itoa(int(root.Fd())), "tmp/ready") })
			before, err := os.ReadFile("/proc/" + itoa(p.Ref().Pid) + "/mountinfo")
			must(t, err)
			w, err := OpenWritten(p.Ref(), &s.Root)
			must(t, err)
			defer w.Close()
			read := func(dir *os.File, name string) string {
				b, err := readIn(int(dir.Fd()), name, 1000)
				if err != nil {
					return ""
				}
				return string(b)
			}
			if what == "host" {
				programs, err := os.ReadDir("/usr/bin")
				must(t, err)
				at := map[string]*os.File{} // where /bin and the like are folders they are there, too
				for _, part := range w.Whole {
					at[part.At] = part.Dir
				}
				if w.Changes != nil || at[""] == nil || at["usr"] == nil || at["etc"] == nil {
					t.Fatalf("the machine's own: %+v", w)
				}
				if read(at["etc"], "new") != "new\n" || !Holds("/proc/self/fd/"+itoa(int(at["usr"].Fd())), "bin/"+programs[0].Name()) {
					t.Errorf("the machine's own: %+v", w)
				}
			} else {
				if read(w.Changes, "etc/new") != "new\n" || read(w.Whole[0].Dir, "etc/new") != "new\n" || read(w.Whole[0].Dir, "etc/passwd") != "" {
					t.Error("what it wrote is not there")
				}
				if read(w.Changes, "data/v") != "" || read(w.Whole[0].Dir, "data/v") != "" {
					t.Error("the volume is there")
				}
			}
			after, err := os.ReadFile("/proc/" + itoa(p.Ref().Pid) + "/mountinfo")
			must(t, err)
			if string(before) != string(after) {
				t.Errorf("its mounts have changed:\n%s\n%s", before, after)
			}
			if read(root, "data/v") != "v\n" {
				t.Error("its volume is gone")
			}
		})
	}
}

// Where /bin is no link, a root of the machine's own programs has it too.
func TestOpenBeside(t *testing.T) {
	root := t.TempDir()
	must(t, errors.Join(os.Mkdir(root+"/bin", 0o755), os.WriteFile(root+"/bin/x", []byte("content"), 0o644), os.Symlink("usr/lib", root+"/lib")))
	must(t, onThread(func(th *thread) error {
		th.away = true
		if err := errors.Join(unix.Unshare(unix.CLONE_FS), unix.Chroot(root)); err != nil {
			return err
		}
		w := &containers.Written{}
		defer w.Close()
		if err := openBeside(w); err != nil {
			return err
		}
		if len(w.Whole) != 1 || w.Whole[0].At != "bin" {
			return fmt.Errorf("got %+v", w.Whole)
		}
		if b, err := readIn(int(w.Whole[0].Dir.Fd()), "x", 100); err != nil || string(b) != "content" {
			t.Errorf("got %q, %v", b, err)
		}
		return nil
	}))
}
