package image

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// TestMirrors asks mirrors in their order, and the registry itself for what
// they don't have or have wrong.
func TestMirrors(t *testing.T) {
	m := bigImage(t, 1)
	big := m.parsed(t).Layers[1].Digest
	wrong := bytes.Clone(m.blobs[big])
	wrong[1<<20] ^= 1
	const dead = "http://127.0.0.1:1" // no port that a server of this test gets, as one that was closed may be
	for _, test := range []struct {
		name   string
		mirror func(w http.ResponseWriter, q *http.Request) bool
		notice string
		asked  int // the registry itself, for blobs
	}{
		{"good", func(w http.ResponseWriter, q *http.Request) bool {
			return false
		}, "", 0},
		{"without the image", func(w http.ResponseWriter, q *http.Request) bool {
			http.NotFound(w, q)
			return true
		}, "answers 404", 3},
		{"without a blob", func(w http.ResponseWriter, q *http.Request) bool {
			if strings.HasSuffix(q.URL.Path, big.String()) {
				http.NotFound(w, q)
				return true
			}
			return false
		}, "answers 404", 1},
		{"wrong blob", func(w http.ResponseWriter, q *http.Request) bool {
			if strings.HasSuffix(q.URL.Path, big.String()) {
				w.Write(wrong)
				return true
			}
			return false
		}, "has the digest", 1},
		{"a page for the manifest", func(w http.ResponseWriter, q *http.Request) bool {
			if strings.Contains(q.URL.Path, "/manifests/") {
				w.Write([]byte("<html>Sign in</html>"))
				return true
			}
			return false
		}, "is a web page", 0},
		{"schema 1", func(w http.ResponseWriter, q *http.Request) bool {
			if strings.Contains(q.URL.Path, "/manifests/") {
				w.Write([]byte(`{"schemaVersion":1,"fsLayers":[]}`))
				return true
			}
			return false
		}, "schema 1", 0},
		{"cut", cutting(m, 1000, 1<<20, true), "broke off", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			mirror, origin := newTestRegistry(t), newTestRegistry(t)
			mirror.offer("cache/shop/web", "latest", m)
			origin.offer("shop/web", "latest", m)
			mirror.on(test.mirror)
			c := newTestClient(t, RegistryOptions{PlainHTTP: true, Registries: Registries{Mirrors: map[string][]string{
				origin.host(): {dead, mirror.URL + "/cache"}}}})
			i, err := c.pull(t, newStore(t), origin.host()+"/shop/web")
			if err != nil || i.Digest != sumOf(m.manifest) {
				t.Fatalf("got %v, %v", i, err)
			}
			if asked := origin.asked("/blobs/"); len(asked) != test.asked {
				t.Errorf("the registry was asked for %q", asked)
			}
			if _, err := c.pull(t, newStore(t), origin.host()+"/shop/web"); err != nil { // which the dead one isn't asked for
				t.Fatal(err)
			}
			notices := c.noticed()
			if strings.Count(notices, strings.TrimPrefix(dead, "http://")+" is passed over") != 1 || !strings.Contains(notices, test.notice) {
				t.Errorf("notices: %s", notices)
			}
		})
	}
}
