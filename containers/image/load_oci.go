package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// layout is an OCI image layout in an archive (OCI image-layout.md).
type layout struct{ archive }

func blobName(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// blob opens a blob that has the size which is said.
func (l layout) blob(d v1.Descriptor) (*member, error) {
	if err := checkHash(d.Digest); err != nil {
		return nil, err
	}
	m, err := l.open(blobName(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, bad("the archive lacks %s", blobName(d.Digest))
	}
	if err != nil {
		return nil, err
	}
	if m.Size() != d.Size {
		m.Close()
		return nil, bad("%s has %d bytes and is said to have %d", blobName(d.Digest), m.Size(), d.Size)
	}
	return m, nil
}

// document reads a manifest or an index.
func (l layout) document(d v1.Descriptor) ([]byte, error) {
	m, err := l.blob(d)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if m.Size() > maxDocument {
		return nil, bad("%s has %d bytes, more than a manifest may have", blobName(d.Digest), m.Size())
	}
	text, err := io.ReadAll(m)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", blobName(d.Digest), err)
	}
	if sum := hashOf(text); sum != d.Digest {
		return nil, bad("%s has the digest %s", blobName(d.Digest), sum)
	}
	return text, nil
}

// What an index may be like; registries' have one level.
const (
	maxIndexDepth   = 8
	maxIndexEntries = 1000
)

// found is an image of an archive that hasn't been brought yet.
type found struct {
	names    []string // Reference.String()
	manifest []byte
	digest   v1.Hash
	config   v1.Hash
	indexes  [][]byte // AddOptions.Indexes
	source   Source
	foreign  string // the platform that it is said to be for, where this machine doesn't run it
}

func (f *found) index() v1.Hash { return (&AddOptions{Indexes: f.indexes}).index() }

// images lists the layout's images with the names that it gives them.
func (l layout) images() ([]found, error) {
	text, err := read(l.archive, "index.json")
	if err != nil {
		return nil, fmt.Errorf("cannot read index.json: %w", err)
	}
	top, err := parseIndex("index.json", text)
	if err != nil {
		return nil, err
	}
	var all []found
	for _, d := range top.Manifests {
		if aboutAnother(&d) {
			continue
		}
		f, err := l.resolve(d, map[v1.Hash]bool{}, 0)
		if err != nil {
			return nil, fmt.Errorf("%s in index.json: %w", shorten(d.Digest.String()), err)
		}
		if f == nil {
			continue // no image, but a signature or the like
		}
		if h, err := v1.NewHash(d.Annotations[indexAnnotation]); err == nil && len(f.indexes) == 0 {
			f.indexes = indexPath(h, f.digest, func(h v1.Hash) ([]byte, error) { return l.indexBlob(h) })
		}
		if f.names, err = namesOf(d, f); err != nil {
			return nil, err
		}
		if foreign(d.Platform, MachinePlatform()) {
			f.foreign = d.Platform.String()
		}
		all = append(all, *f)
	}
	have := map[string]int{} // how many images have a name
	for _, f := range all {
		for _, name := range f.names {
			have[name]++
		}
	}
	for n, f := range all { // a name that means it alone means it
		if len(f.names) > 0 && have[f.names[0]] == 1 {
			all[n].foreign = ""
		}
	}
	return all, nil
}

// resolve finds the image of this machine's platform that a descriptor means,
// or nil if it means something else than an image. above are the indexes that
// led here.
func (l layout) resolve(d v1.Descriptor, above map[v1.Hash]bool, depth int) (*found, error) {
	text, err := l.document(d)
	if err != nil {
		return nil, err
	}
	if !isIndex(d, text) {
		if isArtifact(text) {
			return nil, nil
		}
		m, err := parseManifest(text)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		return &found{manifest: text, digest: d.Digest, config: m.Config.Digest, source: members(l.blob)}, nil
	}
	if above[d.Digest] {
		return nil, bad("the index %s contains itself", d.Digest)
	}
	if depth == maxIndexDepth {
		return nil, bad("its indexes are more than %d deep", maxIndexDepth)
	}
	above[d.Digest] = true
	index, err := parseIndex(d.Digest.String(), text)
	if err != nil {
		return nil, err
	}
	next := choosePlatform(index, MachinePlatform())
	if next == nil {
		return nil, bad("the index %s has no image for %s", d.Digest, MachinePlatform())
	}
	f, err := l.resolve(*next, above, depth+1)
	if f != nil {
		f.indexes = append([][]byte{text}, f.indexes...)
	}
	return f, err
}

func parseIndex(what string, text []byte) (*v1.IndexManifest, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(text))
	if err != nil {
		return nil, bad("%s is not a valid index: %v", what, err)
	}
	if len(index.Manifests) > maxIndexEntries {
		return nil, bad("%s has more than %d entries", what, maxIndexEntries)
	}
	for _, d := range index.Manifests {
		if err := checkHash(d.Digest); err != nil {
			return nil, err
		}
		if d.Size < 0 || d.Size > maxDocument {
			return nil, bad("the manifest %s is said to have %d bytes", d.Digest, d.Size)
		}
	}
	return index, nil
}

// isIndex believes the document first, as its digest covers it.
func isIndex(d v1.Descriptor, text []byte) bool {
	var head struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if json.Unmarshal(text, &head) == nil && head.MediaType == "" {
		return d.MediaType.IsIndex() || head.Manifests != nil && !d.MediaType.IsImage()
	}
	return v1Type(head.MediaType).IsIndex()
}

// isArtifact: signatures and other things lie beside images.
func isArtifact(text []byte) bool {
	var head struct {
		ArtifactType string `json:"artifactType"`
		Config       struct {
			MediaType string `json:"mediaType"`
		} `json:"config"`
	}
	return json.Unmarshal(text, &head) == nil && head.Config.MediaType != "" && !v1Type(head.Config.MediaType).IsConfig()
}

// namesOf reads the names that a layout gives an image: containerd and Docker
// have the whole one beside a tag, others have one of both as OCI's annotation.
func namesOf(d v1.Descriptor, f *found) ([]string, error) {
	text := d.Annotations["io.containerd.image.name"]
	if text == "" {
		text = d.Annotations[nameAnnotation]
		if !looksWhole(text) {
			return nil, nil
		}
	}
	if ref, err := ParseReference(text); err == nil && ref.Digest != "" && (ref.Digest == f.digest.String() || ref.Digest == f.index().String()) {
		return []string{ref.String()}, nil
	}
	return wholeNames([]string{text})
}

// indexBlob reads an index of the archive that another's annotation names.
func (l layout) indexBlob(h v1.Hash) ([]byte, error) {
	if err := checkHash(h); err != nil {
		return nil, err
	}
	m, err := l.open(blobName(h))
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return l.document(v1.Descriptor{Digest: h, Size: m.Size()})
}
