package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// hold is what a topology runs, so that it isn't taken from under it.
type hold struct {
	Version int       `json:"version"`
	Images  []v1.Hash `json:"images"`
}

const holdVersion = 1

// Hold says which images a topology runs: besides those that it ran, as long as
// it may go back to them, or instead.
func (s *Store) Hold(ctx context.Context, topology string, images []v1.Hash, besides bool) error {
	done, err := s.Use(ctx) // no prune in between
	if err != nil {
		return err
	}
	defer done()
	if besides {
		held, err := s.Holders()
		if err != nil {
			return err
		}
		for h, by := range held {
			if slices.Contains(by, topology) && !slices.Contains(images, h) {
				images = append(images, h)
			}
		}
	}
	if len(images) == 0 {
		return s.Release(topology)
	}
	text, err := json.Marshal(hold{holdVersion, images})
	if err != nil {
		return err
	}
	if err := s.write("holds/"+topology, text); err != nil {
		return fmt.Errorf("cannot keep the images of %q: %w", topology, err)
	}
	return nil
}

// Release lets go of what a topology ran.
func (s *Store) Release(topology string) error {
	err := os.Remove(s.path("holds", topology))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot let go of the images of %q: %w", topology, err)
	}
	return nil
}

// Holders tells which topologies run which images.
func (s *Store) Holders() (map[v1.Hash][]string, error) {
	all := map[v1.Hash][]string{}
	entries, err := os.ReadDir(s.path("holds"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		text, err := os.ReadFile(s.path("holds", e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // let go of just now
		}
		var h hold
		if err == nil {
			err = json.Unmarshal(text, &h)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read what %q runs: %w", e.Name(), err)
		}
		for _, i := range h.Images {
			all[i] = append(all[i], e.Name())
		}
	}
	return all, nil
}

// Unname takes a name away. The image stays, without a name, until Prune or
// Remove.
func (s *Store) Unname(ctx context.Context, name string) error {
	return s.changeIndex(ctx, func(index *v1.IndexManifest) error {
		at := slices.IndexFunc(index.Manifests, func(d v1.Descriptor) bool { return d.Annotations[nameAnnotation] == name })
		if at < 0 {
			return &UnknownError{name}
		}
		gone := index.Manifests[at]
		index.Manifests = slices.Delete(index.Manifests, at, at+1)
		if !slices.ContainsFunc(index.Manifests, func(d v1.Descriptor) bool { return d.Digest == gone.Digest }) {
			delete(gone.Annotations, nameAnnotation)
			index.Manifests = append(index.Manifests, gone)
		}
		return nil
	})
}

// forget takes an image with all its names out of the index. Its blobs and
// layers go with the next Prune.
func (s *Store) forget(ctx context.Context, h v1.Hash) error {
	return s.changeIndex(ctx, withoutImages(h))
}

func withoutImages(images ...v1.Hash) func(*v1.IndexManifest) error {
	return func(index *v1.IndexManifest) error {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(d v1.Descriptor) bool { return slices.Contains(images, d.Digest) })
		return nil
	}
}

// Pruned is what Prune took away.
type Pruned struct {
	Images []v1.Hash `json:"images"`
	Blobs  int       `json:"blobs"`
	Layers int       `json:"layers"`
	Bytes  int64     `json:"bytes"` // of blobs, and of the unpacked layers' tars
}

// Prune takes away the images for which gone is true that no topology runs, then all
// blobs and layers that no image has any more, and what killed processes left.
// While another process fetches or starts something it waits.
func (s *Store) Prune(ctx context.Context, gone func(Named) bool) (Pruned, error) {
	p := Pruned{Images: []v1.Hash{}} // none is [] in JSON
	lock, err := s.lockFile(ctx, ".use", unix.LOCK_EX)
	if err != nil {
		return p, err
	}
	defer lock.Close()
	held, err := s.Holders()
	if err != nil {
		return p, err
	}
	if err := s.forgetLost(ctx, held); err != nil {
		return p, err
	}
	images, err := s.List()
	if err != nil {
		return p, fmt.Errorf("nothing was removed: %w", err)
	}
	if _, err := s.needed(held); err != nil { // before any name goes
		return p, err
	}
	names := map[v1.Hash]int{}
	for _, i := range images {
		names[i.Digest]++
	}
	for _, i := range images {
		if held[i.Digest] == nil && gone(i) {
			if names[i.Digest]--; names[i.Digest] == 0 {
				p.Images = append(p.Images, i.Digest)
			}
		}
	}
	if len(p.Images) > 0 {
		if err := s.rewriteIndex(ctx, withoutImages(p.Images...)); err != nil {
			return p, err
		}
	}
	err = s.sweep(&p, held)
	return p, err
}

// forgetLost takes out of the index what has lost its manifest or its
// configuration, as after Verify has taken damaged ones away: nothing can be made
// of the rest.
func (s *Store) forgetLost(ctx context.Context, held map[v1.Hash][]string) error {
	index, err := s.readIndex()
	if err != nil {
		return err
	}
	var lost []v1.Hash
	for _, d := range index.Manifests {
		_, err := s.described(d)
		if missing := new(MissingError); errors.As(err, &missing) && held[d.Digest] == nil {
			lost = append(lost, d.Digest)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return s.rewriteIndex(ctx, withoutImages(lost...))
}

// sweep removes what no image needs.
func (s *Store) sweep(p *Pruned, held map[v1.Hash][]string) error {
	need, err := s.needed(held)
	if err != nil {
		return err
	}
	if p.Layers, err = s.dropLayers(func(key string) bool { return !need.layers[key] }, &p.Bytes); err != nil {
		return err
	}
	if p.Blobs, err = removeBut(s.path("blobs", "sha256"), func(name string) bool { return need.blobs[name] }, &p.Bytes); err != nil {
		return err
	}
	_, err = removeBut(s.path("ingest"), need.aside, nil)
	return err
}

// needs is what images have and topologies run.
type needs struct {
	blobs  map[string]bool // by their hex digits
	layers map[string]bool // by their keys
	run    map[string]bool // those of the layers that a topology runs
}

// aside tells whether an entry of ingest is a layer that may be mounted though
// another has replaced it.
func (n *needs) aside(name string) bool {
	key, _, _ := strings.Cut(name, ".")
	return n.run[key] && strings.HasSuffix(name, asideSuffix)
}

// needed lists what an image has or a topology runs.
func (s *Store) needed(held map[v1.Hash][]string) (*needs, error) {
	index, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	roots, need := map[v1.Hash]bool{}, &needs{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for _, d := range index.Manifests {
		roots[d.Digest] = true
		if of, err := v1.NewHash(d.Annotations[indexAnnotation]); err == nil {
			for _, text := range s.indexesOf(&Image{Digest: d.Digest, Index: of}) {
				need.blobs[hashOf(text).Hex] = true
			}
		}
	}
	for h := range held {
		roots[h] = true
	}
	for h := range roots {
		i, err := s.open(h)
		var missing *MissingError
		if errors.As(err, &missing) {
			if by := held[h]; len(by) > 0 { // its layers are under stations, and nobody knows which they are
				return nil, fmt.Errorf("nothing was removed: %s runs on an image that is damaged: %w", strings.Join(by, ", "), err)
			}
			continue // lost by other hands
		}
		if err != nil {
			return nil, fmt.Errorf("nothing was removed: %w", err)
		}
		need.blobs[h.Hex], need.blobs[i.Manifest.Config.Digest.Hex] = true, true
		for n := range i.Layers {
			l := &i.Layers[n]
			need.blobs[l.Digest.Hex], need.layers[l.Key()] = true, true
			need.run[l.Key()] = need.run[l.Key()] || len(held[h]) > 0
		}
	}
	return need, nil
}

// discard takes away what a piece of work that failed had brought, unless an
// image has it by now. While other processes work with the store it leaves that
// to the next Prune: they may be about to use it.
func (s *Store) discard(b *batch) {
	s.alone(func(need *needs) {
		if _, err := s.dropLayers(func(key string) bool { return slices.Contains(b.layers, key) && !need.layers[key] }, nil); err != nil {
			return
		}
		for _, h := range b.blobs {
			if !need.blobs[h.Hex] {
				os.Remove(s.blobPath(h))
				os.Remove(s.path("ingest", h.Hex))
			}
		}
	})
}

// dropAside takes layers away that others have replaced and no station can have
// mounted; the next Prune does where other processes work with the store.
func (s *Store) dropAside() {
	s.alone(func(need *needs) {
		_, _ = removeBut(s.path("ingest"), func(name string) bool { return !strings.HasSuffix(name, asideSuffix) || need.aside(name) }, nil)
	})
}

// alone tidies up, with what images need, unless other processes work with the
// store.
func (s *Store) alone(tidy func(*needs)) {
	lock, err := os.OpenFile(s.path(".use"), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	held, err := s.Holders()
	if err != nil {
		return
	}
	need, err := s.needed(held)
	if err != nil {
		return
	}
	tidy(need)
}

// Remove takes an image with all its names away, and with it what no other image
// has. One that a topology runs is a HeldError. While other processes
// work with the store, its files stay until the next Prune.
func (s *Store) Remove(ctx context.Context, h v1.Hash) error {
	held, err := s.Holders()
	if err != nil {
		return err
	}
	if by := held[h]; len(by) > 0 {
		return &HeldError{h, by}
	}
	b := batch{blobs: []v1.Hash{h}}
	if i, err := s.open(h); err == nil { // else only it is known to go
		b.blobs = append(b.blobs, i.Manifest.Config.Digest)
		for n := range i.Layers {
			b.blobs, b.layers = append(b.blobs, i.Layers[n].Digest), append(b.layers, i.Layers[n].Key())
		}
	}
	if err := s.forget(ctx, h); err != nil {
		return err
	}
	s.discard(&b)
	return nil
}

// HeldError is an image that topologies run.
type HeldError struct {
	Digest     v1.Hash
	Topologies []string
}

func (e *HeldError) Error() string {
	verb := "runs"
	if len(e.Topologies) > 1 {
		verb = "run"
	}
	return fmt.Sprintf("%s %s it", strings.Join(e.Topologies, ", "), verb)
}

// dropLayers takes unpacked layers away: by one rename each, as a half layer
// would be taken for a whole one.
func (s *Store) dropLayers(gone func(key string) bool, bytes *int64) (n int, err error) {
	entries, err := os.ReadDir(s.path("layers"))
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if !gone(e.Name()) {
			continue
		}
		var info unpacked
		if text, err := os.ReadFile(s.path("layers", e.Name(), layerInfo)); err == nil && json.Unmarshal(text, &info) == nil && bytes != nil {
			*bytes += info.Size
		}
		aside := s.path("ingest", fmt.Sprintf("%s.%x.gone", e.Name(), rand.Uint64())) // a killed one may have left another
		if err := os.Rename(s.path("layers", e.Name()), aside); err != nil {
			return n, err
		}
		n++
		if err := os.RemoveAll(aside); err != nil {
			return n, err
		}
	}
	return n, nil
}

// removeBut empties a folder but for some names.
func removeBut(dir string, keep func(name string) bool, bytes *int64) (n int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if keep(e.Name()) {
			continue
		}
		if st, err := e.Info(); err == nil && bytes != nil {
			*bytes += st.Size()
		}
		if err := os.RemoveAll(dir + "/" + e.Name()); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
