package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
	"platelayer/topology"
)

// bundleConfig is what a bundle says of itself; the digest of its manifest covers
// it, and with it the images.
type bundleConfig struct {
	Version int           `json:"version"`
	Name    string        `json:"name"` // of the topology
	File    string        `json:"file"`
	Images  []bundleImage `json:"images"`
	Volumes []string      `json:"volumes,omitempty"` // keys
}

type bundleImage struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

const (
	bundleVersion = 1
	partFiles     = "files"   // what the topology file and it itself name
	partFolders   = "folders" // what stations have of the project
	partVolume    = "volume:" // and a key
)

// BundleSaveOptions are the choices of `bundle save`.
type BundleSaveOptions struct {
	Output  []string // paths that are not packed, absolute
	Read    []string // files that were read for the topology, absolute
	Volumes bool     // named volumes too
	Images  ImageOptions
	Notice  func(text string)
}

// Bundled is what a bundle holds.
type Bundled struct {
	Digest  string   `json:"digest"`
	Name    string   `json:"name"`
	File    string   `json:"file"`
	Images  []string `json:"images"`
	Volumes []string `json:"volumes"`
}

// OutsideError is what a topology has outside of its folder, where a bundle
// can't take it along.
type OutsideError struct {
	Dir   string
	Paths []string
}

func (e *OutsideError) Error() string {
	return fmt.Sprintf("a bundle holds what is in the project's folder %s, and these are not:\n  %s", e.Dir, strings.Join(e.Paths, "\n  "))
}

// SaveBundle writes a topology with all that it needs to be brought up elsewhere:
// its files, what its stations have of the project's folder, their images.
func SaveBundle(ctx context.Context, l Layout, t *topology.Topology, w io.Writer, o BundleSaveOptions) (_ *Bundled, err error) {
	if err := needRoot("bundle a topology"); err != nil {
		return nil, err
	}
	which := t.Stations()
	if o.Images.gate, err = newGate(l, t, t.File(), o.Images.Registry); err != nil {
		return nil, err
	}
	if err := o.Images.gate.covered(which); err != nil {
		return nil, err
	}
	store, err := image.OpenStore(l.images())
	if err != nil {
		return nil, err
	}
	o.Images.carried = true
	_, provided, err := provideImages(ctx, l, which, o.Images)
	if err != nil {
		return nil, err
	}
	defer provided()
	p := &packer{layout: l, topology: t, options: o, files: map[string]image.BundleFile{}, folders: map[string]image.BundleFile{}}
	named, lock, err := p.images(store, which)
	if err != nil {
		return nil, err
	}
	if err := p.gather(which, lock, o.Images.gate.lock == nil); err != nil {
		return nil, err
	}
	parts, keys, goOn, err := p.parts(ctx)
	if err != nil {
		return nil, err
	}
	goOn = sync.OnceValue(goOn)
	defer func() {
		if failed := goOn(); !errors.Is(err, failed) {
			err = errors.Join(err, failed)
		}
	}()
	config := bundleConfig{Version: bundleVersion, Name: t.Name, File: filepath.Base(t.File()), Images: []bundleImage{}, Volumes: keys}
	for _, n := range named {
		config.Images = append(config.Images, bundleImage{n.Name, n.Digest.String()})
	}
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	var skip []string
	for _, path := range o.Output {
		if rel, err := filepath.Rel(t.Dir, path); err == nil {
			skip = append(skip, rel)
		}
	}
	digest, err := store.SaveBundle(ctx, w, named, parts, image.BundleOptions{Config: text, Skip: skip, Notice: o.Notice, Read: goOn, Progress: o.Images.Progress})
	if err != nil {
		return nil, err
	}
	return config.bundled(digest), nil
}

func (c *bundleConfig) bundled(digest v1.Hash) *Bundled {
	b := &Bundled{Digest: digest.String(), Name: c.Name, File: c.File, Images: []string{}, Volumes: append([]string{}, c.Volumes...)}
	for _, i := range c.Images {
		b.Images = append(b.Images, i.Name)
	}
	return b
}

// packer gathers what goes into a bundle.
type packer struct {
	layout   Layout
	topology *topology.Topology
	options  BundleSaveOptions
	files    map[string]image.BundleFile // by name in the bundle
	folders  map[string]image.BundleFile
	outside  []string
}

// images lists those that stations run on, under the names that they have in the
// file, and makes a lock of them.
func (p *packer) images(store *image.Store, which []*topology.Station) ([]image.Named, *Lock, error) {
	lock := &Lock{Version: lockVersion, Images: map[string]map[string]LockedImage{}}
	var all []image.Named
	for _, s := range which {
		if s.Image == "" {
			continue
		}
		i, err := broughtUpWith(store, wantedBy(s))
		if err != nil {
			return nil, nil, err
		}
		ref, err := image.ParseReference(s.Image)
		if err != nil {
			return nil, nil, err
		}
		platform, err := platformOf(s.Platform)
		if err != nil {
			return nil, nil, err
		}
		locked := newLocked(i.Digest, i.Index)
		if ref.Digest != "" && ref.Digest != locked.Digest {
			locked.Index = ref.Digest
		}
		lock.set(ref.String(), platform.String(), locked)
		n := image.Named{Name: ref.String(), Image: i}
		if ref.Digest != "" || slices.ContainsFunc(all, func(o image.Named) bool { return o.Name == n.Name && o.Digest != i.Digest }) {
			ref.Tag, ref.Digest = "", locked.Digest // one name of several platforms
			n.Name = ref.String()
		}
		if !slices.ContainsFunc(all, func(o image.Named) bool { return o.Name == n.Name }) {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b image.Named) int { return strings.Compare(a.Name, b.Name) })
	return all, lock, nil
}

// gather finds the files. A lock is made where there is none: elsewhere the names
// of images may mean others.
func (p *packer) gather(which []*topology.Station, lock *Lock, makeLock bool) error {
	t := p.topology
	for _, path := range append([]string{t.File(), filepath.Join(t.Dir, ".env"), LockOf(t.File())}, p.options.Read...) {
		p.file(path, "the topology file names", true)
	}
	var host []string
	for _, s := range which {
		if s.Rootfs != "" && s.Rootfs != "host" {
			p.folder(s.Rootfs, t.Place(s.ID(), "rootfs", ""))
		}
		if s.Rootfs == "host" {
			host = append(host, s.ID())
		}
		for _, v := range s.Volumes {
			if v.Source != "" {
				p.folder(v.Source, t.Place(s.ID(), "volumes", v.Target))
			}
		}
		for _, f := range s.Files {
			if f.Source != "" {
				p.file(f.Source, t.Place(s.ID(), kindOf(f), f.Target), false)
			}
		}
		if profile := s.Security.Seccomp; profile != "" && profile != "unconfined" {
			p.file(profile, t.Place(s.ID(), "security_opt", "seccomp"), false)
		}
		if len(s.Integrity.Paths) > 0 {
			p.file(s.Integrity.Manifest, t.Place(s.ID(), "integrity", ""), true)
		}
		if s.Digest != "" {
			name := strings.Replace(s.Digest, ":", "-", 1)
			for _, ext := range []string{".minisig", ".json"} {
				p.file(filepath.Join(t.Dir, "signatures", name+ext), "", true)
			}
			if text, err := ReadSource(filepath.Join(p.layout.signatures(), name+".json")); err == nil && p.files["signatures/"+name+".json"].Name == "" {
				p.files["signatures/"+name+".json"] = image.BundleFile{Name: "signatures/" + name + ".json", Content: text}
			}
		}
	}
	if len(host) > 0 {
		p.options.Notice("these run on the programs of the machine that they are on, which are not in the bundle: " + strings.Join(host, ", "))
	}
	if len(p.outside) > 0 {
		slices.Sort(p.outside)
		return &OutsideError{t.Dir, slices.Compact(p.outside)}
	}
	if makeLock && len(lock.Images) > 0 {
		text, err := json.MarshalIndent(lock, "", "  ")
		if err != nil {
			return err
		}
		name := filepath.Base(LockOf(t.File()))
		p.files[name] = image.BundleFile{Name: name, Content: append(text, '\n')}
	}
	return nil
}

// file takes a file along; one that may be missing needn't be there.
func (p *packer) file(path, place string, may bool) {
	if f, ok := p.within(path, place, may); ok {
		p.files[f.Name] = f
	}
}

// folder takes a folder, or a file that stations have as it is, along.
func (p *packer) folder(path, place string) {
	if f, ok := p.within(path, place, true); ok {
		p.folders[f.Name] = f
	}
}

// within gives the name of a file in the project's folder, and the path without
// links that has its content.
func (p *packer) within(path, place string, may bool) (f image.BundleFile, ok bool) {
	if _, err := os.Lstat(path); may && errors.Is(err, fs.ErrNotExist) {
		return f, false
	}
	rel, err := filepath.Rel(p.topology.Dir, path)
	var real, dir string
	if err == nil {
		real, err = filepath.EvalSymlinks(path)
	}
	if err == nil {
		dir, err = filepath.EvalSymlinks(p.topology.Dir)
	}
	inside := err == nil && filepath.IsLocal(rel) && (real == dir || strings.HasPrefix(real, dir+"/"))
	if !inside {
		text := strings.TrimPrefix(place+": "+path, ": ")
		if err != nil {
			text += ": " + plainError(err).Error()
		}
		p.outside = append(p.outside, text)
		return f, false
	}
	return image.BundleFile{Name: rel, Path: real}, true
}

// parts are the trees of the bundle. What is in a folder that comes as a whole
// comes with it. goOn lets stations go on that were paused for their volumes.
func (p *packer) parts(ctx context.Context) (parts []image.BundlePart, keys []string, goOn func() error, err error) {
	goOn = func() error { return nil }
	covered := func(name string) bool {
		for other := range p.folders {
			if other != name && (other == "." || strings.HasPrefix(name, other+"/")) {
				return true
			}
		}
		return false
	}
	files, folders := image.BundlePart{Title: partFiles, Plain: true}, image.BundlePart{Title: partFolders}
	for name, f := range p.files {
		_, folder := p.folders[name]
		if f.Path == "" || !folder && !covered(name) {
			files.Files = append(files.Files, f)
		}
	}
	for name, f := range p.folders {
		if !covered(name) {
			folders.Files = append(folders.Files, f)
		}
	}
	parts = append(parts, files)
	if len(folders.Files) > 0 {
		parts = append(parts, folders)
	}
	if !p.options.Volumes {
		return parts, nil, goOn, nil
	}
	for _, v := range p.topology.Volumes {
		dir := p.layout.volume(volumeName(p.topology, v.Key))
		if v.External || !exists(dir) {
			p.options.Notice(fmt.Sprintf("the volume %q is not in the bundle: it is external, or nobody has made it", v.Key))
			continue
		}
		keys = append(keys, v.Key)
		parts = append(parts, image.BundlePart{Title: partVolume + v.Key, Files: []image.BundleFile{{Name: ".", Path: dir}}})
	}
	if len(keys) > 0 {
		goOn, err = pauseAll(ctx, p.layout, p.topology.Name)
	}
	return parts, keys, goOn, err
}

// pauseAll pauses the stations of a topology that run.
func pauseAll(ctx context.Context, l Layout, name string) (goOn func() error, err error) {
	goOn = func() error { return nil }
	state, err := readState(l, name)
	if unknown := new(NotKnown); errors.As(err, &unknown) {
		return goOn, nil
	}
	if err != nil {
		return goOn, err
	}
	var ids []string
	for _, c := range state.Stations {
		if c.State == Running && c.alive() {
			ids = append(ids, c.Station)
		}
	}
	if len(ids) == 0 {
		return goOn, nil
	}
	return hold(ctx, l, name, ids)
}
