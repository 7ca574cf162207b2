package image

import (
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// indexPath gives the indexes through which an image is of a multi-platform
// index, that one first; nil where they are not all there, or it is not. read
// gives a document by its digest, which it compares.
func indexPath(index, image v1.Hash, read func(v1.Hash) ([]byte, error)) [][]byte {
	asked := 0
	var below func(h v1.Hash, depth int) [][]byte
	below = func(h v1.Hash, depth int) [][]byte {
		if asked++; depth == maxIndexDepth || asked > maxIndexEntries {
			return nil
		}
		text, err := read(h)
		if err != nil {
			return nil
		}
		list, err := parseIndex(h.String(), text)
		if err != nil {
			return nil
		}
		for _, d := range list.Manifests {
			if d.Digest == image {
				return [][]byte{text}
			}
		}
		for _, d := range list.Manifests {
			if !d.MediaType.IsIndex() {
				continue
			}
			if rest := below(d.Digest, depth+1); rest != nil {
				return append([][]byte{text}, rest...)
			}
		}
		return nil
	}
	return below(index, 0)
}

// indexesOf gives the indexes of the store that an image was chosen from.
func (s *Store) indexesOf(i *Image) [][]byte {
	if i.Index == (v1.Hash{}) {
		return nil
	}
	return indexPath(i.Index, i.Digest, s.document)
}
