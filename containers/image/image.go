package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is an image of one platform: a manifest, its configuration and its
// layers (OCI image manifest.md, config.md).
type Image struct {
	// Digest is the manifest's: what `image ls` shows and a lock pins.
	Digest v1.Hash
	// Index is the digest of the multi-platform index that the image was chosen
	// from, and what its name meant where it came from; zero without one.
	Index    v1.Hash
	Asked    time.Time // when a registry last said that its name means it; zero: none did
	Manifest *v1.Manifest
	Config   *v1.ConfigFile
	// StartInterval is the health check's (Docker Engine API 1.44), of which Config
	// doesn't know.
	StartInterval time.Duration
	Layers        []Layer // the lowest first
}

// Layer is one layer of an image.
type Layer struct {
	Digest  v1.Hash // of the blob, packed or not
	Size    int64   // of the blob, in bytes
	DiffID  v1.Hash // of the tar
	ChainID v1.Hash // of the tar and all below (OCI config.md, "Layer ChainID")
}

// Size is what the image takes as blobs, in bytes.
func (i *Image) Size() int64 {
	n := i.Manifest.Config.Size
	for _, l := range i.Layers {
		n += l.Size
	}
	return n
}

func (i *Image) mediaType() types.MediaType {
	if i.Manifest.MediaType == "" {
		return types.OCIManifestSchema1
	}
	return i.Manifest.MediaType
}

// maxLayers is as many lower layers as overlayfs takes (OVL_MAX_STACK).
const maxLayers = 500

// open reads an image of the store.
func (s *Store) open(h v1.Hash) (*Image, error) {
	text, err := s.document(h)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", h, err)
	}
	if text, err = s.document(m.Config.Digest); err != nil {
		return nil, fmt.Errorf("image %s: %w", h, err)
	}
	i, err := assemble(h, m, text)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", h, err)
	}
	return i, nil
}

// parseManifest reads a manifest that comes from outside.
func parseManifest(text []byte) (*v1.Manifest, error) {
	m, err := v1.ParseManifest(bytes.NewReader(text))
	if err != nil {
		return nil, bad("its manifest is not valid: %v", err)
	}
	if m.MediaType != "" && !m.MediaType.IsImage() {
		return nil, bad("a manifest of the type %q is not an image's", shorten(string(m.MediaType)))
	}
	if !isConfig(m.Config.MediaType) {
		return nil, bad("it is not a container image but %s", artifact(m))
	}
	if len(m.Layers) > maxLayers {
		return nil, bad("it has %d layers; overlayfs takes %d", len(m.Layers), maxLayers)
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if err := checkHash(d.Digest); err != nil {
			return nil, err
		}
		if d.Size < 0 {
			return nil, bad("%s is said to have %d bytes", d.Digest, d.Size)
		}
		if len(d.URLs) > 0 {
			return nil, bad("the layer %s lies outside the registry", d.Digest)
		}
	}
	if m.Config.Size > maxDocument {
		return nil, bad("its configuration is said to have %d bytes", m.Config.Size)
	}
	return m, nil
}

// isConfig: old registries gave configurations no type, or one of their own, and
// Docker takes those too (moby's distribution/registry.go).
func isConfig(t types.MediaType) bool {
	return t.IsConfig() || slices.Contains([]types.MediaType{"", "application/octet-stream", "application/json", "text/html"}, t)
}

// artifact says what a registry keeps that is no image.
func artifact(m *v1.Manifest) string {
	switch m.Config.MediaType {
	case "application/vnd.cncf.helm.config.v1+json":
		return "a Helm chart"
	case "application/vnd.oci.empty.v1+json":
		return fmt.Sprintf("an artifact of the type %q", shorten(m.ArtifactType))
	}
	return fmt.Sprintf("an artifact with a configuration of the type %q", shorten(string(m.Config.MediaType)))
}

// assemble joins a manifest with its configuration.
func assemble(h v1.Hash, m *v1.Manifest, config []byte) (*Image, error) {
	c, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return nil, bad("its configuration is not valid: %v", err)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, bad("its manifest has %d layers and its configuration %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	i := &Image{Digest: h, Manifest: m, Config: c}
	if c.Config.Healthcheck != nil {
		var more struct {
			Config struct {
				Healthcheck struct{ StartInterval time.Duration }
			}
		}
		if err := json.Unmarshal(config, &more); err != nil {
			return nil, bad("its configuration is not valid: %v", err)
		}
		i.StartInterval = more.Config.Healthcheck.StartInterval
	}
	for n, d := range m.Layers {
		l := Layer{Digest: d.Digest, Size: d.Size, DiffID: c.RootFS.DiffIDs[n]}
		if err := checkHash(l.DiffID); err != nil {
			return nil, err
		}
		l.ChainID = l.DiffID
		if n > 0 {
			l.ChainID = hashOf([]byte(i.Layers[n-1].ChainID.String() + " " + l.DiffID.String()))
		}
		i.Layers = append(i.Layers, l)
	}
	return i, nil
}
