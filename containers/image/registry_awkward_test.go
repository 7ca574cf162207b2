package image

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestPullAwkward pulls from registries that answer in their own ways.
func TestPullAwkward(t *testing.T) {
	m := bigImage(t, 1)
	big := m.parsed(t).Layers[1].Digest
	var mu sync.Mutex
	blob := func(answer func(n int, w http.ResponseWriter, q *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
		n := 0
		return func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.HasSuffix(q.URL.Path, big.String()) {
				return false
			}
			mu.Lock()
			n++
			at := n
			mu.Unlock()
			if at == 1 {
				return cutting(m, 1, 1<<20, true)(w, q)
			}
			return answer(at, w, q)
		}
	}
	content := m.blobs[big]
	for name, hook := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"no HEAD": func(w http.ResponseWriter, q *http.Request) bool {
			if q.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
			}
			return q.Method == http.MethodHead
		},
		"no digest": func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.Contains(q.URL.Path, "/manifests/") {
				return false
			}
			w.Write(m.manifest)
			return true
		},
		"digest of another kind": func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.Contains(q.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Docker-Content-Digest", "sha512:"+strings.Repeat("a", 128))
			w.Write(m.manifest)
			return true
		},
		"a number of a proxy's own": func() func(w http.ResponseWriter, q *http.Request) bool {
			left := 3
			return func(w http.ResponseWriter, q *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				if left--; left >= 0 {
					w.WriteHeader(522)
				}
				return left >= 0
			}
		}(),
		"another range": blob(func(n int, w http.ResponseWriter, q *http.Request) bool {
			if n > 2 {
				return false
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-%d/%d", len(content)-1, len(content)))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(content[7:])
			return true
		}),
		"a range without saying which": blob(func(n int, w http.ResponseWriter, q *http.Request) bool {
			if n > 2 {
				return false
			}
			w.WriteHeader(http.StatusPartialContent)
			w.Write(content[1<<20:])
			return true
		}),
		"a range out of range": blob(func(n int, w http.ResponseWriter, q *http.Request) bool {
			if n > 2 {
				return false
			}
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return true
		}),
		"another content at first": func() func(w http.ResponseWriter, q *http.Request) bool {
			old := &made{blobs: map[v1.Hash][]byte{big: append([]byte("old"), content[3:]...)}}
			n := 0
			return func(w http.ResponseWriter, q *http.Request) bool {
				if !strings.HasSuffix(q.URL.Path, big.String()) {
					return false
				}
				mu.Lock()
				n++
				first := n == 1
				mu.Unlock()
				return first && cutting(old, 1, 1<<20, true)(w, blobRequest(q, big))
			}
		}(),
		"in chunks, cut": func() func(w http.ResponseWriter, q *http.Request) bool {
			n := 0
			return func(w http.ResponseWriter, q *http.Request) bool {
				if !strings.HasSuffix(q.URL.Path, big.String()) {
					return false
				}
				mu.Lock()
				n++
				first := n == 1
				mu.Unlock()
				w.(http.Flusher).Flush() // no Content-Length
				if first {
					w.Write(content[:1<<20]) // and an end that looks right
				} else {
					w.Write(content)
				}
				return true
			}
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestRegistry(t)
			r.offer("a", "latest", m)
			r.on(hook)
			s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
			for range 2 {
				i, err := c.pull(t, s, r.host()+"/a")
				if err != nil || i.Digest != sumOf(m.manifest) {
					t.Fatalf("got %v, %v", i, err)
				}
			}
		})
	}
}

// TestPushAwkward pushes to registries that answer in their own ways.
func TestPushAwkward(t *testing.T) {
	m := bigImage(t, 1)
	refuse := func(status int, methods ...string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, q *http.Request) bool {
			for _, method := range methods {
				if q.Method == method && strings.Contains(q.URL.Path, "/blobs/") {
					w.WriteHeader(status)
					fmt.Fprint(w, `{"errors":[{"code":"UNSUPPORTED","message":"the registry is read-only"}]}`)
					return true
				}
			}
			return false
		}
	}
	// sending answers where a blob goes in a registry's own form.
	sending := func(form func(host, path string) string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, q *http.Request) bool {
			switch {
			case q.Method == http.MethodPost && strings.HasSuffix(q.URL.Path, "/blobs/uploads/"):
				w.Header().Set("Location", form(q.Host, "/v2/a/blobs/uploads/1")+"?_state=x%3D%26y")
				w.WriteHeader(http.StatusAccepted)
				return true
			case q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/blobs/uploads/"):
				if q.URL.Query().Get("_state") != "x=&y" {
					w.WriteHeader(http.StatusBadRequest)
					return true
				}
				q.URL.RawQuery = url.Values{"digest": {q.URL.Query().Get("digest")}}.Encode()
				q.Method, q.URL.Path = http.MethodPost, "/v2/a/blobs/uploads/" // whole
			}
			return false
		}
	}
	for _, test := range []struct {
		name    string
		hook    func(http.ResponseWriter, *http.Request) bool
		problem string
	}{
		{"no HEAD", refuse(405, http.MethodHead), ""},
		{"HEAD for others", refuse(403, http.MethodHead), ""},
		{"read-only", refuse(405, http.MethodPost), "answers 405 (Method Not Allowed) when asked for a place in a: UNSUPPORTED: the registry is read-only"},
		{"denied", refuse(403, http.MethodPost), "answers 403"},
		{"relative", sending(func(_, path string) string { return path }), ""},
		{"absolute", sending(func(host, path string) string { return "http://" + host + path }), ""},
		{"absolute, as if over TLS", sending(func(host, path string) string { return "https://" + host + path }), ""},
		{"nowhere", sending(func(host, path string) string { return "::" }), "no address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newTestRegistry(t)
			r.on(test.hook)
			s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
			i, err := s.Add(t.Context(), m.manifest, m, AddOptions{Name: "a"})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Push(t.Context(), s, i, mustReference(t, r.host()+"/a:1"), AddOptions{})
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r.on(nil)
			for _, name := range []string{"/a:1", "/a@" + i.Digest.String()} {
				if got, err := c.pull(t, newStore(t), r.host()+name); err != nil || got.Digest != i.Digest {
					t.Errorf("%s: got %v, %v", name, got, err)
				}
			}
		})
	}
}

// TestPushPieces pushes through a proxy that takes small requests only, and
// loses one of them.
func TestPushPieces(t *testing.T) {
	m := bigImage(t, 1)
	for _, lost := range []string{"nothing", "a piece", "an answer", "a place"} {
		t.Run(lost, func(t *testing.T) {
			r := newTestRegistry(t)
			var mu sync.Mutex
			var came int64 // of the one upload that is in pieces
			n := 0
			r.on(func(w http.ResponseWriter, q *http.Request) bool {
				if q.ContentLength > 1<<20 {
					w.WriteHeader(http.StatusRequestEntityTooLarge)
					return true
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case q.Method == http.MethodPatch:
					n++
					switch {
					case n == 2 && lost == "a piece":
						panic(http.ErrAbortHandler)
					case n == 2 && lost == "a place":
						w.WriteHeader(http.StatusNotFound)
						came = 0
						return true
					}
					came += q.ContentLength
					if n == 2 && lost == "an answer" {
						r.inner.ServeHTTP(httptest.NewRecorder(), q)
						panic(http.ErrAbortHandler)
					}
				case q.Method == http.MethodGet && strings.Contains(q.URL.Path, "/uploads/"):
					w.Header().Set("Range", fmt.Sprintf("0-%d", came-1))
					w.WriteHeader(http.StatusNoContent)
					return true
				}
				return false
			})
			s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
			c.piece = 1 << 20
			i, err := s.Add(t.Context(), m.manifest, m, AddOptions{Name: "a"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Push(t.Context(), s, i, mustReference(t, r.host()+"/a:1"), AddOptions{}); err != nil {
				t.Fatal(err)
			}
			big := m.parsed(t).Layers[1]
			pieces := int((big.Size + c.piece - 1) / c.piece)
			if want := pieces + map[string]int{"a piece": 1, "a place": 2}[lost]; n != want || pieces < 3 {
				t.Errorf("sent %d pieces of %d", n, pieces)
			}
			r.on(nil)
			if got, err := c.pull(t, newStore(t), r.host()+"/a:1"); err != nil || got.Digest != i.Digest {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}
