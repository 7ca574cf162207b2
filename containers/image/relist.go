package image

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

func emptyIndex() *v1.IndexManifest {
	return &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
}

// beginIndex gives a new store its index.json. One that has blobs and none has
// lost it.
func (s *Store) beginIndex() error {
	missing := func() (bool, error) {
		if _, err := os.Lstat(s.path("index.json")); !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		blobs, err := os.ReadDir(s.path("blobs", "sha256"))
		return len(blobs) == 0, err
	}
	if is, err := missing(); err != nil || !is {
		return err
	}
	f, err := s.lockFile(context.Background(), ".index", unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer f.Close()
	if is, err := missing(); err != nil || !is { // another process may have
		return err
	}
	return s.writeIndex(emptyIndex())
}

// relist makes index.json anew where it is damaged or lost: every image of which
// the manifest and the configuration are here, without a name, and the index that
// it is of. It gives why that was needed, nil: it was not.
func (s *Store) relist(ctx context.Context) (*NamesError, error) {
	f, err := s.lockFile(ctx, ".index", unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lost *NamesError
	if _, err := s.readIndex(); !errors.As(err, &lost) {
		return nil, err
	}
	blobs, err := os.ReadDir(s.path("blobs", "sha256"))
	if err != nil {
		return nil, err
	}
	index, of := emptyIndex(), map[v1.Hash]string{}
	for _, b := range blobs {
		if st, err := b.Info(); err != nil || st.Size() > maxDocument {
			continue
		}
		h := v1.Hash{Algorithm: "sha256", Hex: b.Name()}
		text, err := s.document(h)
		if err != nil || !strings.HasPrefix(strings.TrimSpace(string(text)), "{") {
			continue
		}
		if i, err := s.open(h); err == nil {
			index.Manifests = append(index.Manifests, v1.Descriptor{MediaType: i.mediaType(), Digest: h, Size: int64(len(text))})
		} else if list, err := parseIndex(h.String(), text); err == nil {
			for _, d := range list.Manifests {
				of[d.Digest] = cmp.Or(of[d.Digest], h.String())
			}
		}
	}
	// What is of an index which is of another is of that.
	for h, parent := range of {
		for seen := []string{parent}; ; seen = append(seen, parent) {
			up, err := v1.NewHash(parent)
			if err != nil || of[up] == "" || slices.Contains(seen, of[up]) {
				break
			}
			parent = of[up]
		}
		of[h] = parent
	}
	shareIndexes(index, of)
	return lost, s.writeIndex(index)
}
