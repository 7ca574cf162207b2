package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"
	"gopkg.in/yaml.v3"
)

// scriptRegistry is a registry of a script's own on loopback, with TLS.
type scriptRegistry struct {
	server *httptest.Server
	log    *os.File
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
	asked, err := os.Create(ts.MkAbs("registry.log"))
	if err != nil {
		return err
	}
	r := &scriptRegistry{log: asked}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if r.broken.Load() {
			panic(http.ErrAbortHandler)
		}
		r.mu.Lock()
		fmt.Fprintln(r.log, q.Method, q.URL.Path)
		r.mu.Unlock()
		inner.ServeHTTP(w, q)
	}))
	r.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.server.StartTLS()
	ts.Defer(func() {
		r.server.Close()
		asked.Close()
	})
	*ts.Value(registryKey{}).(**scriptRegistry) = r
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
	ts.Setenv("REGISTRY", r.server.Listener.Addr().String())
	ts.Setenv("SSL_CERT_FILE", ts.MkAbs("registry.pem"))
	return os.WriteFile(ts.MkAbs("registry.pem"), certificate, 0o644)
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

// publishCommand: `publish RECIPE NAME...` makes an image, pushes it to the
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
	image, err := of.make()
	ts.Check(err)
	for _, text := range args[1:] {
		ref, err := name.ParseReference(text)
		ts.Check(err)
		ts.Check(remote.Write(ref, image, remote.WithTransport(r.server.Client().Transport)))
	}
	digest, err := image.Digest()
	ts.Check(err)
	ts.Setenv("DIGEST", digest.String())
}

func (r *recipe) make() (v1.Image, error) {
	image := empty.Image
	for n := range r.Many {
		r.Layers = append(r.Layers, map[string]stuff{fmt.Sprintf("many/%d", n): {Text: fmt.Sprint(n)}})
	}
	var adds []v1.Layer
	for _, files := range r.Layers {
		text, err := layerTar(files)
		if err != nil {
			return nil, err
		}
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil })
		if err != nil {
			return nil, err
		}
		adds = append(adds, l)
	}
	image, err := mutate.AppendLayers(image, adds...)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	platform, err := v1.ParsePlatform(cmp.Or(r.Platform, "linux/amd64"))
	if err != nil {
		return nil, err
	}
	config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
	text, err := json.Marshal(r.Config)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &config.Config); err != nil {
		return nil, err
	}
	return mutate.ConfigFile(image, config)
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
