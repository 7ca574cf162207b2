package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// saved is an archive as `docker save` and `podman save` write it: manifest.json
// names a configuration and the layers' tars (Docker Image Specification v1.2,
// "Combined Image JSON + Filesystem Changeset Format").
type saved struct {
	archive
	sums map[string]v1.Hash // of packed layers that were read, by their names
}

type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// What one archive may have.
const (
	maxSaved = 1000   // images
	maxNames = 10_000 // of all images; each is looked for in the store
)

// images makes a manifest for each image, as the archive has none with digests.
func (s saved) images(ctx context.Context) ([]found, error) {
	list, err := s.list()
	if err != nil {
		return nil, err
	}
	s.sums = map[string]v1.Hash{}
	var all []found
	for n, one := range list {
		f, err := s.image(ctx, one)
		if err != nil {
			return nil, fmt.Errorf("image %d of manifest.json: %w", n+1, err)
		}
		all = append(all, *f)
	}
	return all, nil
}

func (s saved) list() ([]savedImage, error) {
	text, err := read(s.archive, "manifest.json")
	if err != nil {
		return nil, err
	}
	var list []savedImage
	if err := json.Unmarshal(text, &list); err != nil {
		if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
			return nil, bad("manifest.json is an image's manifest, as in skopeo's dir: and podman's docker-dir: save the image as an OCI archive or folder")
		}
		return nil, bad("manifest.json is not valid: %v", err)
	}
	if len(list) > maxSaved {
		return nil, bad("manifest.json has more than %d images", maxSaved)
	}
	names := 0
	for _, one := range list {
		if names += len(one.RepoTags); names > maxNames {
			return nil, bad("manifest.json has more than %d names", maxNames)
		}
	}
	return list, nil
}

func (s saved) image(ctx context.Context, one savedImage) (*found, error) {
	names, err := wholeNames(one.RepoTags)
	if err != nil {
		return nil, err
	}
	config, err := read(s.archive, one.Config)
	if err != nil {
		return nil, s.lacking(one.Config, err)
	}
	c, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return nil, bad("the configuration %q is not valid: %v", shorten(one.Config), err)
	}
	if len(c.RootFS.DiffIDs) != len(one.Layers) {
		return nil, bad("manifest.json has %d layers and the configuration %d", len(one.Layers), len(c.RootFS.DiffIDs))
	}
	if len(one.Layers) > maxLayers {
		return nil, bad("it has %d layers; overlayfs takes %d", len(one.Layers), maxLayers)
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	m.Config.MediaType = types.OCIConfigJSON
	m.Config.Digest, m.Config.Size = hashOf(config), int64(len(config))
	named := map[v1.Hash]string{m.Config.Digest: one.Config}
	for n, name := range one.Layers {
		d, err := s.layer(ctx, name, c.RootFS.DiffIDs[n])
		if err != nil {
			return nil, fmt.Errorf("layer %q: %w", shorten(name), err)
		}
		named[d.Digest] = name
		m.Layers = append(m.Layers, d)
	}
	f := &found{names: names, config: m.Config.Digest, source: members(func(d v1.Descriptor) (*member, error) { return s.open(named[d.Digest]) })}
	if f.manifest, err = json.Marshal(m); err != nil {
		return nil, err
	}
	if _, err := parseManifest(f.manifest); err != nil {
		return nil, err
	}
	f.digest = hashOf(f.manifest)
	return f, nil
}

// layer describes a layer. A tar has the digest that the configuration says,
// which is checked as it is brought; a packed one is read for it.
func (s saved) layer(ctx context.Context, name string, diff v1.Hash) (v1.Descriptor, error) {
	d := v1.Descriptor{MediaType: types.OCIUncompressedLayer, Digest: diff}
	m, err := s.open(name)
	if err != nil {
		return d, s.lacking(name, err)
	}
	defer m.Close()
	d.Size = m.Size()
	how, err := packingOfFile(m)
	if err != nil {
		return d, err
	}
	switch how {
	case notPacked:
		return d, checkHash(diff)
	case gzipped:
		d.MediaType = types.OCILayer
	case zstandard:
		d.MediaType = types.OCILayerZStd
	default:
		return d, bad("it is packed as no layer may be: gzip and zstd are taken")
	}
	if m.own != nil {
		d.Digest = m.sum
		return d, nil
	}
	if known, ok := s.sums[name]; ok {
		d.Digest = known
		return d, nil
	}
	d.Digest, _, err = v1.SHA256(&untilDone{ctx, m})
	s.sums[name] = d.Digest
	return d, err
}

// lacking says that the archive itself is at fault.
func (s saved) lacking(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return bad("the archive lacks %q", shorten(name))
	}
	return err
}

// wholeNames completes names as people write them.
func wholeNames(texts []string) ([]string, error) {
	var names []string
	for _, text := range texts {
		ref, err := ParseReference(text)
		if err != nil {
			return nil, bad("%v", err)
		}
		if ref.Digest == "" {
			names = append(names, ref.String())
		}
	}
	return names, nil
}

// looksWhole tells a name from a mere tag.
func looksWhole(text string) bool { return strings.ContainsAny(text, "/:") }

func v1Type(text string) types.MediaType { return types.MediaType(text) }
