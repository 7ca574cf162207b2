package image

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Who is asked for an image, and whose is taken.
func TestObtain(t *testing.T) {
	ctx := context.Background()
	old, fresh := simple(t), makeImage(t, v1.Config{Cmd: []string{"/fresh"}}, makeTar(t, file("fresh", "")))
	docker := makeImage(t, v1.Config{Cmd: []string{"/docker"}}, makeTar(t, file("docker", "")))
	digest := func(m *made) string { return digestOf(string(m.manifest)).String() }
	const hour = time.Hour
	type here int
	const (
		no    here = iota
		known      // in the store, of an archive
		young      // pulled half an hour ago
		aged       // two hours ago
		tomorrow
	)
	for _, c := range []struct {
		name   string
		here   here
		local  bool // Docker has it
		broken bool // the registry answers nobody
		pinned bool
		o      ObtainOptions
		want   *made // nil is an error
		asked  bool  // of the registry
		notice string
	}{
		{name: "here", here: known, want: old},
		{name: "here, never", here: known, o: ObtainOptions{Never: true}, want: old},
		{name: "of the registry", want: fresh, asked: true},
		{name: "of docker", local: true, want: docker, notice: "is taken from"},
		{name: "of docker, never asking", local: true, o: ObtainOptions{Never: true}, want: docker, notice: "is taken from"},
		{name: "nowhere, never", o: ObtainOptions{Never: true}},
		{name: "always", here: young, o: ObtainOptions{Always: true}, want: fresh, asked: true},
		{name: "always, though Docker has it", local: true, o: ObtainOptions{Always: true}, want: fresh, asked: true},
		{name: "always, broken", here: young, broken: true, o: ObtainOptions{Always: true}, asked: true},
		{name: "young", here: young, o: ObtainOptions{MaxAge: hour}, want: old},
		{name: "aged", here: aged, o: ObtainOptions{MaxAge: hour}, want: fresh, asked: true},
		{name: "of the future", here: tomorrow, o: ObtainOptions{MaxAge: hour}, want: fresh, asked: true},
		{name: "of an archive", here: known, o: ObtainOptions{MaxAge: hour}, want: fresh, asked: true},
		{name: "aged, broken", here: aged, broken: true, o: ObtainOptions{MaxAge: hour}, want: old, asked: true, notice: "as it is here, though it may have changed"},
		{name: "pinned", here: aged, pinned: true, o: ObtainOptions{Always: true}, want: old},
		{name: "another platform", here: known, o: ObtainOptions{Platform: Platform{Architecture: "riscv64", Exact: true}, Never: true}},
		{name: "this platform", here: known, o: ObtainOptions{Platform: Platform{Architecture: "amd64", Exact: true}}, want: old},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			r := newTestRegistry(t)
			r.offer("shop/web", "1", fresh)
			name := r.host() + "/shop/web:1"
			if c.here != no {
				ages := map[here]time.Duration{young: hour / 2, aged: 2 * hour, tomorrow: -24 * hour}
				o := AddOptions{Name: name}
				if age, pulled := ages[c.here]; pulled {
					o.Asked = time.Now().Add(-age)
				}
				if _, err := s.Add(ctx, old.manifest, old, o); err != nil {
					t.Fatal(err)
				}
			}
			if c.pinned {
				name = r.host() + "/another@" + digest(old)
			}
			if c.broken {
				r.on(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
			}
			client := newTestClient(t, RegistryOptions{Registries: Registries{PlainHTTP: []string{r.host()}}})
			var notices []string
			o := c.o
			o.Registry = func() (*Registry, error) { return client.Registry, nil }
			o.Notice = func(text string) { notices = append(notices, text) }
			if o.Platform == (Platform{}) {
				o.Platform = amd64
			}
			if c.local {
				e := &engine{images: map[string][]byte{name: dockerOf(t, docker, name).tar(t)}}
				o.Local = Local{Sockets: []string{e.listen(t)}, UID: os.Getuid()}
			}
			i, err := Obtain(ctx, s, name, o)
			switch {
			case c.want == nil && err == nil:
				t.Fatalf("got %s", i.Digest)
			case c.want == nil:
			case err != nil:
				t.Fatal(err)
			case i.Manifest.Config.Digest != c.want.parsed(t).Config.Digest: // an archive of Docker's has no manifest of its own
				t.Errorf("got %s, with %v", i.Digest, i.Config.Config.Cmd)
			}
			if asked := len(r.asked("shop/web")) > 0; asked != c.asked {
				t.Errorf("the registry was asked: %v", asked)
			}
			if said := strings.Join(notices, "\n"); c.notice == "" && said != "" || !strings.Contains(said, c.notice) {
				t.Errorf("said %q", said)
			}
			if err != nil {
				return
			}
			if _, err := os.Stat(s.Tree(&i.Layers[0])); err != nil {
				t.Errorf("it is not unpacked: %v", err)
			}
		})
	}
}

// What comes from a registry is unpacked while the layers above still come.
func TestObtainWhileFetching(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m := makeImage(t, v1.Config{}, makeTar(t, file("a", "1")), makeTar(t, file("b", "2")))
	s, r := newStore(t), newTestRegistry(t)
	r.offer("web", "1", m)
	last := m.parsed(t).Layers[1].Digest.String()
	r.on(func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.HasSuffix(q.URL.Path, last) {
			_ = untilUnpacked(ctx, s, "a")
		}
		return false
	})
	client := newTestClient(t, RegistryOptions{PlainHTTP: true})
	i, err := Obtain(ctx, s, r.host()+"/web:1", ObtainOptions{Platform: amd64, Registry: func() (*Registry, error) { return client.Registry, nil }})
	if err != nil || !s.Unpacked(&i.Layers[1]) {
		t.Errorf("got %v, %v", i, err)
	}
}

// An image that the store has lost something of is fetched again, unless what is
// unpacked of it is all there.
func TestObtainWhatIsLost(t *testing.T) {
	ctx := context.Background()
	m := simple(t)
	r := newTestRegistry(t)
	r.offer("web", "1", m)
	client := newTestClient(t, RegistryOptions{Registries: Registries{PlainHTTP: []string{r.host()}}})
	o := ObtainOptions{Platform: amd64, Registry: func() (*Registry, error) { return client.Registry, nil }}
	s := newStore(t)
	name := r.host() + "/web:1"
	i, err := Obtain(ctx, s, name, o)
	if err != nil {
		t.Fatal(err)
	}
	r.asked("")
	for _, c := range []struct {
		name  string
		lose  func() error
		asked bool
	}{
		{"nothing", func() error { return nil }, false},
		{"a blob of an unpacked layer", func() error { return os.Remove(s.blobPath(i.Layers[1].Digest)) }, false},
		{"an unpacked layer whose blob is there", func() error { return os.RemoveAll(filepath.Dir(s.Tree(&i.Layers[2]))) }, false},
		{"both", func() error {
			return errors.Join(os.Remove(s.blobPath(i.Layers[2].Digest)), os.RemoveAll(filepath.Dir(s.Tree(&i.Layers[2]))))
		}, true},
		{"the configuration", func() error { return os.Remove(s.blobPath(i.Manifest.Config.Digest)) }, true},
		{"the manifest", func() error { return os.Remove(s.blobPath(i.Digest)) }, true},
	} {
		if err := c.lose(); err != nil {
			t.Fatal(err)
		}
		got, err := Obtain(ctx, s, name, o)
		if err != nil || got.Digest != i.Digest {
			t.Errorf("%s: %v", c.name, err)
		}
		if asked := len(r.asked("web")) > 0; asked != c.asked {
			t.Errorf("%s: the registry was asked: %v", c.name, asked)
		}
		for n := range i.Layers {
			if _, err := os.Stat(s.Tree(&i.Layers[n])); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
}

// An image that doesn't say what it is made for runs, as Docker has it.
func TestFits(t *testing.T) {
	for platform, want := range map[[2]string]bool{
		{"linux", "amd64"}: true, {}: true, {"linux", ""}: true, {"windows", ""}: false, {"linux", "arm64"}: false,
	} {
		i := &Image{Config: &v1.ConfigFile{OS: platform[0], Architecture: platform[1]}}
		if got := i.Fits(Platform{Architecture: "amd64"}); got != want {
			t.Errorf("%q: %v", i.MadeFor(), got)
		}
	}
}

// What Docker has is looked at before anything of it comes into the store.
func TestObtainRefused(t *testing.T) {
	s, refused := newStore(t), errors.New("refused")
	e := &engine{images: map[string][]byte{"docker.io/library/a:1": dockerOf(t, simple(t), "a:1").tar(t)}}
	o := ObtainOptions{Local: Local{Sockets: []string{e.listen(t)}}, Check: func(context.Context, v1.Hash, v1.Hash) error { return refused }}
	if i, err := Obtain(t.Context(), s, "a:1", o); !errors.Is(err, refused) {
		t.Errorf("got %v, %v", i, err)
	}
	for _, part := range []string{"ingest", "blobs/sha256", "layers"} {
		if left, err := os.ReadDir(s.path(part)); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", part, left, err)
		}
	}
}

// An image by the name that Podman's archives have is no other, but is told of.
func TestObtainLocalhost(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	m := simple(t)
	if _, err := s.Load(ctx, given(t, dockerOf(t, m, "localhost/web:1").tar(t)), LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"web:1": "platelayer image tag localhost/web:1 web:1", "web:2": "", "r.example/web:1": ""} {
		said := ""
		_, err := Obtain(ctx, s, name, ObtainOptions{Never: true, Notice: func(text string) { said += text }})
		if unknown := new(UnknownError); !errors.As(err, &unknown) || !strings.HasSuffix(said, want) || want == "" && said != "" {
			t.Errorf("%s: it said %q, %v", name, said, err)
		}
	}
}
