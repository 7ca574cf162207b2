package image

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

func mustReference(t *testing.T, text string) Reference {
	t.Helper()
	ref, err := ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestPush(t *testing.T) {
	r, m := newTestRegistry(t), bigImage(t, 1)
	s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
	i, err := s.Add(t.Context(), m.manifest, m, AddOptions{Name: r.host() + "/old/name:1"})
	if err != nil {
		t.Fatal(err)
	}
	sent, err := c.Push(t.Context(), s, i, mustReference(t, r.host()+"/shop/web:1"), AddOptions{})
	if err != nil || sent.Digest != i.Digest {
		t.Fatalf("got %v, %v", sent, err)
	}
	if puts := r.asked("PUT shop/web/blobs"); len(puts) != 3 {
		t.Errorf("sent %q", puts)
	}
	if _, err := c.Push(t.Context(), s, i, mustReference(t, r.host()+"/shop/web:2"), AddOptions{}); err != nil {
		t.Error(err)
	}
	if asked := r.asked("blobs/uploads"); len(asked) > 0 {
		t.Errorf("sent again: %q", asked)
	}
	if _, err := c.Push(t.Context(), s, i, mustReference(t, r.host()+"/shop/web@"+i.Digest.String()), AddOptions{}); err != nil {
		t.Error(err)
	}
	if asked := r.asked("PUT"); len(asked) != 1 || asked[0] != "PUT shop/web/manifests/"+i.Digest.String() {
		t.Errorf("sent %q", asked)
	}
	if _, err := c.Push(t.Context(), s, i, mustReference(t, r.host()+"/shop/web@"+sumOf(nil).String()), AddOptions{}); err == nil || !strings.Contains(err.Error(), "push it to a tag") {
		t.Errorf("got %v", err)
	}
	other := newStore(t)
	for _, name := range []string{"/shop/web:1", "/shop/web:2"} {
		if got, err := c.pull(t, other, r.host()+name); err != nil || got.Digest != i.Digest {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

// TestPushMounts has the registry take blobs from another of its repositories.
func TestPushMounts(t *testing.T) {
	r, m := newTestRegistry(t), bigImage(t, 1)
	var mu sync.Mutex
	var mounted []string
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		if q.Method == http.MethodHead && strings.Contains(q.URL.Path, "/new/") && strings.Contains(q.URL.Path, "/blobs/") {
			w.WriteHeader(http.StatusNotFound) // it has one place for all blobs
			return true
		}
		if d := q.URL.Query().Get("mount"); d != "" && d != m.parsed(t).Layers[0].Digest.String() {
			mu.Lock()
			defer mu.Unlock()
			mounted = append(mounted, q.URL.Query().Get("from")+" "+d)
			w.WriteHeader(http.StatusCreated)
			return true
		}
		return false
	})
	s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
	i, err := s.Add(t.Context(), m.manifest, m, AddOptions{Name: r.host() + "/old:latest"})
	if err != nil {
		t.Fatal(err)
	}
	var stages []string
	_, err = c.Push(t.Context(), s, i, mustReference(t, r.host()+"/new"), AddOptions{Progress: func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Stage != StageWaiting && p.Stage != StageSending {
			stages = append(stages, string(p.Stage))
		}
	}})
	slices.Sort(stages)
	if err != nil || len(mounted) != 2 || !strings.HasPrefix(mounted[0], "old sha256:") || strings.Join(stages, " ") != "done mounted mounted" {
		t.Errorf("mounted %q, stages %q, %v", mounted, stages, err)
	}
	if puts := r.asked("PUT new/blobs"); len(puts) != 1 {
		t.Errorf("sent %q", puts)
	}
}

// plainImage has layers that are not packed, as image load leaves them.
func plainImage(t *testing.T) *made {
	m := bigImage(t, 3)
	manifest := m.parsed(t)
	c := new(v1.ConfigFile)
	if err := json.Unmarshal(m.blobs[manifest.Config.Digest], c); err != nil {
		t.Fatal(err)
	}
	for n, d := range manifest.Layers {
		tar := m.blobs[d.Digest]
		if z, err := gzip.NewReader(bytes.NewReader(tar)); err == nil {
			var b bytes.Buffer
			if _, err := b.ReadFrom(z); err != nil {
				t.Fatal(err)
			}
			tar = b.Bytes()
		}
		manifest.Layers[n] = v1.Descriptor{MediaType: types.OCIUncompressedLayer, Digest: c.RootFS.DiffIDs[n], Size: int64(len(tar))}
		m.blobs[c.RootFS.DiffIDs[n]] = tar
	}
	var err error
	if m.manifest, err = json.Marshal(manifest); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPushPacks packs what isn't, once, and to the same bytes each time.
func TestPushPacks(t *testing.T) {
	r, m := newTestRegistry(t), plainImage(t)
	var digests []v1.Hash
	for range 2 {
		s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
		i, err := s.Add(t.Context(), m.manifest, m, AddOptions{Name: "docker.io/library/plain:latest"})
		if err != nil {
			t.Fatal(err)
		}
		packed := 0
		for _, tag := range []string{":1", ":2"} {
			sent, err := c.Push(t.Context(), s, i, mustReference(t, r.host()+"/shop/web"+tag), AddOptions{Progress: func(p Progress) {
				if p.Stage == StagePacking && p.Done == p.Total && tag == ":2" {
					packed++
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			digests = append(digests, sent.Digest)
			if sent.Digest == i.Digest || sent.Layers[1].ChainID != i.Layers[1].ChainID {
				t.Errorf("sent %s of %s", sent.Digest, i.Digest)
			}
		}
		if packed > 0 {
			t.Error("packed again")
		}
		if same, err := s.Find("plain"); err != nil || same.Digest != i.Digest {
			t.Errorf("plain is now %v, %v", same, err)
		}
		if named, err := s.Find(r.host() + "/shop/web@" + digests[0].String()); err != nil || named.Digest != digests[0] {
			t.Errorf("what was pushed is not known: %v, %v", named, err)
		}
	}
	if digests[0] != digests[1] || digests[0] != digests[3] {
		t.Errorf("got %v", digests)
	}
	s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
	i, err := c.pull(t, s, r.host()+"/shop/web:2")
	if err != nil || i.Manifest.Layers[1].MediaType != types.OCILayer {
		t.Fatalf("got %v, %v", i, err)
	}
	if err := s.Unpack(t.Context(), i, AddOptions{}); err != nil {
		t.Error(err)
	}
}

func TestPushAgain(t *testing.T) {
	r, m := newTestRegistry(t), bigImage(t, 1)
	tokens := newTokens(t)
	tokens.expiring = true // after three requests
	guard(r, fmt.Sprintf(`Bearer realm="%s/token",service="here"`, tokens.URL), tokens.good)
	deny := r.hook
	broken := 2
	var mu sync.Mutex
	r.on(func(w http.ResponseWriter, q *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/blobs/") && broken > 0 {
			broken--
			panic(http.ErrAbortHandler)
		}
		return deny(w, q)
	})
	s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
	c.slots = make(chan struct{}, 1) // requests in order
	i, err := s.Add(t.Context(), m.manifest, m, AddOptions{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Push(t.Context(), s, i, mustReference(t, r.host()+"/a"), AddOptions{}); err != nil || broken > 0 {
		t.Errorf("got %v", err)
	}
	if len(tokens.log) < 3 || !strings.HasSuffix(tokens.log[0], "repository:a:pull,push") {
		t.Errorf("tokens %q", tokens.log)
	}
}

// TestPushDamaged tells of a damaged blob before the registry has to.
func TestPushDamaged(t *testing.T) {
	r, m := newTestRegistry(t), bigImage(t, 1)
	s, c := newStore(t), newTestClient(t, RegistryOptions{PlainHTTP: true})
	i, err := s.Add(t.Context(), m.manifest, m, AddOptions{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	path := s.blobPath(i.Layers[1].Digest)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range [][]byte{append([]byte("x"), b[1:]...), b[:1000]} {
		if err := os.WriteFile(path, damage, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = c.Push(t.Context(), s, i, mustReference(t, r.host()+"/a"), AddOptions{})
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) {
			t.Errorf("got %v", err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err = c.Push(t.Context(), s, i, mustReference(t, r.host()+"/a"), AddOptions{})
	var missing *MissingError
	if !errors.As(err, &missing) {
		t.Errorf("got %v", err)
	}
}

func TestParseRegistries(t *testing.T) {
	r, err := parseRegistries(strings.NewReader("plain_http: ['R.Example']\nmirrors: {R.Example: [https://m.example]}"))
	if sites, _ := r.sites(mustReference(t, "R.Example/a"), false); err != nil || len(sites) != 2 || sites[1].scheme != "http" {
		t.Errorf("got %v, %v", sites, err)
	}
	if r, err = parseRegistries(strings.NewReader("mirrors: {r.example: [HTTPS://M.Example/hub]}")); err != nil {
		t.Fatal(err)
	}
	if sites, err := r.sites(mustReference(t, "r.example/a"), false); err != nil || sites[0].account != "m.example" || sites[0].repository != "hub/a" {
		t.Errorf("got %v, %v", sites, err)
	}
	for text, problem := range map[string]string{
		"": "",
		"plain_http: [registry.example:5000]\nmirrors: {docker.io: [https://mirror.example, https://h.example/hub/]}": "",
		"plain: [x]": `line 1: unknown key "plain": there are`,
		"mirrors: {docker.io: https://m.example}":         "line 1: plain_http is a list of registries, and mirrors has",
		"plain_http: ['http://x']":                        "write host or host:port",
		"plain_http: [x/y]":                               "write host or host:port",
		"mirrors: {index.docker.io: []}":                  "is called docker.io",
		"mirrors: {Index.Docker.io: []}":                  "is called docker.io",
		"mirrors: {docker.io: [mirror.example]}":          "is not a mirror",
		"mirrors: {docker.io: ['https://u:p@m.example']}": "is written without a user",
		"mirrors: {docker.io: ['https://m.example/A B']}": "not the beginning of a repository's name",
		"mirrors: {docker.io: ['ftp://m.example']}":       "is not a mirror",
	} {
		_, err := parseRegistries(strings.NewReader(text))
		if (err == nil) != (problem == "") || err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: got %v, want %q", text, err, problem)
		}
	}
}

// TestCertificates wants a registry's own authority, and gives it the client's
// certificate.
func TestCertificates(t *testing.T) {
	inner := newTestRegistry(t)
	inner.offer("a", "latest", bigImage(t, 1))
	r := httptest.NewUnstartedServer(inner.inner)
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	r.StartTLS()
	defer r.Close()
	host := strings.TrimPrefix(r.URL, "https://")
	dir := t.TempDir()
	pull := func() error {
		c := newTestClient(t, RegistryOptions{})
		c.client.Transport = &hostTransport{dirs: []certificateDir{{dir, os.ReadFile}}, each: map[string]*http.Transport{}}
		_, err := c.pull(t, newStore(t), host+"/a")
		return err
	}
	var lost *UnreachableError
	if err := pull(); !errors.As(err, &lost) || !lost.Untrusted() {
		t.Errorf("got %v", err)
	}
	write := func(name, kind string, content []byte) {
		t.Helper()
		path := filepath.Join(dir, host, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair := r.TLS.Certificates[0]
	write("ca.crt", "CERTIFICATE", pair.Certificate[0])
	right := host
	host = strings.Replace(host, "127.0.0.1", "localhost", 1) // which the certificate isn't for
	write("ca.crt", "CERTIFICATE", pair.Certificate[0])
	if err := pull(); !errors.As(err, &lost) || lost.Untrusted() || !strings.Contains(err.Error(), "not localhost") {
		t.Errorf("got %v", err)
	}
	host = right
	if err := pull(); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("got %v", err)
	}
	write("client.cert", "CERTIFICATE", pair.Certificate[0])
	if err := pull(); err == nil || !strings.Contains(err.Error(), "client.key") {
		t.Errorf("got %v", err)
	}
	write("client.key", "PRIVATE KEY", marshalKey(t, pair.PrivateKey))
	if err := pull(); err != nil {
		t.Error(err)
	}
}

func TestPlatforms(t *testing.T) {
	index := func(platforms ...string) *v1.IndexManifest {
		i := &v1.IndexManifest{}
		for n, text := range platforms {
			d := v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: int64(n)}
			switch text {
			case "":
			case "about":
				d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
				d.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
			case "about linux/amd64":
				d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
				d.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
			default:
				p, err := v1.ParsePlatform(text)
				if err != nil {
					t.Fatal(err)
				}
				d.Platform = p
			}
			i.Manifests = append(i.Manifests, d)
		}
		return i
	}
	for _, test := range []struct {
		asked string // "" is a machine's own
		own   Platform
		have  []string
		want  int // -1: none
	}{
		{"", Platform{Architecture: "amd64"}, []string{"linux/arm64", "linux/amd64"}, 1},
		{"", Platform{Architecture: "amd64"}, []string{"windows/amd64", "linux/386"}, 1},
		{"linux/amd64", Platform{}, []string{"linux/386"}, -1},
		{"linux/amd64/v3", Platform{}, []string{"linux/amd64", "linux/amd64/v4", "linux/amd64/v2"}, 2},
		{"", Platform{Architecture: "arm64"}, []string{"linux/arm/v7", "linux/arm64/v8"}, 1},
		{"", Platform{Architecture: "arm64"}, []string{"linux/arm/v6", "linux/arm/v7"}, 1},
		{"arm64", Platform{}, []string{"linux/arm/v7"}, -1},
		{"", Platform{Architecture: "arm", Variant: "v7"}, []string{"linux/arm/v5", "linux/arm/v6", "linux/arm/v8"}, 1},
		{"armhf", Platform{}, []string{"linux/arm/v6", "linux/arm/v7"}, 1},
		{"linux/arm", Platform{}, []string{"linux/arm/v6", "linux/arm"}, 1},
		{"x86_64", Platform{}, []string{"unknown/unknown", "linux/amd64"}, 1},
		{"", Platform{Architecture: "amd64"}, []string{"", "linux/arm64"}, -1},
		{"", Platform{Architecture: "amd64"}, []string{""}, 0},
		{"", Platform{Architecture: "amd64"}, []string{"about", ""}, 1},
		{"", Platform{Architecture: "amd64"}, []string{"about linux/amd64", "linux/amd64"}, 1},
		{"", Platform{Architecture: "riscv64"}, []string{"linux/amd64"}, -1},
	} {
		p := test.own
		if test.asked != "" {
			var err error
			if p, err = ParsePlatform(test.asked); err != nil {
				t.Fatal(err)
			}
		}
		got := -1
		if d := choosePlatform(index(test.have...), p); d != nil {
			got = int(d.Size)
		}
		if got != test.want {
			t.Errorf("%s%v of %v: got %d, want %d", test.asked, test.own, test.have, got, test.want)
		}
	}
	for _, text := range []string{"", "windows/amd64", "linux/", "linux/a/b/c", "linux//v7", "foo", "linux/foo", "linux/amd64/v1/2"} {
		if p, err := ParsePlatform(text); err == nil {
			t.Errorf("%q is %s", text, p)
		}
	}
}

func marshalKey(t *testing.T, key any) []byte {
	t.Helper()
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
