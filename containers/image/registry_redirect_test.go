package image

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// elsewhere is where a registry has its blobs: another host, with addresses
// that are signed. refuse answers the first requests.
type elsewhere struct {
	*httptest.Server
	mu     sync.Mutex
	asked  []string // the range of each request
	leaked bool
}

func newElsewhere(t *testing.T, m *made, refuse func(n int, w http.ResponseWriter, q *http.Request) bool) *elsewhere {
	e := &elsewhere{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		e.mu.Lock()
		n := len(e.asked)
		e.asked = append(e.asked, q.Header.Get("Range"))
		e.leaked = e.leaked || q.Header.Get("Authorization") != ""
		e.mu.Unlock()
		if refuse(n, w, q) {
			return
		}
		for h, b := range m.blobs {
			if strings.HasSuffix(q.URL.Path, h.Hex) {
				http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(b))
			}
		}
	}))
	t.Cleanup(e.Close)
	return e
}

// redirecting has a registry send on for one blob.
func redirecting(r *testRegistry, to string, h v1.Hash) {
	before := r.hook
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		if before != nil && before(w, q) {
			return true
		}
		if !strings.HasSuffix(q.URL.Path, "/blobs/"+h.String()) {
			return false
		}
		http.Redirect(w, q, to+"/x/"+h.Hex+"?signature=s3cret", http.StatusTemporaryRedirect)
		return true
	})
}

// signedIn gives access with a password that is for a registry.
func signedIn(t *testing.T, r *testRegistry) *testClient {
	t.Helper()
	return newTestClient(t, RegistryOptions{PlainHTTP: true, Credentials: asUser(t, map[string]string{
		".docker/config.json": fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.host(), basicAuth("ada", "s3cret"))})})
}

// TestRedirectRefused has the other host want somebody to sign in there: what is
// kept for the registry is not for it. An address that was good for a time only
// is asked for again, and the transfer goes on where it was.
func TestRedirectRefused(t *testing.T) {
	m := bigImage(t, 1)
	big := m.parsed(t).Layers[1].Digest
	for _, test := range []struct {
		name   string
		refuse func(n int, w http.ResponseWriter, q *http.Request) bool
		asked  int
	}{
		{"once", func(n int, w http.ResponseWriter, q *http.Request) bool {
			switch n {
			case 0:
				return cutting(m, 1, 1<<20, true)(w, blobRequest(q, big))
			case 1:
				w.WriteHeader(http.StatusForbidden)
				return true
			}
			return false
		}, 3},
		{"always", func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}, connectTry},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, own, thief := newTestRegistry(t), newTokens(t), newTokens(t)
			r.offer("a", "latest", m)
			e := newElsewhere(t, m, func(n int, w http.ResponseWriter, q *http.Request) bool {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, thief.URL))
				return test.refuse(n, w, q)
			})
			guard(r, fmt.Sprintf(`Bearer realm="%s/token",service="here"`, own.URL), own.good)
			redirecting(r, e.URL, big)
			_, err := signedIn(t, r).pull(t, newStore(t), r.host()+"/a")
			if len(thief.log) > 0 || e.leaked {
				t.Errorf("another host was told what is the registry's: %q", thief.log)
			}
			if len(e.asked) != test.asked {
				t.Errorf("asked %q", e.asked)
			}
			if test.name == "once" {
				if err != nil || !strings.HasPrefix(e.asked[2], fmt.Sprintf("bytes=%d-", 1<<20)) {
					t.Errorf("got %v; asked %q", err, e.asked)
				}
				return
			}
			var denied *RegistryError
			want := fmt.Sprintf("%s, where http://%s sends on to, answers 401", strings.TrimPrefix(e.URL, "http://"), r.host())
			if !errors.As(err, &denied) || !denied.Redirected || denied.Credentials != "" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// blobRequest is one as cutting knows it.
func blobRequest(q *http.Request, h v1.Hash) *http.Request {
	c := q.Clone(q.Context())
	c.URL.Path = "/v2/a/blobs/" + h.String()
	return c
}

// TestEcho shows nothing of an answer that shows what was sent.
func TestEcho(t *testing.T) {
	r, s := newTestRegistry(t), newTokens(t)
	guard(r, fmt.Sprintf(`Bearer realm="%s/token"`, s.URL), s.good)
	deny := r.hook
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		if deny(w, q) {
			return true
		}
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "blocked: %q", q.Header)
		return true
	})
	if _, err := signedIn(t, r).pull(t, newStore(t), r.host()+"/a"); err == nil || strings.Contains(err.Error(), "Bearer") {
		t.Errorf("got %v", err)
	}
	guard(r, `Basic realm="x"`, func(string) bool { return false })
	deny = r.hook
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		if q.Header.Get("Authorization") == "" {
			return deny(w, q)
		}
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"not with %s"}]}`, q.Header.Get("Authorization"))
		return true
	})
	if _, err := signedIn(t, r).pull(t, newStore(t), r.host()+"/a"); err == nil || strings.Contains(err.Error(), "Basic") {
		t.Errorf("got %v", err)
	}
}

func TestSamePlace(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"https://r.example/v2", "https://r.example:443/x", true},
		{"https://R.example", "https://r.example", true},
		{"http://[::1]", "http://[::1]:80", true},
		{"https://r.example", "https://r.example:80", false},
		{"https://r.example", "http://r.example", false},
		{"https://r.example", "https://cdn.r.example", false},
	} {
		a, err := url.Parse(c.a)
		b, err2 := url.Parse(c.b)
		if err = errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if samePlace(a, b) != c.same {
			t.Errorf("%s and %s: %v", a, b, !c.same)
		}
	}
}

// TestSecretsStay lets registries fail in all ways with a password, a token and
// a signed address, and looks for them in what is told and kept.
func TestSecretsStay(t *testing.T) {
	m := bigImage(t, 1)
	big := m.parsed(t).Layers[1].Digest
	for name, status := range map[string]int{"cut": 0, "401": 401, "403": 403, "404": 404, "302": 302, "200": 200} {
		var times atomic.Int64
		e := newElsewhere(t, m, func(_ int, w http.ResponseWriter, q *http.Request) bool {
			times.Add(1)
			switch status {
			case 0:
				panic(http.ErrAbortHandler)
			case 302:
				w.Header().Set("Location", "http://[::1/?signature=s3cret")
			case 200:
				return false
			}
			w.WriteHeader(status)
			return true
		})
		r, tokens := newTestRegistry(t), newTokens(t)
		r.offer("a", "latest", m)
		guard(r, fmt.Sprintf(`Bearer realm="%s/token"`, tokens.URL), tokens.good)
		redirecting(r, e.URL, big)
		s, c := newStore(t), signedIn(t, r)
		_, err := c.pull(t, s, r.host()+"/a")
		if (err == nil) != (status == 200) || times.Load() == 0 {
			t.Errorf("%s: got %v", name, err)
		}
		if text := fmt.Sprint(err) + c.noticed(); strings.Contains(text, "s3cret") || strings.Contains(text, "signature") {
			t.Errorf("%s: a secret is told: %s", name, text)
		}
		err = filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if bytes.Contains(text, []byte("s3cret")) || bytes.Contains(text, []byte("signature=")) {
				t.Errorf("%s: a secret is kept in %s", name, path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
