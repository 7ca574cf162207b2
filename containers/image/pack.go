package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

// packedType is the type of a layer once it is packed; "" of one that is.
func packedType(t types.MediaType) types.MediaType {
	switch t {
	case types.OCIUncompressedLayer:
		return types.OCILayer
	case types.DockerUncompressedLayer:
		return types.DockerLayer
	}
	return ""
}

// Loose tells of layers that are not packed. Such an image was loaded, imported or
// made here, and a registry has it under another digest: push packs layers, and
// so do others.
func (i *Image) Loose() bool { return hasLoose(i.Manifest) }

func hasLoose(m *v1.Manifest) bool {
	return slices.ContainsFunc(m.Layers, func(d v1.Descriptor) bool { return packedType(d.MediaType) != "" })
}

// Packed gives an image as others want to have it: with every layer packed by
// gzip. One that has layers to be packed becomes another of the same
// configuration and thus the same unpacked layers, which the store keeps; it is
// made once, and the same wherever it is made by one version of this program.
// tell is called from several goroutines.
func (s *Store) Packed(ctx context.Context, i *Image, tell func(Progress)) (*Image, error) {
	if !i.Loose() {
		return i, nil
	}
	done, err := s.Use(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	m := i.Manifest.DeepCopy()
	known := s.packedBefore(i)
	var wait sync.WaitGroup
	errs := make([]error, len(m.Layers))
	slots := make(chan struct{}, 2)
	for n := range m.Layers {
		kind := packedType(m.Layers[n].MediaType)
		if kind == "" {
			continue
		}
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			before := m.Layers[n]
			if known == nil {
				m.Layers[n].Digest, m.Layers[n].Size, errs[n] = s.pack(ctx, before, tell)
			} else {
				m.Layers[n].Digest, m.Layers[n].Size = known.Layers[n].Digest, known.Layers[n].Size
			}
			m.Layers[n].MediaType = kind
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return s.Add(ctx, text, nowhere{}, AddOptions{})
}

// packedBefore finds an image that was made by Packed from this one, or from
// another of the same configuration.
func (s *Store) packedBefore(i *Image) *v1.Manifest {
	all, _ := s.List() // a damaged one is of no use here
	for _, other := range all {
		m := other.Manifest
		if m.Config.Digest == i.Manifest.Config.Digest && len(m.Layers) == len(i.Manifest.Layers) && s.whole(other.Image) && !hasLoose(m) {
			return m
		}
	}
	return nil
}

// pack packs a layer into a blob of its own.
func (s *Store) pack(ctx context.Context, d v1.Descriptor, tell func(Progress)) (h v1.Hash, size int64, err error) {
	from, err := s.openBlob(d.Digest)
	if err != nil {
		return h, 0, err
	}
	defer from.Close()
	to, err := os.CreateTemp(s.path("ingest"), tempPrefix)
	if err != nil {
		return h, 0, fmt.Errorf("cannot pack %s: %w", d.Digest, err)
	}
	defer os.Remove(to.Name())
	defer to.Close()
	sum, content := sha256.New(), sha256.New()
	z := gzip.NewWriter(io.MultiWriter(to, sum)) // no name and no time in it
	for done := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return h, 0, err
		}
		const told = 1 << 20
		n, err := io.CopyN(io.MultiWriter(z, content), from, told)
		done += n
		tell(Progress{Digest: d.Digest, Done: done, Total: d.Size, Stage: StagePacking})
		if err == io.EOF {
			break
		}
		if err != nil {
			return h, 0, fmt.Errorf("cannot pack %s: %w", d.Digest, err)
		}
	}
	if hex.EncodeToString(content.Sum(nil)) != d.Digest.Hex {
		return h, 0, &CorruptError{What: "blob", Digest: d.Digest}
	}
	if err := errors.Join(z.Close(), to.Sync(), to.Close()); err != nil {
		return h, 0, fmt.Errorf("cannot pack %s: %w", d.Digest, err)
	}
	h = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	info, err := os.Stat(to.Name())
	if err != nil {
		return h, 0, err
	}
	return h, info.Size(), os.Rename(to.Name(), s.blobPath(h))
}

// nowhere is the source of an image of which all is there.
type nowhere struct{}

func (nowhere) Blob(_ context.Context, d v1.Descriptor, _ int64) (io.ReadCloser, int64, error) {
	return nil, 0, &MissingError{d.Digest}
}

func (nowhere) Again(error) bool { return false }
