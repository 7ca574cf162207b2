package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// testRegistry is a registry on a loopback address whose answers a test may
// change on their way.
type testRegistry struct {
	*httptest.Server
	t     *testing.T
	inner http.Handler

	mu   sync.Mutex
	hook func(w http.ResponseWriter, q *http.Request) bool // true: it has answered
	log  []string                                          // method and path of each request, with its range
}

func newTestRegistry(t *testing.T) *testRegistry {
	r := &testRegistry{t: t, inner: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.log = append(r.log, strings.TrimSpace(q.Method+" "+strings.TrimPrefix(q.URL.Path, "/v2/")+" "+q.Header.Get("Range")))
		hook := r.hook
		r.mu.Unlock()
		if hook == nil || !hook(w, q) {
			r.inner.ServeHTTP(w, q)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *testRegistry) host() string { return strings.TrimPrefix(r.URL, "http://") }

// asked lists the requests that contain a word, and forgets all.
func (r *testRegistry) asked(word string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []string
	for _, line := range r.log {
		if strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	r.log = nil
	return found
}

// on changes answers from now on.
func (r *testRegistry) on(hook func(w http.ResponseWriter, q *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hook = hook
}

// put stores a document or a blob past all hooks.
func (r *testRegistry) put(path, kind string, body []byte) {
	r.t.Helper()
	method := http.MethodPut
	if strings.Contains(path, "/blobs/") {
		method = http.MethodPost
	}
	q := httptest.NewRequest(method, "/v2/"+path, bytes.NewReader(body))
	q.Header.Set("Content-Type", kind)
	w := httptest.NewRecorder()
	r.inner.ServeHTTP(w, q)
	if w.Code/100 != 2 {
		r.t.Fatalf("cannot put %s: %d %s", path, w.Code, w.Body)
	}
}

// offer stores an image under a name.
func (r *testRegistry) offer(repository, tag string, m *made) {
	r.t.Helper()
	for h, b := range m.blobs {
		r.put(repository+"/blobs/uploads/?digest="+h.String(), "application/octet-stream", b)
	}
	r.put(repository+"/manifests/"+tag, string(types.OCIManifestSchema1), m.manifest)
}

// client gives access to the registry, with pauses that are only noted.
type testClient struct {
	*Registry
	mu      sync.Mutex
	pauses  []time.Duration
	notices []string
}

func newTestClient(t *testing.T, o RegistryOptions) *testClient {
	c := &testClient{}
	if o.Credentials.Getenv == nil {
		o.Credentials = Credentials{Getenv: func(string) string { return "" }, User: User{UID: 1 << 30}}
	}
	o.Notice = func(text string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.notices = append(c.notices, text)
	}
	c.Registry = newRegistry(o, nil)
	c.pause = func(ctx context.Context, d time.Duration) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.pauses = append(c.pauses, d)
		return ctx.Err()
	}
	t.Cleanup(c.Close)
	return c
}

func (c *testClient) noticed() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.notices, "\n")
}

var amd64 = Platform{Architecture: "amd64"}

func (c *testClient) pull(t *testing.T, s *Store, text string) (*Image, error) {
	t.Helper()
	ref, err := ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return c.Pull(context.Background(), s, ref, amd64, AddOptions{})
}

// bigImage has a layer of some megabytes that doesn't pack well.
func bigImage(t *testing.T, seed byte) *made {
	b := make([]byte, 3<<20)
	x := uint32(seed) + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return makeImage(t, v1.Config{}, makeTar(t, file("small", "x")), makeTar(t, file("big", string(b))))
}

func (m *made) parsed(t *testing.T) *v1.Manifest {
	t.Helper()
	p, err := parseManifest(m.manifest)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func sumOf(b []byte) v1.Hash {
	h, _, _ := v1.SHA256(bytes.NewReader(b))
	return h
}

func TestPull(t *testing.T) {
	r := newTestRegistry(t)
	ours, other := bigImage(t, 1), bigImage(t, 2)
	r.offer("shop/web", "one", ours)
	r.offer("shop/web", "two", other)
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, of := range []struct {
		m        *made
		platform v1.Platform
	}{{other, v1.Platform{OS: "unknown", Architecture: "unknown"}}, {other, v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
		{other, v1.Platform{OS: "windows", Architecture: "amd64"}}, {ours, v1.Platform{OS: "linux", Architecture: "amd64"}}} {
		index.Manifests = append(index.Manifests, v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: int64(len(of.m.manifest)),
			Digest: sumOf(of.m.manifest), Platform: &of.platform})
	}
	text, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	r.put("shop/web/manifests/latest", string(types.OCIImageIndex), text)

	s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
	i, err := c.pull(t, s, r.host()+"/shop/web")
	if err != nil {
		t.Fatal(err)
	}
	if i.Digest != sumOf(ours.manifest) || i.Index != sumOf(text) {
		t.Errorf("got %s of %s", i.Digest, i.Index)
	}
	if err := s.Unpack(context.Background(), i, AddOptions{}); err != nil {
		t.Error(err)
	}
	r.asked("")
	for _, pin := range []v1.Hash{i.Digest, i.Index} {
		name := r.host() + "/shop/web@" + pin.String()
		if again, err := c.pull(t, s, name); err != nil || again.Digest != i.Digest {
			t.Errorf("%s: got %v, %v", name, again, err)
		}
	}
	if asked := r.asked(""); len(asked) > 0 {
		t.Errorf("asked for what is there and pinned: %q", asked)
	}
	if _, err := c.pull(t, s, r.host()+"/shop/web"); err != nil {
		t.Error(err)
	}
	if asked := r.asked(""); len(asked) != 1 || asked[0] != "HEAD shop/web/manifests/latest" {
		t.Errorf("asked for what is there: %q", asked)
	}
	r.put("shop/web/manifests/latest", string(types.OCIManifestSchema1), other.manifest)
	if now, err := c.pull(t, s, r.host()+"/shop/web"); err != nil || now.Digest != sumOf(other.manifest) {
		t.Errorf("got %v, %v, of what has changed", now, err)
	}
	r.put("shop/web/manifests/latest", string(types.OCIImageIndex), text)
	if _, err := c.pull(t, s, r.host()+"/shop/web:two"); err != nil || c.noticed() != "" {
		t.Errorf("got %v, notices %s", err, c.noticed())
	}
	ref, _ := ParseReference(r.host() + "/shop/web:two")
	if _, err := c.Pull(t.Context(), s, ref, Platform{Architecture: "arm64", Exact: true}, AddOptions{}); err != nil ||
		c.noticed() != ref.Short()+" is made for linux/amd64" {
		t.Errorf("got %v, notices %s", err, c.noticed())
	}
	ref, _ = ParseReference(r.host() + "/shop/web")
	_, err = c.Resolve(context.Background(), ref, Platform{Architecture: "riscv64"})
	var none *NoPlatformError
	if !errors.As(err, &none) || !strings.Contains(err.Error(), "linux/riscv64; it has linux/arm64/v8, windows/amd64, linux/amd64") {
		t.Errorf("got %v", err)
	}
	if m, err := c.Resolve(context.Background(), ref, Platform{Architecture: "arm64", Exact: true}); err != nil || m.Digest != sumOf(other.manifest) {
		t.Errorf("got %v, %v", m, err)
	}
}

// TestPullTogether pulls two images at once that have a layer in common.
func TestPullTogether(t *testing.T) {
	r := newTestRegistry(t)
	common := makeTar(t, file("big", strings.Repeat("common", 1<<20)))
	one, two := makeImage(t, v1.Config{}, common, makeTar(t, file("a", "one"))), makeImage(t, v1.Config{}, common, makeTar(t, file("a", "two")))
	r.offer("one", "latest", one)
	r.offer("two", "latest", two)
	s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
	var wait sync.WaitGroup
	for _, name := range []string{"/one", "/two", "/one"} {
		wait.Go(func() {
			i, err := c.pull(t, s, r.host()+name)
			if err == nil {
				err = s.Unpack(context.Background(), i, AddOptions{})
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wait.Wait()
	if asked := r.asked("blobs/" + sumOf(common).String()); len(asked) != 1 {
		t.Errorf("asked %q", asked)
	}
}

// TestNoPlainHTTP wants TLS even from the machine itself: nobody asked for less.
func TestNoPlainHTTP(t *testing.T) {
	r := newTestRegistry(t)
	r.offer("a", "latest", bigImage(t, 1))
	_, err := newTestClient(t, RegistryOptions{}).pull(t, newStore(t), r.host()+"/a")
	var lost *UnreachableError
	if !errors.As(err, &lost) || !lost.NotTLS() {
		t.Errorf("got %v", err)
	}
	if asked := r.asked(""); len(asked) > 0 {
		t.Errorf("asked without TLS: %q", asked)
	}
	o := RegistryOptions{Registries: Registries{PlainHTTP: []string{r.host()}}}
	if _, err := newTestClient(t, o).pull(t, newStore(t), r.host()+"/a"); err != nil {
		t.Error(err)
	}
}

// cutting answers blobs, and cuts the connection of each of the first times
// after some bytes of the body.
func cutting(m *made, times, after int, ranges bool) func(http.ResponseWriter, *http.Request) bool {
	var mu sync.Mutex
	return func(w http.ResponseWriter, q *http.Request) bool {
		_, digest, found := strings.Cut(q.URL.Path, "/blobs/")
		h, err := v1.NewHash(digest)
		b := m.blobs[h]
		if !found || err != nil || len(b) < after {
			return false
		}
		if !ranges {
			q.Header.Del("Range")
		}
		mu.Lock()
		cut := times > 0
		times--
		mu.Unlock()
		if !cut {
			if ranges {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			w.Write(b)
			return true
		}
		start := 0
		fmt.Sscanf(q.Header.Get("Range"), "bytes=%d-", &start)
		w.Header().Set("Content-Length", fmt.Sprint(len(b)-start))
		if start > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(b)-1, len(b)))
			w.WriteHeader(http.StatusPartialContent)
		}
		w.Write(b[start:min(start+after, len(b))])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func TestPullResumes(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		r, m := newTestRegistry(t), bigImage(t, 1)
		r.offer("a", "latest", m)
		r.on(cutting(m, 2, 1<<20, ranges))
		s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
		if _, err := c.pull(t, s, r.host()+"/a"); err != nil {
			t.Fatalf("ranges %v: %v", ranges, err)
		}
		big := m.parsed(t).Layers[1].Digest.String()
		asked := r.asked(big)
		if len(asked) != 3 || !strings.Contains(asked[1], " bytes=") || strings.HasSuffix(asked[2], asked[1][len(asked[0]):]) == ranges {
			t.Errorf("ranges %v: asked %q", ranges, asked)
		}
	}
}

// TestPullGoesOn resumes what a killed pull left, also where that is damaged.
func TestPullGoesOn(t *testing.T) {
	r, m := newTestRegistry(t), bigImage(t, 1)
	r.offer("a", "latest", m)
	big := m.parsed(t).Layers[1]
	for damaged := range 2 {
		s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
		i, err := s.ingest(context.Background(), big.Digest, big.Size)
		if err != nil {
			t.Fatal(err)
		}
		part := bytes.Clone(m.blobs[big.Digest][:1<<20])
		part[5] ^= byte(damaged)
		if _, err := i.Write(part); err != nil {
			t.Fatal(err)
		}
		i.Close()
		r.asked("")
		if _, err := c.pull(t, s, r.host()+"/a"); err != nil {
			t.Errorf("damaged %d: %v", damaged, err)
		}
		if asked := r.asked(big.Digest.String()); len(asked) != 1+damaged || !strings.Contains(asked[0], fmt.Sprintf("bytes=%d-", 1<<20)) {
			t.Errorf("damaged %d: asked %q", damaged, asked)
		}
	}
}

func TestPullStalls(t *testing.T) {
	r, m := newTestRegistry(t), bigImage(t, 1)
	r.offer("a", "latest", m)
	big := m.parsed(t).Layers[1].Digest
	var once sync.Once
	r.on(func(w http.ResponseWriter, q *http.Request) (answered bool) {
		if strings.HasSuffix(q.URL.Path, big.String()) {
			once.Do(func() {
				answered = true
				w.Header().Set("Content-Length", fmt.Sprint(len(m.blobs[big])))
				w.Write(m.blobs[big][:1000])
				w.(http.Flusher).Flush()
				<-q.Context().Done()
			})
		}
		return answered
	})
	c := newTestClient(t, RegistryOptions{PlainHTTP: true})
	c.stall = 200 * time.Millisecond
	if _, err := c.pull(t, newStore(t), r.host()+"/a"); err != nil {
		t.Error(err)
	}
	if asked := r.asked(big.String()); len(asked) != 2 || !strings.Contains(asked[1], "bytes=1000-") {
		t.Errorf("asked %q", asked)
	}
}

func TestPullWaits(t *testing.T) {
	for _, test := range []struct {
		status     int
		retryAfter string
		times      int
		pauses     int
		least      time.Duration
		problem    string
		told       string
	}{
		{503, "", 2, 2, firstPause, "", ""},
		{429, "7", 1, 1, 7 * time.Second, "", "slow down; it is asked again in 7s"},
		{429, "7", 2, 2, 7 * time.Second, "", "slow down; it is asked again in 7s"},
		{429, "3600", 1, 0, 0, "answers 429 (Too Many Requests) when asked for the manifest of a:latest: TOOMANYREQUESTS: slow down; it wants to be left alone for 1h0m0s", ""},
		{500, "", 100, originTry - 1, firstPause, "answers 500", "slow down; it is asked again in 2s"},
		{404, "", 100, 0, 0, "answers 404", ""},
		{403, "", 100, 0, 0, "answers 403", ""},
	} {
		r := newTestRegistry(t)
		r.offer("a", "latest", bigImage(t, 1))
		left := test.times
		r.on(func(w http.ResponseWriter, q *http.Request) bool {
			if left--; left < 0 {
				return false
			}
			if test.retryAfter != "" {
				w.Header().Set("Retry-After", test.retryAfter)
			}
			w.WriteHeader(test.status)
			fmt.Fprint(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`)
			return true
		})
		c := newTestClient(t, RegistryOptions{PlainHTTP: true, Registries: Registries{}})
		_, err := c.pull(t, newStore(t), r.host()+"/a")
		if (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%d: got %v", test.status, err)
		}
		if len(c.pauses) != test.pauses || test.pauses > 0 && c.pauses[0] < test.least {
			t.Errorf("%d: pauses %v", test.status, c.pauses)
		}
		if told := c.noticed(); strings.Count(told, "asked again") != min(len(test.told), 1) || !strings.Contains(told, test.told) {
			t.Errorf("%d: told %q", test.status, told)
		}
	}
}
