package image

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Damage is something of the store that isn't as it was stored.
type Damage struct {
	Image    string  `json:"image,omitempty"` // a name that has it
	Blob     v1.Hash `json:"blob"`            // what is damaged, or what the layer was unpacked from
	Path     string  `json:"path,omitempty"`  // in the unpacked layer
	Problem  string  `json:"problem"`
	Repaired bool    `json:"repaired,omitempty"`
}

// Verified is what Verify looked at, and what it found.
type Verified struct {
	Blobs  int      `json:"blobs"`
	Layers int      `json:"layers"`
	Damage []Damage `json:"damage"`
	More   int      `json:"more,omitempty"` // damage that isn't listed
}

// VerifyOptions say how the store is verified.
type VerifyOptions struct {
	// Repair unpacks damaged layers again, and takes damaged blobs away, which
	// are then pulled or loaded again.
	Repair   bool
	Progress func(Progress)
}

// maxDamage bounds the list.
const maxDamage = 1000

// Verify compares blobs with their digests, and each unpacked layer with one
// that is unpacked anew: entry by entry, none missing and none too many. images
// are those that are meant, nil for all that the store has.
func (s *Store) Verify(ctx context.Context, images []Named, o VerifyOptions) (*Verified, error) {
	done, err := s.Use(ctx)
	if err != nil {
		return nil, err
	}
	defer s.dropAside()
	defer done()
	v := &verification{store: s, o: o, found: &Verified{Damage: []Damage{}}, blobs: map[v1.Hash]error{}, trees: map[string]string{}}
	defer v.close()
	if v.held, err = s.Holders(); err != nil {
		return nil, err
	}
	if o.Repair {
		lost, err := s.relist(ctx)
		if err != nil {
			return nil, err
		}
		if lost != nil {
			v.damage(Damage{Problem: lost.Error() + "; made anew, without names: image tag gives one, and so does pulling or loading an image again", Repaired: true})
		}
	}
	if images == nil {
		// What can't be read is found among the blobs.
		images, _ = s.List()
		if err := v.allBlobs(ctx); err != nil {
			return nil, err
		}
	}
	for _, i := range images {
		v.waiting(append([]v1.Hash{i.Digest}, hashesOf(i.Image)...))
	}
	for _, i := range images {
		if err := v.image(ctx, i); err != nil {
			return nil, err
		}
	}
	return v.found, nil
}

type verification struct {
	store *Store
	o     VerifyOptions
	held  map[v1.Hash][]string
	found *Verified
	blobs map[v1.Hash]error // those that were compared
	trees map[string]string // of layers that were, by key: a right one
	fresh []string          // folders to be removed
}

func (v *verification) close() {
	for _, dir := range v.fresh {
		os.RemoveAll(dir)
	}
}

func hashesOf(i *Image) (all []v1.Hash) {
	for _, d := range blobsOf(i.Manifest) {
		all = append(all, d.Digest)
	}
	return all
}

func (v *verification) tell(p Progress) {
	if v.o.Progress != nil {
		v.o.Progress(p)
	}
}

// waiting tells of blobs that are still to be compared.
func (v *verification) waiting(all []v1.Hash) {
	for _, h := range all {
		if size, err := v.store.blobSize(h); err == nil {
			v.tell(Progress{Digest: h, Total: size, Stage: StageWaiting})
		}
	}
}

func (v *verification) damage(d Damage) {
	if len(v.found.Damage) == maxDamage {
		v.found.More++
		return
	}
	v.found.Damage = append(v.found.Damage, d)
}

// allBlobs compares also what no image has, or none that can be read.
func (v *verification) allBlobs(ctx context.Context) error {
	index, err := v.store.readIndex()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(v.store.path("blobs", "sha256"))
	if err != nil {
		return err
	}
	var all []v1.Hash
	for _, e := range entries {
		all = append(all, v1.Hash{Algorithm: "sha256", Hex: e.Name()})
	}
	v.waiting(all)
	names := map[v1.Hash]string{}
	for _, d := range index.Manifests {
		name := d.Annotations[nameAnnotation]
		if err := v.blob(ctx, name, d.Digest); err != nil {
			return err
		}
		if v.blobs[d.Digest] != nil {
			continue
		}
		text, err := v.store.document(d.Digest)
		if err != nil {
			return err
		}
		m, err := parseManifest(text)
		if err != nil {
			v.damage(Damage{Image: name, Blob: d.Digest, Problem: err.Error()})
			continue
		}
		for _, b := range blobsOf(m) {
			names[b.Digest] = name
			if err := v.blob(ctx, name, b.Digest); err != nil {
				return err
			}
		}
	}
	for _, h := range all {
		if checkHash(h) != nil {
			v.damage(Damage{Problem: fmt.Sprintf("blobs/sha256/%s is no blob", shorten(h.Hex))})
			continue
		}
		if err := v.blob(ctx, names[h], h); err != nil {
			return err
		}
	}
	return nil
}

// blob compares one, once. Its damage is no error.
func (v *verification) blob(ctx context.Context, image string, h v1.Hash) error {
	if _, done := v.blobs[h]; done {
		return nil
	}
	err := v.store.checkBlob(ctx, h, v.tell)
	var corrupt *CorruptError
	var missing *MissingError
	d := Damage{Image: image, Blob: h}
	switch {
	case err == nil:
	case errors.As(err, &missing):
		d.Problem = "the blob is missing: pull or load the image again"
	case errors.As(err, &corrupt):
		d.Problem = "the blob is damaged: " + corrupt.Detail
		if v.o.Repair {
			if err := os.RemoveAll(v.store.blobPath(h)); err != nil {
				return err
			}
			d.Problem += "; it was taken away: pull or load the image again"
		}
	default:
		return err
	}
	v.found.Blobs++
	v.blobs[h] = err
	if size, sizeErr := v.store.blobSize(h); err == nil && sizeErr == nil {
		v.tell(Progress{Digest: h, Done: size, Total: size, Stage: StageDone})
	}
	if err != nil {
		v.damage(d)
	}
	return nil
}

func (v *verification) image(ctx context.Context, i Named) error {
	for _, h := range []v1.Hash{i.Digest, i.Manifest.Config.Digest} {
		if err := v.blob(ctx, i.Name, h); err != nil {
			return err
		}
	}
	var below []string
	for n := range i.Layers {
		l := &i.Layers[n]
		if err := v.blob(ctx, i.Name, l.Digest); err != nil {
			return err
		}
		tree, err := v.layer(ctx, i, l, below)
		if err != nil {
			return fmt.Errorf("cannot verify the layer %s: %w", l.Digest, err)
		}
		if tree == "" {
			// What lies above it can't be compared without it.
			for k := n + 1; k < len(i.Layers); k++ {
				if err := v.blob(ctx, i.Name, i.Layers[k].Digest); err != nil {
					return err
				}
			}
			return nil
		}
		below = append([]string{tree}, below...)
	}
	return nil
}

// layer compares an unpacked layer, and gives the tree that is right; "" when
// there is none.
func (v *verification) layer(ctx context.Context, i Named, l *Layer, below []string) (string, error) {
	if tree, done := v.trees[l.Key()]; done {
		return tree, nil
	}
	if _, err := os.Lstat(v.store.path("layers", l.Key())); err != nil {
		return "", ignoreMissing(err) // nothing above it is unpacked either
	}
	if v.blobs[l.Digest] != nil {
		v.trees[l.Key()] = ""
		return "", nil
	}
	lock, err := v.store.lockFile(ctx, "ingest/"+l.Key()+".lock", unix.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	defer os.Remove(lock.Name())
	// A name of its own: it is needed longer than the lock is.
	dir := v.store.path("ingest", fmt.Sprintf("%s.%x.layer", l.Key(), rand.Uint64()))
	v.fresh = append(v.fresh, dir)
	if _, err := v.store.unpackLayer(ctx, l, dir, below, &AddOptions{Progress: v.o.Progress}); err != nil {
		return "", err
	}
	v.found.Layers++
	var all []Damage
	differ := func(name, how string) {
		all = append(all, Damage{Image: i.Name, Blob: l.Digest, Path: name, Problem: how})
	}
	if whole, err := v.store.isUnpacked(l); err != nil || !whole {
		differ("", fmt.Sprintf("its %s is damaged", layerInfo))
	}
	right := filepath.Join(dir, Tree)
	if err := compareTrees(ctx, right, v.store.Tree(l), differ); err != nil {
		return "", err
	}
	tree := v.store.Tree(l)
	if len(all) == 0 {
		err = os.RemoveAll(dir)
	} else if tree, err = v.repair(dir, i, l, all); err == nil {
		for _, d := range all {
			v.damage(d)
		}
	}
	v.trees[l.Key()] = tree
	return tree, err
}

// repair puts the fresh layer into the place of the damaged one, if that is
// wanted and no station runs on it: its files would vanish under it.
func (v *verification) repair(dir string, i Named, l *Layer, all []Damage) (tree string, err error) {
	tree = filepath.Join(dir, Tree)
	if !v.o.Repair {
		return tree, nil
	}
	by := v.runs(l)
	for n := range all {
		if all[n].Repaired = len(by) == 0; len(by) > 0 {
			all[n].Problem += fmt.Sprintf("; not repaired, as %s runs on it", strings.Join(by, ", "))
		}
	}
	if len(by) > 0 {
		return tree, nil
	}
	return v.store.Tree(l), v.store.publish([]string{dir})
}

// runs tells which topologies run on a layer, or may do.
func (v *verification) runs(l *Layer) (by []string) {
	for h, topologies := range v.held {
		i, err := v.store.open(h)
		if err != nil || slices.ContainsFunc(i.Layers, func(other Layer) bool { return other.ChainID == l.ChainID }) {
			by = append(by, topologies...)
		}
	}
	slices.Sort(by)
	return slices.Compact(by)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// DamageError says that Verify found damage, which it has listed, and that is
// there still.
type DamageError struct {
	Found    int
	Repaired bool // as far as it could be
}

func (e *DamageError) Error() string {
	if e.Found == 1 {
		return "the image store is damaged in 1 place"
	}
	return fmt.Sprintf("the image store is damaged in %d places", e.Found)
}
