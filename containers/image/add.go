package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Source is where an image's blobs come from: a registry, an archive.
type Source interface {
	// Blob opens a blob at an offset, so that a broken transfer is resumed. One
	// that can't begin there gives the whole and from 0.
	Blob(ctx context.Context, d v1.Descriptor, offset int64) (r io.ReadCloser, from int64, err error)
	// Again tells whether an error may pass when it is tried again.
	Again(err error) bool
}

// Progress is what of an image has come so far.
type Progress struct {
	Image  string  // its name
	Digest v1.Hash // of the blob that this is about
	Done   int64   // bytes of it
	Total  int64
	Stage  Stage
}

// Stage is what happens to a blob.
type Stage string

// The stages, in order.
const (
	StageWaiting   Stage = "waiting"
	StageFetching  Stage = "fetching"
	StageUnpacking Stage = "unpacking"
	StageDone      Stage = "done"
	StageHere      Stage = "here" // it was there before

	StagePacking Stage = "packing"
	StageSending Stage = "sending"
	StageMounted Stage = "mounted" // from another repository of the registry

	StageReading  Stage = "reading" // of a tar that is imported: it has no digest yet
	StageSaving   Stage = "saving"
	StageChecking Stage = "checking"
)

// teller makes one that may be nil callable.
func teller(tell func(Progress)) func(Progress) {
	if tell == nil {
		return func(Progress) {}
	}
	return tell
}

// toldReader tells how far a blob is read.
type toldReader struct {
	io.Reader
	at   Progress
	told int64
	tell func(Progress) // may be nil
}

func (r *toldReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.at.Done += int64(n)
	if r.tell != nil && r.at.Done-r.told >= 1<<20 {
		r.told = r.at.Done
		r.tell(r.at)
	}
	return n, err
}

// AddOptions say how an image is added.
type AddOptions struct {
	Name     string         // one more name for it; may be ""
	Indexes  [][]byte       // those that the image was chosen from, Image.Index first
	Asked    time.Time      // Image.Asked
	Progress func(Progress) // called from several goroutines; may be nil
	Parallel int            // blobs at a time; 0 is 4
	// Check is asked whether the image may come, before any of its blobs is
	// fetched; nil is yes.
	Check  func(ctx context.Context, digest, index v1.Hash) error
	Unpack bool // its layers, too, before it gets its name
}

func (o *AddOptions) index() v1.Hash {
	if len(o.Indexes) == 0 {
		return v1.Hash{}
	}
	return hashOf(o.Indexes[0])
}

func hashOf(text []byte) v1.Hash {
	h, _, _ := v1.SHA256(bytes.NewReader(text))
	return h
}

func (o *AddOptions) tell(p Progress) {
	if o.Progress != nil {
		p.Image = o.Name
		o.Progress(p)
	}
}

// Add brings an image into the store: its manifest, which the caller has read,
// and whatever blobs the store lacks. Nothing has a name before all is there.
func (s *Store) Add(ctx context.Context, manifest []byte, from Source, o AddOptions) (*Image, error) {
	done, err := s.Use(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	i, err := s.bring(ctx, manifest, from, &o, &batch{})
	if err != nil {
		return nil, err
	}
	return i, s.Name(ctx, o.Name, i)
}

// bring does all but the naming. What it has brought stands in b, after a
// failure too. Layers are unpacked while those above them are still fetched.
func (s *Store) bring(ctx context.Context, manifest []byte, from Source, o *AddOptions, b *batch) (*Image, error) {
	m, err := parseManifest(manifest)
	if err != nil {
		return nil, err
	}
	if o.Check != nil {
		if err := o.Check(ctx, hashOf(manifest), o.index()); err != nil {
			return nil, err
		}
	}
	blobs := blobsOf(m)
	for _, d := range blobs {
		if !s.hasBlob(d.Digest) {
			b.blobs = append(b.blobs, d.Digest)
		}
	}
	if err := s.fetchAll(ctx, blobs[:1], from, o, nil); err != nil {
		return nil, err
	}
	config, err := s.document(m.Config.Digest)
	if err != nil {
		return nil, err
	}
	i, err := assemble(hashOf(manifest), m, config)
	if err != nil {
		return nil, err
	}
	i.Index, i.Asked = o.index(), o.Asked
	if err := s.bringLayers(ctx, i, blobs[1:], from, o, b); err != nil {
		return nil, err
	}
	for _, text := range append([][]byte{manifest}, o.Indexes...) {
		h := hashOf(text)
		if !s.hasBlob(h) {
			b.blobs = append(b.blobs, h)
		}
		if err := s.putBlob(ctx, h, int64(len(text)), bytes.NewReader(text)); err != nil {
			return nil, err
		}
	}
	return i, nil
}

func (s *Store) bringLayers(ctx context.Context, i *Image, blobs []v1.Descriptor, from Source, o *AddOptions, b *batch) error {
	if !o.Unpack {
		return s.fetchAll(ctx, blobs, from, o, nil)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	here := map[v1.Hash]chan struct{}{}
	for _, d := range blobs {
		here[d.Digest] = make(chan struct{})
	}
	fetched := make(chan error, 1)
	go func() {
		err := s.fetchAll(ctx, blobs, from, o, func(h v1.Hash) { close(here[h]) })
		if err != nil {
			cancel(err)
		}
		fetched <- err
	}()
	err := s.unpack(ctx, i, o, b, func(h v1.Hash) error {
		if here[h] == nil { // the configuration, which is here
			return nil
		}
		select {
		case <-here[h]:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	if err != nil {
		cancel(err)
	}
	// A layer that doesn't come is why those above it aren't unpacked.
	return cmp.Or(<-fetched, err)
}

// blobsOf lists what an image needs, each once: the configuration first.
func blobsOf(m *v1.Manifest) []v1.Descriptor {
	seen := map[v1.Hash]bool{}
	var all []v1.Descriptor
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			all = append(all, d)
		}
	}
	return all
}

// fetchAll fetches what the store lacks, several at a time, and ends at the
// first error. here, which may be nil, is told of each that is there.
func (s *Store) fetchAll(ctx context.Context, blobs []v1.Descriptor, from Source, o *AddOptions, here func(v1.Hash)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, d := range blobs {
		o.tell(Progress{Digest: d.Digest, Total: d.Size, Stage: StageWaiting})
	}
	parallel := o.Parallel
	if parallel <= 0 {
		parallel = 4
	}
	slots := make(chan struct{}, parallel)
	var wait sync.WaitGroup
	for _, d := range blobs {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wait.Go(func() {
			defer func() { <-slots }()
			if err := s.obtain(ctx, d, from, o); err != nil {
				cancel(fmt.Errorf("cannot fetch %s: %w", d.Digest, err))
			} else if here != nil {
				here(d.Digest)
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

// Elsewhere is a Source with several places to fetch from.
type Elsewhere interface {
	// Elsewhere is told why a blob could not be had where it was asked for, and
	// tells whether the next try goes to another place.
	Elsewhere(d v1.Descriptor, err error) bool
}

// fetch fetches one blob, and goes on where a transfer broke off.
func (s *Store) fetch(ctx context.Context, d v1.Descriptor, from Source, o *AddOptions) error {
	i, err := s.ingest(ctx, d.Digest, d.Size)
	if err != nil {
		return err
	}
	if i == nil {
		if size, err := s.blobSize(d.Digest); err != nil || size != d.Size {
			return errors.Join(err, bad("%s has %d bytes and is said to have %d", d.Digest, size, d.Size))
		}
		o.tell(Progress{Digest: d.Digest, Done: d.Size, Total: d.Size, Stage: StageHere})
		return nil
	}
	defer i.Close()
	const tries = 6
	const firstPause = 250 * time.Millisecond
	pause := firstPause
	joined := i.Have() > 0 // from what more than one transfer brought
	doubted := false
	for try := 1; ; try++ {
		before := i.Have()
		err := s.transfer(ctx, d, from, i, o)
		if err == nil {
			err = i.Commit()
		}
		if err == nil {
			break
		}
		var wrong *BadImageError
		if errors.As(err, &wrong) {
			if restartErr := i.Restart(); restartErr != nil {
				return restartErr
			}
			if joined && !doubted { // what was there may be what is wrong
				joined, doubted = false, true
				continue
			}
		}
		if errors.Is(err, unix.ENOSPC) { // what there is would keep the disk full
			return errors.Join(err, i.Restart())
		}
		if i.Have() > before { // what comes at all may take its time
			try, pause = 1, firstPause
		}
		joined = joined || i.Have() > 0
		if ctx.Err() != nil {
			return err
		}
		if try == tries || !from.Again(err) {
			if e, ok := from.(Elsewhere); !ok || !e.Elsewhere(d, err) {
				return err
			}
			try, pause = 0, firstPause
			continue
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause *= 2
	}
	o.tell(Progress{Digest: d.Digest, Done: d.Size, Total: d.Size, Stage: StageDone})
	return nil
}

func (s *Store) transfer(ctx context.Context, d v1.Descriptor, from Source, to *ingest, o *AddOptions) error {
	if to.Have() == d.Size && d.Size > 0 {
		return nil
	}
	r, at, err := from.Blob(ctx, d, to.Have())
	if err != nil {
		return err
	}
	defer r.Close()
	if at != to.Have() {
		if at != 0 {
			return errors.New("the source began somewhere else than it was asked to")
		}
		if err := to.Restart(); err != nil {
			return err
		}
	}
	const told = 1 << 20
	for {
		_, err := io.CopyN(to, r, told)
		o.tell(Progress{Digest: d.Digest, Done: to.Have(), Total: d.Size, Stage: StageFetching})
		if err == io.EOF {
			if to.Have() < d.Size {
				return fmt.Errorf("the transfer broke off at byte %d of %d: %w", to.Have(), d.Size, io.ErrUnexpectedEOF)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}
