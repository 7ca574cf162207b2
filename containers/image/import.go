package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ImportOptions say what image is made of a tar.
type ImportOptions struct {
	Name     string
	Changes  []string // CMD ["sh"], ENV A=B, ...: a Dockerfile's instructions that change the configuration
	Comment  string
	Created  time.Time
	Progress func(Progress)
}

// Import makes an image of one layer from the tar of a root folder, packed by
// gzip, zstd or bzip2 or not, a pipe too. It closes r.
func (s *Store) Import(ctx context.Context, r *os.File, o ImportOptions) (_ *Image, err error) {
	config, err := changed(v1.Config{}, o.Changes)
	if err != nil {
		r.Close()
		return nil, err
	}
	done, err := s.Use(ctx)
	if err != nil {
		r.Close()
		return nil, err
	}
	var b batch
	defer func() {
		done()
		if err != nil {
			s.discard(&b)
		}
	}()
	layer, err := s.importLayer(ctx, r, &b, &o)
	if err != nil {
		return nil, err
	}
	made := o.Created.UTC().Truncate(time.Second)
	c := v1.ConfigFile{
		Architecture: runtime.GOARCH, OS: "linux", Created: v1.Time{Time: made}, Config: config,
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{layer.Digest}},
		History: []v1.History{{Created: v1.Time{Time: made}, CreatedBy: "platelayer image import", Comment: o.Comment}},
	}
	return s.compose(ctx, &c, []v1.Descriptor{layer}, &AddOptions{Name: o.Name, Progress: o.Progress, Unpack: true}, &b)
}

// importLayer keeps a tar as a layer.
func (s *Store) importLayer(ctx context.Context, r *os.File, b *batch, o *ImportOptions) (v1.Descriptor, error) {
	d := v1.Descriptor{MediaType: types.OCIUncompressedLayer}
	f, err := s.plain(ctx, r)
	if err != nil {
		return d, err
	}
	defer func() { f.Close() }()
	sum := newSum()
	at := Progress{Image: o.Name, Stage: StageReading}
	if st, err := f.Stat(); err == nil {
		at.Total = st.Size()
	}
	tell := func(p Progress) {
		if o.Progress != nil {
			o.Progress(p)
		}
	}
	tell(Progress{Image: o.Name, Total: at.Total, Stage: StageWaiting})
	tar := &toldReader{Reader: &untilDone{ctx, io.NewSectionReader(f, 0, 1<<62)}, at: at, tell: tell}
	whole := io.TeeReader(tar, sum)
	if f == r { // the user's own file, which may change later
		spool, err := s.copyOf(ctx, whole)
		if err != nil {
			return d, err
		}
		f.Close()
		f = spool
	} else if _, err := io.Copy(io.Discard, whole); err != nil {
		return d, err
	}
	st, err := f.Stat()
	if err != nil {
		return d, err
	}
	d.Digest, d.Size = sum.hash(), st.Size()
	tell(Progress{Image: o.Name, Done: d.Size, Total: d.Size, Stage: StageDone})
	if d.Size == 0 {
		return d, bad("it is empty")
	}
	if s.hasBlob(d.Digest) {
		return d, nil
	}
	b.blobs = append(b.blobs, d.Digest)
	return d, s.adopt(ctx, f, d.Digest)
}

// document is a Source of what is in memory.
type document map[v1.Hash][]byte

func (m document) Blob(_ context.Context, d v1.Descriptor, _ int64) (io.ReadCloser, int64, error) {
	text, ok := m[d.Digest]
	if !ok {
		return nil, 0, fmt.Errorf("there is no %s", d.Digest)
	}
	return io.NopCloser(bytes.NewReader(text)), 0, nil
}

func (document) Again(error) bool { return false }
