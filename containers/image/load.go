package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// LoadOptions say what is loaded.
type LoadOptions struct {
	Only     string // the one image that is meant, by a name or digest of the archive's; "" is all
	Name     string // for the one image, instead of the archive's names
	Progress func(Progress)
	Parallel int
	Check    func(ctx context.Context, digest, index v1.Hash) error // AddOptions.Check
}

// Loaded is an image that was loaded, with the names it got.
type Loaded struct {
	Names []string
	*Image
}

// Load brings images from an archive: what `docker save` and `podman save`
// write, an OCI archive or a folder with an OCI layout, packed by gzip, zstd or
// bzip2 or not, a pipe too. It closes r. All images are there, unpacked, and get
// their names, or nothing is.
func (s *Store) Load(ctx context.Context, r *os.File, o LoadOptions) ([]Loaded, error) {
	var read atomic.Int64 // bytes
	a, err := s.openArchive(ctx, r, func(p Progress) {
		if read.Store(p.Done); o.Progress != nil {
			o.Progress(p)
		}
	})
	if err != nil {
		return nil, err
	}
	if n := read.Load(); n > 0 && o.Progress != nil {
		o.Progress(Progress{Done: n, Total: n, Stage: StageDone})
	}
	return s.loadArchive(ctx, a, o)
}

// loadArchive closes the archive.
func (s *Store) loadArchive(ctx context.Context, a archive, o LoadOptions) ([]Loaded, error) {
	defer a.close()
	all, err := imagesOf(ctx, a)
	if err != nil {
		return nil, err
	}
	if all, err = choose(all, o); err != nil {
		return nil, err
	}
	return s.bringAll(ctx, all, o)
}

// imagesOf lists an archive's images. One of a new Docker is both an OCI layout,
// which has the digests, and what older ones take, which has more names.
func imagesOf(ctx context.Context, a archive) ([]found, error) {
	var all []found
	switch {
	case has(a, "index.json"):
		var err error
		if all, err = (layout{a}).images(); err != nil {
			return nil, err
		}
		if err := addTags(a, all); err != nil {
			return nil, err
		}
	case has(a, "manifest.json"):
		var err error
		if all, err = (saved{archive: a}).images(ctx); err != nil {
			return nil, err
		}
	case has(a, "repositories"):
		return nil, bad("it was saved by a Docker before 1.10, whose images have no digests: load and save it with a newer one")
	default:
		return nil, bad("it is no archive of images: it has neither index.json nor manifest.json (image import takes the tar of a root folder)")
	}
	if len(all) == 0 {
		return nil, bad("the archive holds no image")
	}
	return all, nil
}

func has(a archive, name string) bool {
	m, err := a.open(name)
	if err == nil {
		m.Close()
	}
	return !errors.Is(err, fs.ErrNotExist)
}

// addTags names images that index.json has only a tag for.
func addTags(a archive, all []found) error {
	if !has(a, "manifest.json") {
		return nil
	}
	list, err := (saved{archive: a}).list()
	if err != nil {
		return err
	}
	for n := range all {
		if len(all[n].names) > 0 {
			continue
		}
		for _, one := range list {
			if strings.HasSuffix(one.Config, all[n].config.Hex) || strings.HasSuffix(one.Config, all[n].config.Hex+".json") {
				if all[n].names, err = wholeNames(one.RepoTags); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// choose picks the image that is meant, or all that this machine runs.
func choose(all []found, o LoadOptions) ([]found, error) {
	if o.Only == "" {
		runs := slices.DeleteFunc(slices.Clone(all), func(f found) bool { return f.foreign != "" })
		if len(runs) == 0 {
			return nil, bad("it has images for %s only; this machine is %s", all[0].foreign, MachinePlatform())
		}
		all = runs
	} else {
		want := ""
		if ref, err := ParseReference(o.Only); err == nil && !isDigest(o.Only) {
			want = ref.String()
		}
		digits := strings.TrimPrefix(o.Only, "sha256:")
		var chosen []found
		for _, f := range all {
			byDigest := len(digits) >= 6 && (strings.HasPrefix(f.digest.Hex, digits) || strings.HasPrefix(f.config.Hex, digits) || strings.HasPrefix(f.index().Hex, digits))
			if slices.Contains(f.names, want) {
				f.names = []string{want}
				chosen = append(chosen, f)
			} else if byDigest {
				chosen = append(chosen, f)
			}
		}
		if len(chosen) == 0 {
			return nil, bad("the archive has no image %q; it has %s", shorten(o.Only), list(all))
		}
		all = chosen
	}
	if o.Name != "" {
		for _, f := range all {
			if f.digest != all[0].digest {
				return nil, fmt.Errorf("the archive has %d images, of which one is to get the name %s: %s", len(all), o.Name, list(all))
			}
		}
		all = all[:1]
		all[0].names = []string{o.Name}
	}
	return all, nil
}

func list(all []found) string {
	const most = 10
	var names []string
	for _, f := range all[:min(len(all), most)] {
		if len(f.names) == 0 {
			names = append(names, f.digest.String())
		}
		for _, name := range f.names {
			names = append(names, shorten(name))
		}
	}
	if len(all) > most {
		names = append(names, "...")
	}
	return strings.Join(names, ", ")
}

// bringAll brings images and then names them all.
func (s *Store) bringAll(ctx context.Context, all []found, o LoadOptions) (loaded []Loaded, err error) {
	names := 0
	for _, f := range all {
		if names += len(f.names); names > maxNames {
			return nil, bad("it gives its images more than %d names", maxNames)
		}
	}
	done, err := s.Use(ctx)
	if err != nil {
		return nil, err
	}
	var b batch
	defer func() {
		done()
		if err != nil {
			s.discard(&b)
		}
	}()
	var named []Named
	for _, f := range all {
		name := f.digest.String()
		if len(f.names) > 0 {
			name = f.names[0]
		}
		i, err := s.bring(ctx, f.manifest, f.source, &AddOptions{Name: name, Indexes: f.indexes, Progress: o.Progress, Parallel: o.Parallel, Unpack: true, Check: o.Check}, &b)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", shorten(name), err)
		}
		loaded = append(loaded, Loaded{f.names, i})
		if len(f.names) == 0 {
			named = append(named, Named{"", i})
		}
		for _, name := range f.names {
			named = append(named, Named{name, i})
		}
	}
	return loaded, s.nameAll(ctx, named)
}

// batch is what one piece of work has brought into the store.
type batch struct {
	blobs  []v1.Hash
	layers []string // Layer.Key
}
