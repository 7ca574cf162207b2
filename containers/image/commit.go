package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"platelayer/containers"
)

// CommitOptions say what image is made of what a container wrote.
type CommitOptions struct {
	Name string
	// Base is the image that the container runs on; nil: the whole root becomes
	// one layer.
	Base *Image
	// Config is the configuration without a Base.
	Config   v1.Config
	Changes  []string // as ImportOptions.Changes
	Comment  string
	Author   string
	Created  time.Time
	Skip     []string // names in the root of what is not part of it
	Progress func(Progress)
	Notice   func(text string) // what is left out; may be nil
	Check    func() error      // whether all was read as it should be; may be nil
}

// Commit makes an image of what a container wrote: a layer above those of the
// image that it runs on.
func (s *Store) Commit(ctx context.Context, from *containers.Written, o CommitOptions) (_ *Image, err error) {
	config := v1.ConfigFile{Architecture: runtime.GOARCH, OS: "linux", Config: o.Config, RootFS: v1.RootFS{Type: "layers"}}
	var layers []v1.Descriptor
	if o.Base != nil {
		if len(o.Base.Layers) >= maxLayers {
			return nil, bad("the image has %d layers already; overlayfs takes %d", len(o.Base.Layers), maxLayers)
		}
		config = *o.Base.Config.DeepCopy()
		layers = plainLayers(o.Base.Manifest.Layers)
	}
	if config.Config, err = changed(config.Config, o.Changes); err != nil {
		return nil, err
	}
	done, err := s.Use(ctx)
	if err != nil {
		return nil, err
	}
	var b batch
	defer func() {
		done()
		if err != nil {
			s.discard(&b)
		}
	}()
	layer, err := s.writeLayer(ctx, from, &o, &b)
	if err != nil {
		return nil, err
	}
	made := v1.Time{Time: o.Created.UTC().Truncate(time.Second)}
	config.Created, config.Author, config.Container = made, o.Author, ""
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.Digest)
	config.History = append(config.History, v1.History{Created: made, Author: o.Author, CreatedBy: "platelayer commit", Comment: o.Comment})
	return s.compose(ctx, &config, append(layers, layer), &AddOptions{Name: o.Name, Progress: o.Progress, Unpack: true}, &b)
}

// compose puts an image together of layers that are in the store.
func (s *Store) compose(ctx context.Context, config *v1.ConfigFile, layers []v1.Descriptor, o *AddOptions, b *batch) (*Image, error) {
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: layers}
	m.Config = memory(string(types.OCIConfigJSON), text)
	manifest, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	i, err := s.bring(ctx, manifest, document{m.Config.Digest: text}, o, b)
	if err != nil {
		return nil, err
	}
	return i, s.Name(ctx, o.Name, i)
}

// plainLayers gives layers the types of OCI, which the new one has: Docker's
// mean the same.
func plainLayers(from []v1.Descriptor) []v1.Descriptor {
	var all []v1.Descriptor
	for _, d := range from {
		switch d.MediaType {
		case types.DockerLayer:
			d.MediaType = types.OCILayer
		case types.DockerUncompressedLayer:
			d.MediaType = types.OCIUncompressedLayer
		}
		all = append(all, d)
	}
	return all
}

// writeLayer keeps what a container wrote, or all of its root, as a layer.
func (s *Store) writeLayer(ctx context.Context, from *containers.Written, o *CommitOptions, b *batch) (v1.Descriptor, error) {
	d := v1.Descriptor{MediaType: types.OCIUncompressedLayer}
	f, err := s.spool()
	if err != nil {
		return d, err
	}
	defer f.Close()
	file, sum := &holeWriter{File: f}, newSum()
	room := &bounded{io.MultiWriter(file, sum), s.limits.Bytes}
	t := &treeTar{ctx: ctx, out: tar.NewWriter(room), room: room, whole: from.Whole, skip: o.Skip,
		notice: o.Notice, buffer: make([]byte, 256<<10)}
	if t.notice == nil {
		t.notice = func(string) {}
	}
	if o.Base != nil {
		err = t.changes(from.Changes)
	} else {
		err = t.all()
	}
	if err != nil {
		return d, err
	}
	if err := t.out.Close(); err != nil {
		return d, err
	}
	if err := file.finish(); err != nil {
		return d, err
	}
	if o.Check != nil {
		if err := o.Check(); err != nil {
			return d, err
		}
	}
	d.Digest, d.Size = sum.hash(), file.at
	if s.hasBlob(d.Digest) {
		return d, nil
	}
	b.blobs = append(b.blobs, d.Digest)
	return d, s.adopt(ctx, f, d.Digest)
}

var errNoRoom = errors.New("it is more than a layer may hold")

// bounded fails when more is written than a layer may hold.
type bounded struct {
	w    io.Writer
	left int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errNoRoom
	}
	return b.w.Write(p)
}
