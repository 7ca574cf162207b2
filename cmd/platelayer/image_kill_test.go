package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"platelayer/containers/image"
)

// slowRegistry serves an image, its blobs slowly.
type slowRegistry struct {
	*httptest.Server
	layers []map[string]string // files and their content
	served atomic.Int64        // bytes of blobs
}

func newSlowRegistry(t *testing.T) *slowRegistry {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	r := &slowRegistry{}
	put := func(method, path, kind string, body []byte) (digest string) {
		t.Helper()
		digest = fmt.Sprintf("sha256:%x", sha256.Sum256(body))
		q := httptest.NewRequest(method, "/v2/shop/web/"+strings.ReplaceAll(path, "DIGEST", digest), bytes.NewReader(body))
		q.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		inner.ServeHTTP(w, q)
		if w.Code != http.StatusCreated {
			t.Fatalf("cannot put %s: %d %s", path, w.Code, w.Body)
		}
		return digest
	}
	noise := rand.NewChaCha8([32]byte{1})
	var diffs, descriptors []string
	for l := range 4 {
		files := map[string]string{}
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		sum := sha256.New()
		w := tar.NewWriter(io.MultiWriter(z, sum))
		for n := range 40 {
			content := make([]byte, 16<<10)
			noise.Read(content)
			name := fmt.Sprintf("srv/%d-%d", l, n)
			files[name] = string(content)
			if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		z.Close()
		r.layers = append(r.layers, files)
		diffs = append(diffs, fmt.Sprintf(`"sha256:%x"`, sum.Sum(nil)))
		digest := put(http.MethodPost, "blobs/uploads/?digest=DIGEST", "application/octet-stream", packed.Bytes())
		descriptors = append(descriptors, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}`, digest, packed.Len()))
	}
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%s]}}`, strings.Join(diffs, ","))
	digest := put(http.MethodPost, "blobs/uploads/?digest=DIGEST", "application/octet-stream", []byte(config))
	const kind = "application/vnd.oci.image.manifest.v1+json"
	put(http.MethodPut, "manifests/latest", kind, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[%s]}`,
		kind, digest, len(config), strings.Join(descriptors, ",")))
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if strings.Contains(q.URL.Path, "/blobs/") {
			w = &slowWriter{w, r}
		}
		inner.ServeHTTP(w, q)
	}))
	t.Cleanup(r.Close)
	return r
}

type slowWriter struct {
	http.ResponseWriter
	r *slowRegistry
}

func (w *slowWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		var m int
		m, err = w.ResponseWriter.Write(p[:min(16<<10, len(p))])
		w.ResponseWriter.(http.Flusher).Flush()
		w.r.served.Add(int64(m))
		n, p = n+m, p[m:]
		time.Sleep(4 * time.Millisecond)
	}
	return n, err
}

// checkStore wants nothing under a name in an image store that isn't whole,
// and with an image, all of it.
func (r *slowRegistry) checkStore(t *testing.T, dir string, there bool) {
	t.Helper()
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs/sha256"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, b := range blobs {
		text, err := os.ReadFile(filepath.Join(dir, "blobs/sha256", b.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != b.Name() {
			t.Fatalf("the blob %s is not whole: %d bytes", b.Name(), len(text))
		}
	}
	layers, _ := filepath.Glob(filepath.Join(dir, "layers/*/fs"))
	for _, l := range layers {
		r.checkLayer(t, l)
	}
	s, err := image.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil || len(all) != 1 && there {
		t.Fatalf("the store has %v, %v", all, err)
	}
	if there && len(layers) != len(r.layers) {
		t.Fatalf("%d layers are unpacked", len(layers))
	}
}

func (r *slowRegistry) checkLayer(t *testing.T, dir string) {
	t.Helper()
	found := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			b, err = os.ReadFile(filepath.Join(dir, path))
			found[path] = string(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range r.layers {
		same := len(found) == len(want)
		for name, content := range want {
			same = same && found[name] == content
		}
		if same {
			return
		}
	}
	t.Fatalf("the layer %s is not whole: %d files", dir, len(found))
}

// TestPullKilled ends pulls by SIGKILL at random moments, 30 times, where two
// pull the same image at once: what is left is whole, and the next completes it.
func TestPullKilled(t *testing.T) {
	needsRoot(t)
	program, r := build(t), newSlowRegistry(t)
	name := strings.TrimPrefix(r.URL, "http://") + "/shop/web"
	begin := func(root string) *exec.Cmd {
		c := exec.Command(program, "--root", root, "image", "pull", "-q", "--platform", "linux/amd64", "--plain-http", name)
		c.Stdout, c.Stderr = new(bytes.Buffer), new(bytes.Buffer)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	finish := func(c *exec.Cmd) {
		t.Helper()
		if err := c.Wait(); err != nil || !strings.HasPrefix(c.Stdout.(*bytes.Buffer).String(), "sha256:") {
			t.Fatalf("%v: %s%s", err, c.Stdout, c.Stderr)
		}
	}
	began := time.Now()
	finish(begin(t.TempDir()))
	length, size := time.Since(began), r.served.Load()
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, seed))
	t.Logf("seed %d, a pull takes %v", seed, length)
	partly := 0
	for round := range 30 {
		root := t.TempDir()
		dir := filepath.Join(root, "lib/images")
		r.served.Store(0)
		one, two := begin(root), begin(root)
		kill := func(c *exec.Cmd) {
			time.Sleep(time.Duration(random.Int64N(int64(length) / 2)))
			c.Process.Kill()
			c.Wait()
			r.checkStore(t, dir, false)
		}
		kill(one)
		if round%2 == 0 {
			kill(two)
			two = begin(root)
		}
		if n, _ := filepath.Glob(filepath.Join(dir, "ingest/*")); len(n) > 0 {
			partly++
		}
		finish(two)
		r.checkStore(t, dir, true)
		// Each of the four transfers may have lost what was on its way.
		if served := r.served.Load(); served > 2*size {
			t.Errorf("%d bytes were sent for an image of %d", served, size)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of 30 left something to go on with", partly)
	if partly == 0 {
		t.Error("no pull was killed in its middle")
	}
}

// TestPullInterrupted ends a pull by Ctrl-C as soon as something has come.
func TestPullInterrupted(t *testing.T) {
	needsRoot(t)
	program, r, root := build(t), newSlowRegistry(t), t.TempDir()
	c := exec.Command(program, "--root", root, "image", "pull", "--platform", "linux/amd64", "--plain-http", strings.TrimPrefix(r.URL, "http://")+"/shop/web")
	var out bytes.Buffer
	c.Stderr = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for r.served.Load() < 1<<20 {
		time.Sleep(time.Millisecond)
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := c.Wait()
	if c.ProcessState.ExitCode() != exitInterrupted || !strings.Contains(out.String(), "platelayer: interrupted: the next pull goes on from there") {
		t.Errorf("got %v, %s", err, &out)
	}
	r.checkStore(t, filepath.Join(root, "lib/images"), false)
}
