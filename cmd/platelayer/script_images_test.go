package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
	"gopkg.in/yaml.v3"

	"platelayer/containers/image"
)

// scriptRegistry is a registry of a script's own on loopback, with TLS.
type scriptRegistry struct {
	server *httptest.Server
	inner  http.Handler
	log    string // a file
	mu     sync.Mutex
	broken atomic.Bool
}

// registryCommand: `registry start` sets REGISTRY to the address of a registry
// whose certificate the program trusts, and writes what it is asked to
// registry.log. With `registry break` it answers nobody until `registry mend`.
func registryCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: registry start|break|mend")
	}
	switch args[0] {
	case "start":
		ts.Check(startRegistry(ts))
	case "break", "mend":
		if args[0] == "break" {
			registryOf(ts).server.CloseClientConnections()
		}
		registryOf(ts).broken.Store(args[0] == "break")
	default:
		ts.Fatalf("there is no registry %s", args[0])
	}
}

type registryKey struct{}

func registryOf(ts *testscript.TestScript) *scriptRegistry {
	r, ok := ts.Value(registryKey{}).(**scriptRegistry)
	if !ok || *r == nil {
		ts.Fatalf("no registry was started")
	}
	return *r
}

func startRegistry(ts *testscript.TestScript) error {
	r := &scriptRegistry{inner: registry.New(registry.Logger(log.New(io.Discard, "", 0))), log: ts.MkAbs("registry.log")}
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if r.broken.Load() || r.note(q) != nil {
			panic(http.ErrAbortHandler)
		}
		r.inner.ServeHTTP(w, q)
	}))
	r.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.server.StartTLS()
	ts.Defer(r.server.Close)
	*ts.Value(registryKey{}).(**scriptRegistry) = r
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
	ts.Setenv("REGISTRY", r.server.Listener.Addr().String())
	ts.Setenv("SSL_CERT_FILE", ts.MkAbs("registry.pem"))
	return os.WriteFile(ts.MkAbs("registry.pem"), certificate, 0o644)
}

// note writes down what is asked; a script may remove the file.
func (r *scriptRegistry) note(q *http.Request) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.OpenFile(r.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, q.Method, q.URL.Path)
	return errors.Join(err, f.Close())
}

// recipe says what an image is made of.
type recipe struct {
	Platform string             // linux/amd64 without one
	Config   any                // with the keys that OCI has
	Layers   []map[string]stuff // path: content
	Many     int                // so many layers more, each with a file many/N
}

// stuff is a file: of a text, "-> PATH" of a link, "= PATH" of the machine's
// program, or with owner and mode. A path that ends with a slash is a folder.
type stuff struct {
	Text     string
	UID, GID int
	Mode     int64
}

func (s *stuff) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&s.Text)
	}
	type plain stuff
	return n.Decode((*plain)(s))
}

// publishCommand: `publish RECIPE NAME...` makes an image, puts it into the
// script's registry, and sets DIGEST to its digest.
func publishCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: publish recipe name...")
	}
	r := registryOf(ts)
	d := yaml.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	d.KnownFields(true)
	var of recipe
	ts.Check(d.Decode(&of))
	for _, text := range args[1:] {
		ref, err := image.ParseReference(text)
		ts.Check(err)
		digest, err := r.publish(ref, &of)
		ts.Check(err)
		ts.Setenv("DIGEST", digest)
	}
}

func (r *scriptRegistry) publish(ref image.Reference, of *recipe) (digest string, err error) {
	platform, err := v1.ParsePlatform(cmp.Or(of.Platform, "linux/amd64"))
	if err != nil {
		return "", err
	}
	config := v1.ConfigFile{OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant, RootFS: v1.RootFS{Type: "layers"}}
	text, err := json.Marshal(of.Config)
	if err == nil {
		err = json.Unmarshal(text, &config.Config)
	}
	if err != nil {
		return "", err
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	layers := slices.Clone(of.Layers)
	for n := range of.Many {
		layers = append(layers, map[string]stuff{fmt.Sprintf("many/%d", n): {Text: fmt.Sprint(n)}})
	}
	for _, files := range layers {
		content, err := layerTar(files)
		if err != nil {
			return "", err
		}
		d, err := r.blob(ref, types.OCIUncompressedLayer, content)
		if err != nil {
			return "", err
		}
		manifest.Layers = append(manifest.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.Digest)
	}
	if text, err = json.Marshal(config); err != nil {
		return "", err
	}
	if manifest.Config, err = r.blob(ref, types.OCIConfigJSON, text); err != nil {
		return "", err
	}
	if text, err = json.Marshal(manifest); err != nil {
		return "", err
	}
	h, _, err := v1.SHA256(bytes.NewReader(text))
	if err != nil {
		return "", err
	}
	return h.String(), r.put(http.MethodPut, ref, "manifests/"+ref.Tag, string(manifest.MediaType), text)
}

func (r *scriptRegistry) blob(ref image.Reference, kind types.MediaType, content []byte) (v1.Descriptor, error) {
	h, size, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: kind, Digest: h, Size: size}, r.put(http.MethodPost, ref, "blobs/uploads/?digest="+h.String(), "application/octet-stream", content)
}

// put stores something past the network and the log.
func (r *scriptRegistry) put(method string, ref image.Reference, path, kind string, content []byte) error {
	q := httptest.NewRequest(method, "/v2/"+ref.Repository+"/"+path, bytes.NewReader(content))
	q.Header.Set("Content-Type", kind)
	w := httptest.NewRecorder()
	r.inner.ServeHTTP(w, q)
	if w.Code != http.StatusCreated {
		return fmt.Errorf("cannot put %s: %d %s", path, w.Code, w.Body)
	}
	return nil
}

func layerTar(files map[string]stuff) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, path := range slices.Sorted(maps.Keys(files)) {
		s := files[path]
		h := &tar.Header{Name: path, Typeflag: tar.TypeReg, Mode: 0o644, Uid: s.UID, Gid: s.GID}
		content := []byte(s.Text)
		switch program, isProgram := strings.CutPrefix(s.Text, "= "); {
		case strings.HasSuffix(path, "/"):
			h.Typeflag, h.Mode, content = tar.TypeDir, 0o755, nil
		case strings.HasPrefix(s.Text, "-> "):
			h.Typeflag, h.Linkname, content = tar.TypeSymlink, s.Text[len("-> "):], nil
		case isProgram:
			var err error
			if content, err = os.ReadFile(filepath.Clean(program)); err != nil {
				return nil, err
			}
			h.Mode = 0o755
		case strings.HasPrefix(s.Text, "#!"):
			h.Mode = 0o755
		}
		if s.Mode != 0 {
			h.Mode = s.Mode
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// unpackedCommand: `unpacked PATH VARIABLE` sets VARIABLE to where the image store has
// a path that one layer of it has.
func unpackedCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: unpacked path variable")
	}
	found, err := filepath.Glob(path.Join(ts.Getenv("PLATELAYER_ROOT"), "lib/images/layers/*/fs", args[0]))
	ts.Check(err)
	if (len(found) == 1) == neg {
		ts.Fatalf("%d layers have %s", len(found), args[0])
	}
	if !neg {
		ts.Setenv(args[1], found[0])
	}
}

// engineCommand: `engine NAME ARCHIVE` sets DOCKER_HOST to a Docker on a socket
// that has one image, under a whole name, and answers with what `docker save`
// wrote of it.
func engineCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: engine name archive")
	}
	archive := ts.MkAbs(args[1])
	dir, err := os.MkdirTemp("", "d") // the name of a socket is short
	ts.Check(err)
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	ts.Check(err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/images/" + args[0] + "/json":
			fmt.Fprint(w, `{"Id":"sha256:1"}`)
		case "/images/" + args[0] + "/get":
			http.ServeFile(w, q, archive)
		default:
			http.NotFound(w, q)
		}
	})}
	go server.Serve(l)
	ts.Defer(func() {
		server.Close()
		os.RemoveAll(dir)
	})
	ts.Setenv("DOCKER_HOST", "unix://"+socket)
}
