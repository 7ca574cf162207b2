package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// engine is a Docker that has some images: archives by name.
type engine struct {
	images map[string][]byte
	id     string
	status int // of all answers, if not 0
	asked  []string
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.asked = append(e.asked, r.URL.Path)
	name, what := r.URL.Path[:strings.LastIndexByte(r.URL.Path, '/')], filepath.Base(r.URL.Path)
	b, ok := e.images[strings.TrimPrefix(name, "/images/")]
	switch {
	case e.status != 0:
		http.Error(w, `{"message":"out of order"}`, e.status)
	case !ok:
		http.Error(w, `{"message":"no such image"}`, http.StatusNotFound)
	case what == "json":
		fmt.Fprintf(w, `{"Id":%q,"RepoTags":[]}`, cmp.Or(e.id, "sha256:id"))
	default:
		w.Write(b)
	}
}

// listen gives the engine a socket.
func (e *engine) listen(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e") // the name of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: e}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return filepath.Join(dir, "s")
}

func TestFromLocal(t *testing.T) {
	ctx := context.Background()
	m := simple(t)
	docker, oci := dockerOf(t, m, "shop/web:1").tar(t), layoutOf(t, m, nil).tar(t)
	digest := digestOf(string(m.manifest)).String()
	nameless := dockerOf(t, m).tar(t)
	for _, c := range []struct {
		name, ref string
		engine    engine
		want      string // the image's name, or "" when it isn't there
		notice    string
	}{
		{"by name", "shop/web:1", engine{images: map[string][]byte{"docker.io/shop/web:1": docker}}, "shop/web:1", ""},
		{"what Podman built", "web", engine{images: map[string][]byte{"localhost/web:latest": docker}}, "web", ""},
		{"what Podman loaded", "shop/web:1", engine{images: map[string][]byte{"localhost/shop/web:1": docker}}, "shop/web:1", ""},
		{"an archive without names", "shop/web:1", engine{images: map[string][]byte{"docker.io/shop/web:1": nameless}}, "shop/web:1", ""},
		{"by digest that the engine keeps", "shop/web@" + digest, engine{images: map[string][]byte{"docker.io/shop/web@" + digest: oci}, id: digest}, "shop/web@" + digest, ""},
		{"by digest that it does not keep", "shop/web@" + digest, engine{images: map[string][]byte{"docker.io/shop/web@" + digest: docker}, id: "sha256:other"}, "", ""},
		{"by digest, and it lies", "shop/web@" + digest, engine{images: map[string][]byte{"docker.io/shop/web@" + digest: docker}, id: digest}, "", "the archive has no image"},
		{"by digest, which is another's name", "shop/web@" + digest, engine{images: map[string][]byte{"docker.io/shop/web@" + digest: dockerOf(t, layersOf(t, makeTar(t, file("evil", ""))), digest).tar(t)}, id: digest}, "", "the archive has no image"},
		{"not there", "shop/web:2", engine{images: map[string][]byte{"docker.io/shop/web:1": docker}}, "", ""},
		{"out of order", "shop/web:1", engine{status: 500}, "", "500 Internal Server Error"},
		{"a broken archive", "shop/web:1", engine{images: map[string][]byte{"docker.io/shop/web:1": docker[:3000]}}, "", "cannot take shop/web:1 from "},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			var notices []string
			l := Local{Sockets: []string{"/nonexistent/docker.sock", c.engine.listen(t)}, Notice: func(text string) { notices = append(notices, text) }}
			ref, err := ParseReference(c.ref)
			if err != nil {
				t.Fatal(err)
			}
			i, from, err := fromLocal(ctx, s, ref, l, LoadOptions{})
			if said := strings.Join(notices, "\n"); (said == "") != (c.notice == "") || !strings.Contains(said, c.notice) {
				t.Errorf("it said %q, want %q", said, c.notice)
			}
			if c.want == "" {
				unknown := new(UnknownError)
				if !errors.As(err, &unknown) || i != nil {
					t.Errorf("got %v, %v", i, err)
				}
				for _, part := range []string{"ingest", "blobs/sha256", "layers"} {
					if left, err := os.ReadDir(s.path(part)); err != nil || len(left) > 0 {
						t.Errorf("left in %s: %v, %v", part, left, err)
					}
				}
				return
			}
			if err != nil || from != l.Sockets[1] {
				t.Fatalf("got %v from %s, %v", i, from, err)
			}
			if found, err := s.Find(c.want); err != nil || found.Digest != i.Digest || !s.Unpacked(&found.Layers[2]) {
				t.Errorf("got %v, %v", found, err)
			}
			if all, err := s.List(); err != nil || len(all) != 1 {
				t.Errorf("got %v, %v", all, err)
			}
		})
	}
}

// A socket of somebody else says nothing.
func TestLocalTrust(t *testing.T) {
	s := newStore(t)
	e := engine{images: map[string][]byte{"docker.io/library/x:latest": dockerOf(t, simple(t), "x").tar(t)}}
	socket := e.listen(t)
	if err := os.Chown(socket, 1234, 1234); err != nil {
		t.Fatal(err)
	}
	ref, _ := ParseReference("x")
	if i, _, err := fromLocal(context.Background(), s, ref, Local{Sockets: []string{socket}, UID: 99}, LoadOptions{}); i != nil || err == nil || len(e.asked) > 0 {
		t.Errorf("got %v, %v; it was asked %v", i, err, e.asked)
	}
	if i, _, err := fromLocal(context.Background(), s, ref, Local{Sockets: []string{socket}, UID: 1234}, LoadOptions{}); i == nil || err != nil {
		t.Errorf("got %v, %v", i, err)
	}
}

// Podman without root runs as its user, with that user's home.
func TestFromPodman(t *testing.T) {
	s := newStore(t)
	dir, err := os.MkdirTemp("", "podman")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	archive := filepath.Join(dir, "archive.tar")
	program := filepath.Join(dir, "podman")
	script := `#!/bin/sh
echo "$(id -u):$(id -g):$(id -G) $HOME $*" >> ` + dir + `/log
case "$*" in
"image exists localhost/web:1") exit 0 ;;
"image save --quiet localhost/web:1") cat ` + archive + ` ;;
"image exists docker.io/library/broken:1") exit 0 ;;
"image exists docker.io/library/ill:1") echo cannot set up >&2; exit 125 ;;
"image save --quiet docker.io/library/broken:1") head -c 2000 ` + archive + `; echo no more >&2; exit 125 ;;
*) exit 1 ;;
esac
`
	for _, err := range []error{os.WriteFile(archive, dockerOf(t, simple(t), "localhost/web:1").tar(t), 0o644), os.WriteFile(program, []byte(script), 0o755), os.Chmod(dir, 0o777)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var notices []string
	l := Local{Podman: program, UID: 1234, GID: 5678, Home: "/home/her", Notice: func(text string) { notices = append(notices, text) }}
	find := func(text string) (*Image, error) {
		ref, err := ParseReference(text)
		if err != nil {
			t.Fatal(err)
		}
		i, _, err := fromLocal(context.Background(), s, ref, l, LoadOptions{})
		return i, err
	}
	if i, err := find("web:1"); err != nil || i == nil {
		t.Errorf("got %v, %v", i, err)
	}
	if found, err := s.Find("web:1"); err != nil || found == nil {
		t.Errorf("got %v, %v", found, err)
	}
	if len(notices) > 0 {
		t.Errorf("it said %v", notices)
	}
	if i, err := find("broken:1"); err == nil {
		t.Errorf("got %v", i)
	}
	if !slices.ContainsFunc(notices, func(text string) bool { return strings.Contains(text, "no more") }) {
		t.Errorf("it said %v", notices)
	}
	if i, err := find("ill:1"); err == nil || !slices.ContainsFunc(notices, func(text string) bool { return strings.Contains(text, "cannot set up") }) {
		t.Errorf("got %v; it said %v", i, notices)
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if !strings.HasPrefix(line, "1234:5678:5678 /home/her image ") {
			t.Errorf("it ran as %s", line)
		}
	}
}

// What $DOCKER_HOST names is asked, or it is said once why not.
func TestDockerHost(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	for _, host := range []string{"tcp://203.0.113.9:2375", "ssh://ann@203.0.113.9", "unix:///nonexistent/docker.sock", "unix://" + t.TempDir()} {
		l := LocalEngines(0, 0, "/root", func(string) string { return host })
		var notices []string
		l.Sockets, l.Podman, l.Notice = nil, "", func(text string) { notices = append(notices, text) }
		for _, name := range []string{"a", "b"} {
			if _, _, err := fromLocal(ctx, s, mustReference(t, name), l, LoadOptions{}); err == nil {
				t.Errorf("%s: has %s", host, name)
			}
		}
		if len(notices) != 1 || !strings.Contains(notices[0], "DOCKER_HOST="+host+" is not asked") {
			t.Errorf("%s: it said %q", host, notices)
		}
	}
	e := engine{}
	l := LocalEngines(0, 0, "/root", func(string) string { return "unix://" + e.listen(t) })
	l.Sockets, l.Podman, l.Notice = l.Sockets[:1], "", func(text string) { t.Error(text) }
	if _, _, err := fromLocal(ctx, s, mustReference(t, "a"), l, LoadOptions{}); err == nil || len(e.asked) != 2 {
		t.Errorf("asked for %v: %v", e.asked, err)
	}
}
