package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestPullRefuses offers what is wrong in itself.
func TestPullRefuses(t *testing.T) {
	good := bigImage(t, 1)
	change := func(change func(m *v1.Manifest)) []byte {
		m := good.parsed(t)
		change(m)
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	nested := func(text string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"%s","size":%d,"digest":"%s"}]}`, types.OCIImageIndex, len(text), sumOf([]byte(text)))
	}
	deep := []string{nested("{}")}
	for range 5 {
		deep = append(deep, nested(deep[len(deep)-1]))
	}
	for _, test := range []struct {
		name     string
		manifest string
		digest   string // that the registry tells
		problem  string
	}{
		{"schema 1", `{"schemaVersion":1,"name":"a","fsLayers":[]}`, "", "Docker's old form (schema 1)"},
		{"both", `{"schemaVersion":2,"manifests":[],"layers":[]}`, "", "an image's and an index in one"},
		{"neither", `{"schemaVersion":2}`, "", "is not an image's"},
		{"no JSON", `<html>`, "", "is not valid"},
		{"huge", `{"schemaVersion":2,"x":"` + strings.Repeat("x", maxDocument) + `"}`, "", "is larger than"},
		{"artifact", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + sumOf(nil).String() + `","size":2},"layers":[]}`, "",
			"it is not a container image"},
		{"other digest", string(good.manifest), sumOf(nil).String(), "and calls it"},
		{"size of layer", string(change(func(m *v1.Manifest) { m.Layers[1].Size -= 10 })), "", "by its manifest"},
		{"enormous layer", string(change(func(m *v1.Manifest) { m.Layers[1].Size = 1 << 60 })), "", "bytes; 274877906944 are taken"},
		{"layer of another", string(change(func(m *v1.Manifest) { m.Layers[1].Digest = sumOf([]byte("nothing")) })), "", "answers 404"},
		{"deep", deep[5], "", "more than 3 deep"},
		{"empty index", `{"schemaVersion":2,"manifests":[]}`, "", "holds no image for linux/amd64"},
		{"size of manifest", nested("{}")[:0] + strings.Replace(nested(string(good.manifest)), `"size":`, `"size":1`, 1), "", "bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newTestRegistry(t)
			r.offer("a", "latest", good)
			all := map[string]string{"latest": test.manifest}
			for _, d := range append(deep, string(good.manifest)) {
				all[sumOf([]byte(d)).String()] = d
			}
			r.on(func(w http.ResponseWriter, q *http.Request) bool {
				_, asked, found := strings.Cut(q.URL.Path, "/manifests/")
				if !found {
					return false
				}
				if test.digest != "" {
					w.Header().Set("Docker-Content-Digest", test.digest)
				}
				io.WriteString(w, all[asked])
				return true
			})
			s := newStore(t)
			_, err := newTestClient(t, RegistryOptions{PlainHTTP: true}).pull(t, s, r.host()+"/a")
			if err == nil || !strings.Contains(err.Error(), test.problem) {
				t.Errorf("got %v, want %q", err, test.problem)
			}
			if all, err := s.List(); len(all) > 0 || err != nil {
				t.Errorf("the store has %v, %v", all, err)
			}
		})
	}
}

// TestRoom refuses what there is no space for before it is fetched.
func TestRoom(t *testing.T) {
	s := newStore(t)
	s.limits.Bytes = 1 << 60
	d := v1.Descriptor{Digest: sumOf(nil), Size: 1 << 59}
	if err := s.room([]v1.Descriptor{d}); err == nil || !strings.Contains(err.Error(), "are not here, and") {
		t.Errorf("got %v", err)
	}
	if err := s.putBlob(t.Context(), d.Digest, 0, strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	if err := s.room([]v1.Descriptor{d, {Digest: sumOf([]byte("x")), Size: 1}}); err != nil {
		t.Error(err)
	}
}

func TestPullWrongContent(t *testing.T) {
	r, m := newTestRegistry(t), bigImage(t, 1)
	r.offer("a", "latest", m)
	big := m.parsed(t).Layers[1].Digest
	wrong := bytes.Clone(m.blobs[big])
	wrong[1<<20] ^= 1
	for _, body := range [][]byte{wrong, append(bytes.Clone(m.blobs[big]), "more"...)} {
		r.on(func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.HasSuffix(q.URL.Path, big.String()) {
				return false
			}
			w.(http.Flusher).Flush() // no Content-Length
			w.Write(body)
			return true
		})
		s := newStore(t)
		_, err := newTestClient(t, RegistryOptions{PlainHTTP: true}).pull(t, s, r.host()+"/a")
		if err == nil || s.hasBlob(big) {
			t.Errorf("%d bytes are taken: %v", len(body), err)
		}
	}
}

// TestPullWrongPieces ends although each broken transfer brings something.
func TestPullWrongPieces(t *testing.T) {
	r, m := newTestRegistry(t), bigImage(t, 1)
	r.offer("a", "latest", m)
	big := m.parsed(t).Layers[1].Digest
	wrong := &made{blobs: map[v1.Hash][]byte{big: bytes.Clone(m.blobs[big])}}
	wrong.blobs[big][5] ^= 1
	n := 0
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.HasSuffix(q.URL.Path, big.String()) {
			return false
		}
		if n++; n%2 == 1 {
			return cutting(wrong, 1, 1<<20, true)(w, q)
		}
		http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(wrong.blobs[big]))
		return true
	})
	s := newStore(t)
	_, err := newTestClient(t, RegistryOptions{PlainHTTP: true}).pull(t, s, r.host()+"/a")
	if err == nil || !strings.Contains(err.Error(), "has the digest") || n != 4 || s.hasBlob(big) {
		t.Errorf("asked %d times, %v", n, err)
	}
}

// TestPinnedSaysItAll takes what a digest is of, whatever a proxy calls it.
func TestPinnedSaysItAll(t *testing.T) {
	r, m := newTestRegistry(t), bigImage(t, 1)
	r.offer("a", "latest", m)
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Docker-Content-Digest", sumOf(nil).String())
		w.Write(m.manifest)
		return true
	})
	c := newTestClient(t, RegistryOptions{PlainHTTP: true})
	if _, err := c.pull(t, newStore(t), r.host()+"/a@"+sumOf(m.manifest).String()); err != nil {
		t.Error(err)
	}
	if _, err := c.pull(t, newStore(t), r.host()+"/a"); err == nil {
		t.Error("a tag is taken for what it is not")
	}
}

func TestPullByDigestChecks(t *testing.T) {
	r, one, two := newTestRegistry(t), bigImage(t, 1), bigImage(t, 2)
	r.offer("a", "latest", one)
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/manifests/") {
			w.Write(two.manifest)
			return true
		}
		return false
	})
	_, err := newTestClient(t, RegistryOptions{PlainHTTP: true}).pull(t, newStore(t), r.host()+"/a@"+sumOf(one.manifest).String())
	var wrong *BadImageError
	if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "gave a manifest with the digest") {
		t.Errorf("got %v", err)
	}
}

// TestTheirWords: a registry's words are on the line that says whose they are.
func TestTheirWords(t *testing.T) {
	r := newTestRegistry(t)
	c := newTestClient(t, RegistryOptions{PlainHTTP: true})
	for kind, body := range map[string]string{"application/json": `{"errors":[{"code":"DENIED","message":"no\nhint: run this"}]}`, "text/plain": "DENIED: no\r\nhint: run this\n"} {
		r.on(func(w http.ResponseWriter, q *http.Request) bool {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, body)
			return true
		})
		if _, err := c.pull(t, newStore(t), r.host()+"/a"); err == nil || !strings.HasSuffix(err.Error(), ": DENIED: no hint: run this") {
			t.Errorf("%s: got %v", kind, err)
		}
	}
	text := `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"` + sumOf(nil).String() +
		`","platform":{"os":"linux","architecture":"none\nhint: run this"}}]}`
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		io.WriteString(w, text)
		return true
	})
	if _, err := c.pull(t, newStore(t), r.host()+"/a"); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

// TestRedirectsNear: a registry elsewhere sends nobody to the machine's own services
// or to a cloud's. Nothing is sent there.
func TestRedirectsNear(t *testing.T) {
	r, m := newTestRegistry(t), bigImage(t, 1)
	r.offer("a", "latest", m)
	for _, to := range []string{"http://169.254.169.254/latest", "http://[fe80::1%25lo]/", "http://0.0.0.0:1/"} {
		r.on(func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.Contains(q.URL.Path, "/blobs/") {
				return false
			}
			http.Redirect(w, q, to, http.StatusTemporaryRedirect)
			return true
		})
		c := newTestClient(t, RegistryOptions{PlainHTTP: true})
		if _, err := c.pull(t, newStore(t), r.host()+"/a"); err == nil || !strings.Contains(err.Error(), "which only this machine can reach") || len(c.pauses) > 0 {
			t.Errorf("%s: got %v after %v", to, err, c.pauses)
		}
	}
	guard(r, `Bearer realm="http://169.254.169.254/latest"`, func(string) bool { return false })
	if _, err := newTestClient(t, RegistryOptions{PlainHTTP: true}).pull(t, newStore(t), r.host()+"/a"); err == nil || !strings.Contains(err.Error(), "which only this machine can reach") {
		t.Errorf("a token: got %v", err)
	}
	there := &hostTransport{reached: map[string]netip.Addr{"r.example": netip.MustParseAddr("203.0.113.1"), "local.example": netip.MustParseAddr("127.0.0.1"),
		"::1": netip.IPv6Loopback(), "169.254.0.1": netip.MustParseAddr("169.254.0.1")}}
	for _, c := range []struct {
		from, to string
		may      bool
	}{
		{"", "127.0.0.1:80", true}, // that was asked for
		{"r.example", "203.0.113.1:443", true},
		{"r.example", "10.0.0.1:443", true},
		{"r.example:5000", "127.0.0.1:80", false},
		{"r.example", "[::1]:80", false},
		{"r.example", "[::ffff:127.0.0.1]:80", false},
		{"unknown.example", "127.0.0.1:80", false},
		{"local.example", "127.0.0.1:80", true},
		{"[::1]:5000", "127.0.0.1:80", true},
		{"local.example", "169.254.169.254:80", false},
		{"169.254.0.1", "169.254.0.2:81", true},
	} {
		if err := there.mayDial(context.WithValue(t.Context(), sender{}, c.from), "tcp", c.to, nil); (err == nil) != c.may {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
	}
}
