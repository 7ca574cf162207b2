package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// A bundle is an OCI archive with images, and one artifact beside them (OCI
// image-spec manifest.md, "Guidelines for Artifact Usage"): its configuration
// says what it is, and names the images, and its layers are tars of files. The
// digest of its manifest thus stands for all of it.
const (
	bundleType  = "application/vnd.platelayer.bundle.v1"
	bundleFiles = "application/vnd.platelayer.bundle.files.v1.tar"
	partTitle   = "org.opencontainers.image.title"
)

// BundlePart is a tree of files in a bundle.
type BundlePart struct {
	Title string
	Files []BundleFile
	// Plain are files of no owner, which become whose folder they are put into:
	// nothing but regular files.
	Plain bool
}

// BundleFile is a file, or a folder with all that is in it.
type BundleFile struct {
	Name    string // in the bundle, relative
	Path    string // on this machine, without links; "" where there is Content
	Content []byte
}

// BundleOptions are what a bundle says of itself.
type BundleOptions struct {
	Config []byte   // JSON
	Skip   []string // names that are left out
	Notice func(text string)
	// Read is called when all parts have been read, before the first byte of the
	// bundle is written.
	Read func() error

	Progress func(Progress) // of the images; may be nil
}

// SaveBundle writes a bundle as Save writes an archive, and gives its digest.
// The same content gives the same bundle.
func (s *Store) SaveBundle(ctx context.Context, w io.Writer, images []Named, parts []BundlePart, o BundleOptions) (h v1.Hash, err error) {
	done, err := s.Use(ctx)
	if err != nil {
		return h, err
	}
	defer done()
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: bundleType, Config: memory(bundleType+"+json", o.Config)}
	blobs := map[v1.Hash]io.ReaderAt{m.Config.Digest: bytes.NewReader(o.Config)}
	sizes := map[v1.Hash]int64{m.Config.Digest: m.Config.Size}
	for _, p := range parts {
		f, d, err := s.tarOf(ctx, &p, &o)
		if err != nil {
			return h, err
		}
		defer f.Close()
		d.Annotations = map[string]string{partTitle: p.Title}
		m.Layers = append(m.Layers, d)
		blobs[d.Digest], sizes[d.Digest] = f, d.Size
	}
	if err := o.Read(); err != nil {
		return h, err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return h, err
	}
	tell := teller(o.Progress)
	own := memory(string(types.OCIManifestSchema1), text)
	blobs[own.Digest], sizes[own.Digest] = bytes.NewReader(text), own.Size
	t := tar.NewWriter(w)
	to := tarLayout{t}
	index, err := s.layoutIndex(images, SaveOptions{})
	if err != nil {
		return h, err
	}
	index.Manifests = append([]v1.Descriptor{{MediaType: own.MediaType, Digest: own.Digest, Size: own.Size, ArtifactType: bundleType}}, index.Manifests...)
	if err := s.writeBlobs(ctx, images, to, o.Progress, func() error {
		all := append([]v1.Descriptor{own, m.Config}, m.Layers...)
		for _, d := range all {
			tell(Progress{Image: d.Annotations[partTitle], Digest: d.Digest, Total: d.Size, Stage: StageWaiting})
		}
		for _, d := range all {
			if blobs[d.Digest] == nil {
				continue // the same twice
			}
			at := Progress{Image: d.Annotations[partTitle], Digest: d.Digest, Total: d.Size, Stage: StageSaving}
			from := &toldReader{Reader: &untilDone{ctx, io.NewSectionReader(blobs[d.Digest], 0, d.Size)}, at: at, tell: tell}
			if err := to.file(blobName(d.Digest), d.Size, from); err != nil {
				return err
			}
			at.Done, at.Stage = d.Size, StageDone
			tell(at)
			delete(blobs, d.Digest)
		}
		return nil
	}); err != nil {
		return h, err
	}
	if err := writeHeads(index, images, SaveOptions{Docker: true}, to); err != nil {
		return h, err
	}
	return own.Digest, t.Close()
}

func memory(kind string, text []byte) v1.Descriptor {
	h, size, _ := v1.SHA256(bytes.NewReader(text))
	return v1.Descriptor{MediaType: types.MediaType(kind), Digest: h, Size: size}
}

// tarOf spools a part as a tar.
func (s *Store) tarOf(ctx context.Context, p *BundlePart, o *BundleOptions) (_ *os.File, d v1.Descriptor, err error) {
	f, err := s.spool()
	if err != nil {
		return nil, d, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	file, sum := &holeWriter{File: f}, newSum()
	room := &bounded{io.MultiWriter(file, sum), s.limits.Bytes}
	t := &treeTar{ctx: ctx, out: tar.NewWriter(room), room: room, skip: o.Skip, notice: o.Notice,
		buffer: make([]byte, 256<<10), links: map[inode]string{}}
	slices.SortFunc(p.Files, func(a, b BundleFile) int { return strings.Compare(a.Name, b.Name) })
	for _, one := range p.Files {
		if err := t.bundleFile(&one, p.Plain); err != nil {
			return nil, d, err
		}
	}
	if err := errors.Join(t.out.Close(), file.finish()); err != nil {
		return nil, d, err
	}
	return f, v1.Descriptor{MediaType: bundleFiles, Digest: sum.hash(), Size: file.at}, nil
}

func (t *treeTar) bundleFile(f *BundleFile, plain bool) error {
	if f.Path == "" {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: int64(len(f.Content)), Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if err := t.out.WriteHeader(h); err != nil {
			return err
		}
		_, err := t.out.Write(f.Content)
		return err
	}
	dir, err := unix.Open(filepath.Dir(f.Path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(f.Path), Err: err}
	}
	defer unix.Close(dir)
	if plain {
		t.links = map[inode]string{} // of a file that is named twice, both
		var st unix.Stat_t
		if err := unix.Fstatat(dir, filepath.Base(f.Path), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "inspect", Path: f.Path, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return fmt.Errorf("%s is not a regular file", f.Path)
		}
	}
	if f.Name == "." { // all of a folder, as its root
		root, err := os.Open(f.Path)
		if err != nil {
			return err
		}
		defer root.Close()
		return t.root(root, false)
	}
	return t.entry(dir, filepath.Base(f.Path), f.Name, false)
}

// Bundle is an opened bundle. Nobody says that it is well-meant.
type Bundle struct {
	Digest   v1.Hash
	Config   []byte
	Progress func(Progress) // may be nil; how far trees are unpacked

	store    *Store
	archive  archive
	manifest v1.Manifest
}

// OpenBundle opens a bundle; packed ones and pipes too. It closes r.
func (s *Store) OpenBundle(ctx context.Context, r *os.File) (_ *Bundle, err error) {
	a, err := s.openArchive(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	b := &Bundle{store: s, archive: a}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	text, err := read(a, "index.json")
	if err != nil {
		return nil, bad("it is not a bundle: %v", err)
	}
	index, err := parseIndex("index.json", text)
	if err != nil {
		return nil, err
	}
	l := layout{a}
	for _, d := range index.Manifests {
		if d.ArtifactType != bundleType {
			continue
		}
		if b.Digest != (v1.Hash{}) {
			return nil, bad("it is two bundles in one")
		}
		b.Digest = d.Digest
		if text, err = l.document(d); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &b.manifest); err != nil {
			return nil, bad("its manifest is not valid: %v", err)
		}
	}
	if b.Digest == (v1.Hash{}) {
		return nil, bad("it is not a bundle: it has images at most, which image load takes")
	}
	if b.manifest.ArtifactType != bundleType {
		return nil, bad("its manifest is not a bundle's")
	}
	b.Config, err = l.document(b.manifest.Config)
	return b, err
}

// Close gives the archive back.
func (b *Bundle) Close() error { return b.archive.close() }

// Parts lists the titles of the trees in the bundle.
func (b *Bundle) Parts() []string {
	var all []string
	for _, d := range b.manifest.Layers {
		all = append(all, d.Annotations[partTitle])
	}
	return all
}

// Owner is whose files become that root writes for a user.
type Owner struct{ UID, GID int }

// Give makes an open file the owner's, who may be the one who writes it.
func (o Owner) Give(f *os.File) error {
	if o.UID == os.Getuid() {
		return nil
	}
	return f.Chown(o.UID, o.GID)
}

// Unpack puts a tree into a folder, which nothing of it leaves; where it is not
// what its digest says, that is an error. An owner makes it a plain part.
func (b *Bundle) Unpack(ctx context.Context, title string, dir string, owner *Owner) error {
	at := slices.Index(b.Parts(), title)
	if at < 0 {
		return bad("the bundle has no %q", shorten(title))
	}
	d := b.manifest.Layers[at]
	m, err := layout{b.archive}.blob(d)
	if err != nil {
		return err
	}
	defer m.Close()
	u := &unpacker{limits: b.store.limits, files: true, owner: owner}
	if u.root, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer u.close()
	tell := teller(b.Progress)
	tell(Progress{Image: title, Digest: d.Digest, Total: d.Size, Stage: StageWaiting})
	reading := Progress{Image: title, Digest: d.Digest, Total: d.Size, Stage: StageReading}
	sum, _, err := u.unpackBlob(ctx, &toldReader{Reader: m, at: reading, tell: tell}, d.Size)
	if err != nil {
		return err
	}
	if sum != d.Digest {
		return bad("the files of %q have the digest %s instead of %s", shorten(title), sum, d.Digest)
	}
	tell(Progress{Image: title, Digest: d.Digest, Done: d.Size, Total: d.Size, Stage: StageDone})
	return nil
}

// LoadImages brings the bundle's images, under the names that wanted has for
// their digests: those, and no others. A name that means another image here goes
// on meaning that.
func (b *Bundle) LoadImages(ctx context.Context, wanted map[string]v1.Hash, progress func(Progress)) error {
	var all []found
	if len(wanted) > 0 {
		var err error
		if all, err = imagesOf(ctx, b.archive); err != nil {
			return err
		}
	}
	have := map[v1.Hash]found{}
	for _, f := range all {
		have[f.digest] = f
	}
	var list []found
	for name, h := range wanted {
		f, ok := have[h]
		if !ok {
			return bad("the bundle lacks the image %s for %s", h, shorten(name))
		}
		f.names = []string{name}
		if had, err := b.store.Find(name); err == nil && had.Digest != h {
			// Others mean that one; the lock in the bundle has the digest.
			ref, err := ParseReference(name)
			if err != nil {
				return err
			}
			ref.Tag, ref.Digest = "", h.String()
			f.names = []string{ref.String()}
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b found) int { return strings.Compare(a.names[0], b.names[0]) })
	_, err := b.store.bringAll(ctx, list, LoadOptions{Progress: progress})
	return err
}
