package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Annotations of index.json. The first is the one of the OCI image layout, by
// which skopeo and others find an image in the folder too.
const (
	nameAnnotation  = "org.opencontainers.image.ref.name"
	indexAnnotation = "platelayer.index" // the digest of Image.Index
	askedAnnotation = "platelayer.asked" // Image.Asked (RFC 3339)
)

// Named is an image with one of its names.
type Named struct {
	Name string // Reference.String(), or "" for an image without a name
	*Image
}

// UnknownError is an image that the store doesn't have.
type UnknownError struct{ Name string }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("there is no image %q here", shorten(e.Name))
}

// readIndex reads index.json: the names of the images.
func (s *Store) readIndex() (*v1.IndexManifest, error) {
	text, err := os.ReadFile(s.path("index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NamesError{s.path("index.json"), errors.New("it is lost")}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the image store: %w", err)
	}
	index := new(v1.IndexManifest)
	if err := json.Unmarshal(text, index); err != nil {
		return nil, &NamesError{s.path("index.json"), err}
	}
	if index.SchemaVersion != 2 {
		return nil, &NamesError{s.path("index.json"), errors.New("it is no index of images")}
	}
	shareIndexes(index, map[v1.Hash]string{})
	return index, nil
}

// NamesError is a store whose index.json is damaged or lost.
type NamesError struct {
	Path string
	Err  error
}

func (e *NamesError) Error() string {
	return fmt.Sprintf("cannot read the names of the images: %s: %v", e.Path, e.Err)
}
func (e *NamesError) Unwrap() error { return e.Err }

// shareIndexes: an image is of its index under all its names, and when it came by
// itself, too. of are indexes that images are known to be of. An entry that says
// another is left so.
func shareIndexes(index *v1.IndexManifest, of map[v1.Hash]string) {
	for _, d := range index.Manifests {
		of[d.Digest] = cmp.Or(of[d.Digest], d.Annotations[indexAnnotation])
	}
	for n := range index.Manifests {
		if d := &index.Manifests[n]; of[d.Digest] != "" && d.Annotations[indexAnnotation] == "" {
			if d.Annotations == nil {
				d.Annotations = map[string]string{}
			}
			d.Annotations[indexAnnotation] = of[d.Digest]
		}
	}
}

// changeIndex changes the names, one process at a time.
func (s *Store) changeIndex(ctx context.Context, change func(*v1.IndexManifest) error) error {
	done, err := s.Use(ctx)
	if err != nil {
		return err
	}
	defer done()
	return s.rewriteIndex(ctx, change)
}

// rewriteIndex is for who keeps Prune away, or is Prune.
func (s *Store) rewriteIndex(ctx context.Context, change func(*v1.IndexManifest) error) error {
	f, err := s.lockFile(ctx, ".index", unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer f.Close()
	index, err := s.readIndex()
	if err != nil {
		return err
	}
	if err := change(index); err != nil {
		return err
	}
	return s.writeIndex(index)
}

// writeIndex is for who has the lock.
func (s *Store) writeIndex(index *v1.IndexManifest) error {
	text, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	err = syncDir(s.path("blobs", "sha256")) // what is named is there after a power cut
	if err == nil {
		err = s.write("index.json", text)
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("cannot write the image store's names: %w", err)
	}
	return nil
}

// Name gives an image of the store one more name, which another loses; "" only
// keeps it from being pruned as a leftover.
func (s *Store) Name(ctx context.Context, name string, i *Image) error {
	return s.nameAll(ctx, []Named{{name, i}})
}

func (s *Store) nameAll(ctx context.Context, all []Named) error {
	return s.changeIndex(ctx, func(index *v1.IndexManifest) error {
		for _, n := range all {
			if err := s.nameIn(index, n.Name, n.Image); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) nameIn(index *v1.IndexManifest, name string, i *Image) error {
	of, had := "", false
	if i.Index != (v1.Hash{}) {
		of = i.Index.String()
	}
	for _, d := range index.Manifests {
		if d.Digest == i.Digest {
			had, of = true, cmp.Or(of, d.Annotations[indexAnnotation])
		}
	}
	shareIndexes(index, map[v1.Hash]string{i.Digest: of})
	if name == "" && had {
		return nil
	}
	size, err := s.blobSize(i.Digest)
	if err != nil {
		return err
	}
	d := v1.Descriptor{MediaType: i.mediaType(), Digest: i.Digest, Size: size, Annotations: map[string]string{}}
	if name != "" {
		d.Annotations[nameAnnotation] = name
	}
	if of != "" {
		d.Annotations[indexAnnotation] = of
	}
	if !i.Asked.IsZero() {
		d.Annotations[askedAnnotation] = i.Asked.UTC().Format(time.RFC3339)
	}
	// What loses its last name stays, without one.
	var lost []v1.Descriptor
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d v1.Descriptor) bool {
		other := d.Annotations[nameAnnotation]
		if other == name && d.Digest != i.Digest {
			lost = append(lost, d)
		}
		return name != "" && (other == name || other == "" && d.Digest == i.Digest)
	})
	index.Manifests = append(index.Manifests, d)
	for _, d := range lost {
		if !slices.ContainsFunc(index.Manifests, func(other v1.Descriptor) bool { return other.Digest == d.Digest }) {
			delete(d.Annotations, nameAnnotation)
			index.Manifests = append(index.Manifests, d)
		}
	}
	return nil
}

func (s *Store) blobSize(h v1.Hash) (int64, error) {
	f, err := s.openBlob(h)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// List gives all images under each of their names, in the order of names. One
// that is damaged is given with an error.
func (s *Store) List() ([]Named, error) {
	index, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	var all []Named
	var problems []error
	for _, d := range index.Manifests {
		i, err := s.described(d)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		all = append(all, Named{d.Annotations[nameAnnotation], i})
	}
	slices.SortFunc(all, func(a, b Named) int {
		return strings.Compare(a.Name+"\x00"+a.Digest.Hex, b.Name+"\x00"+b.Digest.Hex)
	})
	return all, errors.Join(problems...)
}

func (s *Store) described(d v1.Descriptor) (*Image, error) {
	i, err := s.open(d.Digest)
	if err != nil {
		return nil, err
	}
	if text := d.Annotations[indexAnnotation]; text != "" {
		if i.Index, err = v1.NewHash(text); err != nil {
			return nil, err
		}
	}
	if text := d.Annotations[askedAnnotation]; text != "" {
		if i.Asked, err = time.Parse(time.RFC3339, text); err != nil {
			return nil, fmt.Errorf("cannot read the image store: %w", err)
		}
	}
	return i, nil
}

// Find gives the image that a name means: a name as people write it, with or
// without a digest, or the first 6 or more digits of the image's digest, its
// index's, or its configuration's, which is Docker's image id. What isn't there
// is an UnknownError.
func (s *Store) Find(name string) (*Image, error) {
	index, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	if ref, err := ParseReference(name); err == nil && !isDigest(name) {
		for _, d := range index.Manifests {
			if matches(d, ref) {
				return s.described(d)
			}
		}
	}
	d, err := s.byDigits(index, name)
	if err != nil {
		return nil, err
	}
	return s.described(d)
}

// isDigest tells a digest from a name, though an image might be called so:
// docker.io/library/sha256:HEX.
func isDigest(text string) bool { return strings.HasPrefix(text, "sha256:") }

// byDigits finds an entry by the beginning of a digest. One that is damaged is
// found by its own.
func (s *Store) byDigits(index *v1.IndexManifest, text string) (v1.Descriptor, error) {
	digits := strings.TrimPrefix(text, "sha256:")
	if len(digits) < 6 || strings.Trim(digits, "0123456789abcdef") != "" {
		return v1.Descriptor{}, &UnknownError{text}
	}
	found := map[v1.Hash]v1.Descriptor{}
	for _, d := range index.Manifests {
		if d.Digest.Hex == digits {
			return d, nil // whoever made it another image's configuration
		}
		if strings.HasPrefix(d.Digest.Hex, digits) || strings.HasPrefix(d.Annotations[indexAnnotation], "sha256:"+digits) {
			found[d.Digest] = d
		} else if i, err := s.open(d.Digest); err == nil && strings.HasPrefix(i.Manifest.Config.Digest.Hex, digits) {
			found[d.Digest] = d
		}
	}
	if len(found) > 1 {
		return v1.Descriptor{}, fmt.Errorf("%d images begin with %s", len(found), digits)
	}
	for _, d := range found {
		return d, nil
	}
	return v1.Descriptor{}, &UnknownError{text}
}

// Names are those of one image, of which some are meant.
type Names struct {
	Digest        v1.Hash
	Meant, Others []string
}

// NamesOf tells which names a user's word for an image means: itself, or all for
// a digest. The image may be damaged.
func (s *Store) NamesOf(text string) (Names, error) {
	index, err := s.readIndex()
	if err != nil {
		return Names{}, err
	}
	n, name := Names{}, ""
	if ref, err := ParseReference(text); err == nil && !isDigest(text) {
		for _, d := range index.Manifests {
			if matches(d, ref) {
				n.Digest, name = d.Digest, d.Annotations[nameAnnotation]
				break
			}
		}
	}
	if name == "" {
		d, err := s.byDigits(index, text)
		if err != nil {
			return Names{}, err
		}
		n.Digest = d.Digest
	}
	for _, d := range index.Manifests {
		switch other := d.Annotations[nameAnnotation]; {
		case d.Digest != n.Digest || other == "":
		case name == "" || other == name:
			n.Meant = append(n.Meant, other)
		default:
			n.Others = append(n.Others, other)
		}
	}
	return n, nil
}

// matches tells whether a name of the index is meant. A digest means the image
// itself or the index it came from, in any repository of that name.
func matches(d v1.Descriptor, ref Reference) bool {
	have := d.Annotations[nameAnnotation]
	if ref.Digest == "" {
		return have == ref.String()
	}
	if d.Digest.String() != ref.Digest && d.Annotations[indexAnnotation] != ref.Digest {
		return false
	}
	r, err := ParseReference(have)
	return err == nil && r.Registry == ref.Registry && r.Repository == ref.Repository
}
