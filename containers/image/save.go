package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// SaveOptions say how images are saved.
type SaveOptions struct {
	// Docker adds the manifest.json that `docker load` wants before Docker 25,
	// as newer ones' own `docker save` does.
	Docker   bool
	Progress func(Progress) // may be nil
}

// Save writes images under names to an OCI archive: blobs as they are, and
// nothing that depends on when or where, so that the same images give the same
// archive. Each blob is compared with its digest on the way.
func (s *Store) Save(ctx context.Context, w io.Writer, images []Named, o SaveOptions) error {
	done, err := s.Use(ctx)
	if err != nil {
		return err
	}
	defer done()
	t := tar.NewWriter(w)
	if err := s.writeLayout(ctx, images, o, tarLayout{t}); err != nil {
		return err
	}
	return t.Close()
}

// SaveFolder writes them as an OCI layout into a folder, which is new or empty,
// and stays so after an error.
func (s *Store) SaveFolder(ctx context.Context, dir string, owner Owner, images []Named, o SaveOptions) (err error) {
	done, err := s.Use(ctx)
	if err != nil {
		return err
	}
	defer done()
	root, made, err := outputFolder(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if entries, err := fs.ReadDir(root.FS(), "."); err != nil {
		return err
	} else if len(entries) > 0 {
		return fmt.Errorf("the folder %s is not empty", dir)
	}
	defer func() {
		if err == nil {
			return
		}
		for _, name := range []string{"blobs", "index.json", "manifest.json", "oci-layout"} {
			err = errors.Join(err, root.RemoveAll(name))
		}
		if made {
			err = errors.Join(err, os.Remove(dir))
		}
	}()
	to := folderLayout{root, owner}
	if made {
		if err := to.giveFolder("."); err != nil {
			return err
		}
	}
	return s.writeLayout(ctx, images, o, to)
}

// outputFolder makes the folder if it is not there. One that is made is opened by
// what it was made in, so that nobody has another folder given away in its place.
func outputFolder(dir string) (root *os.Root, made bool, err error) {
	root, err = os.OpenRoot(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return root, false, err
	}
	parent, err := os.OpenRoot(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		return nil, false, err
	}
	defer parent.Close()
	name := filepath.Base(dir)
	if err := parent.Mkdir(name, 0o755); err != nil {
		return nil, false, err
	}
	root, err = parent.OpenRoot(name)
	return root, true, err
}

// layoutWriter is where an OCI layout is written to.
type layoutWriter interface {
	folder(name string) error
	file(name string, size int64, content io.Reader) error
}

type tarLayout struct{ *tar.Writer }

func (t tarLayout) folder(name string) error {
	return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, Format: tar.FormatUSTAR})
}

func (t tarLayout) file(name string, size int64, content io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, Format: tar.FormatUSTAR}
	if size >= 8<<30 { // octal digits end here
		h.Format = tar.FormatPAX
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(t, content)
	return err
}

// folderLayout gives what it writes to an owner, by descriptors: by their names
// it may be something else by then.
type folderLayout struct {
	*os.Root
	owner Owner
}

func (f folderLayout) folder(name string) error {
	if err := f.MkdirAll(name, 0o755); err != nil {
		return err
	}
	for ; name != "."; name = path.Dir(name) {
		if err := f.giveFolder(name); err != nil {
			return err
		}
	}
	return nil
}

func (f folderLayout) giveFolder(name string) error {
	dir, err := f.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.owner.Give(dir), dir.Close())
}

func (f folderLayout) file(name string, _ int64, content io.Reader) error {
	file, err := f.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, f.owner.Give(file), file.Close())
}

func (s *Store) writeLayout(ctx context.Context, images []Named, o SaveOptions, to layoutWriter) error {
	index, err := s.layoutIndex(images, o)
	if err != nil {
		return err
	}
	if err := s.writeBlobs(ctx, images, to, o.Progress, func() error { return nil }); err != nil {
		return err
	}
	return writeHeads(index, images, o, to)
}

// layoutIndex names images as others look for them.
func (s *Store) layoutIndex(images []Named, o SaveOptions) (v1.IndexManifest, error) {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	for _, i := range images {
		size, err := s.blobSize(i.Digest)
		if err != nil {
			return index, err
		}
		d := v1.Descriptor{MediaType: i.mediaType(), Digest: i.Digest, Size: size}
		d.Platform = &v1.Platform{OS: i.Config.OS, Architecture: i.Config.Architecture, Variant: i.Config.Variant}
		d.Annotations = map[string]string{}
		if len(s.indexesOf(i.Image)) > 0 { // which comes along: who pins it finds the image
			d.Annotations[indexAnnotation] = i.Index.String()
		}
		if i.Name != "" {
			d.Annotations[nameAnnotation], d.Annotations["io.containerd.image.name"] = i.Name, i.Name
			if o.Docker && !strings.Contains(i.Name, "@") { // as Docker's own
				_, d.Annotations[nameAnnotation], _ = strings.Cut(i.Name[strings.LastIndexByte(i.Name, '/')+1:], ":")
			}
		}
		index.Manifests = append(index.Manifests, d)
	}
	return index, nil
}

// writeBlobs writes what images are of, each blob once, after what first writes.
func (s *Store) writeBlobs(ctx context.Context, images []Named, to layoutWriter, tell func(Progress), first func() error) error {
	tell = teller(tell)
	blobs := map[v1.Hash]string{} // with the name of an image that has it
	for _, i := range images {
		all := append([]v1.Hash{i.Digest}, hashesOf(i.Image)...)
		for _, text := range s.indexesOf(i.Image) {
			all = append(all, hashOf(text))
		}
		for _, h := range all {
			if _, twice := blobs[h]; twice {
				continue
			}
			blobs[h] = i.Name
			if size, err := s.blobSize(h); err == nil {
				tell(Progress{Image: i.Name, Digest: h, Total: size, Stage: StageWaiting})
			}
		}
	}
	for _, dir := range []string{"blobs", "blobs/sha256"} {
		if err := to.folder(dir); err != nil {
			return err
		}
	}
	if err := first(); err != nil {
		return err
	}
	var names []v1.Hash
	for h := range blobs {
		names = append(names, h)
	}
	slices.SortFunc(names, func(a, b v1.Hash) int { return strings.Compare(a.Hex, b.Hex) })
	for _, h := range names {
		if err := s.saveBlob(ctx, h, to, blobs[h], tell); err != nil {
			return err
		}
	}
	return nil
}

type head struct {
	name string
	text []byte
}

const layoutVersion = `{"imageLayoutVersion":"1.0.0"}`

// writeHeads writes what names the blobs, last: a cut archive has no images.
func writeHeads(index v1.IndexManifest, images []Named, o SaveOptions, to layoutWriter) error {
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	heads := []head{{"index.json", text}}
	if o.Docker {
		if text, err = json.Marshal(dockerHead(images)); err != nil {
			return err
		}
		heads = append(heads, head{"manifest.json", text})
	}
	heads = append(heads, head{"oci-layout", []byte(layoutVersion)})
	for _, h := range heads {
		if err := to.file(h.name, int64(len(h.text)), bytes.NewReader(h.text)); err != nil {
			return err
		}
	}
	return nil
}

// dockerHead is manifest.json: each image once, with all its names.
func dockerHead(images []Named) []savedImage {
	var list []savedImage
	at := map[v1.Hash]int{}
	for _, i := range images {
		n, ok := at[i.Digest]
		if !ok {
			n = len(list)
			at[i.Digest] = n
			one := savedImage{Config: blobName(i.Manifest.Config.Digest), Layers: []string{}}
			for k := range i.Layers {
				one.Layers = append(one.Layers, blobName(i.Layers[k].Digest))
			}
			list = append(list, one)
		}
		// Whole, as Podman takes a short one for its own. A digest is no tag.
		if i.Name != "" && !strings.Contains(i.Name, "@") {
			list[n].RepoTags = append(list[n].RepoTags, i.Name)
		}
	}
	return list
}

func (s *Store) saveBlob(ctx context.Context, h v1.Hash, to layoutWriter, image string, tell func(Progress)) error {
	f, err := s.openBlob(h)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	sum := newSum()
	at := Progress{Image: image, Digest: h, Total: st.Size(), Stage: StageSaving}
	if err := to.file(blobName(h), st.Size(), io.TeeReader(&toldReader{Reader: &untilDone{ctx, f}, at: at, tell: tell}, sum)); err != nil {
		return fmt.Errorf("cannot save %s: %w", h, err)
	}
	if got := sum.hash(); got != h {
		return &CorruptError{What: "blob", Digest: h, Detail: "it has the digest " + got.String()}
	}
	at.Done, at.Stage = st.Size(), StageDone
	tell(at)
	return nil
}
