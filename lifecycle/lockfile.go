package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
	"platelayer/topology"
)

// Lock says which image each name of a topology file means.
type Lock struct {
	Version int `json:"version"`
	// Images has the digests by the whole name and the platform.
	Images map[string]map[string]LockedImage `json:"images"`

	path string
}

// LockedImage is an image of one platform.
type LockedImage struct {
	Digest string `json:"digest"`
	Index  string `json:"index,omitempty"` // that it is of
}

// newLocked: index may be none.
func newLocked(digest, index v1.Hash) LockedImage {
	l := LockedImage{Digest: digest.String()}
	if index != (v1.Hash{}) {
		l.Index = index.String()
	}
	return l
}

func (l *Lock) set(name, platform string, locked LockedImage) {
	if l.Images[name] == nil {
		l.Images[name] = map[string]LockedImage{}
	}
	l.Images[name][platform] = locked
}

const lockVersion = 1

// LockOf is where the lock of a topology file is: platelayer.lock beside
// platelayer.yaml.
func LockOf(file string) string {
	return strings.TrimSuffix(file, filepath.Ext(file)) + ".lock"
}

// LockError is a lock that doesn't agree with what is asked for.
type LockError struct {
	Path     string
	Problems []string
	Missing  bool // it has other names than the file: something is not in it, or too much
}

func (e *LockError) Error() string {
	return fmt.Sprintf("%s does not agree:\n  %s", e.Path, strings.Join(e.Problems, "\n  "))
}

// ReadLock reads a lock; nil where there is none. One that can't be read proves
// nothing, and is refused.
func ReadLock(path string) (*Lock, error) {
	text, err := ReadSource(path)
	if _, none := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && none != nil {
		return nil, nil // and no link to a lock that is gone
	}
	l := &Lock{path: path}
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err = d.Decode(l); err == nil && d.Decode(new(any)) != io.EOF {
			err = errors.New("there is more after its end")
		}
	}
	if err == nil && l.Version != lockVersion {
		err = fmt.Errorf("it has version %d, this program knows %d", l.Version, lockVersion)
	}
	if err == nil {
		err = l.valid()
	}
	if err != nil {
		return nil, &LockError{Path: path, Problems: []string{"it cannot be read: " + err.Error()}}
	}
	return l, nil
}

// valid finds what is no digest.
func (l *Lock) valid() error {
	for name, platforms := range l.Images {
		for platform, locked := range platforms {
			_, err := v1.NewHash(locked.Digest)
			if err == nil && locked.Index != "" {
				_, err = v1.NewHash(locked.Index)
			}
			if err != nil {
				return fmt.Errorf("%s for %s: %w", name, platform, err)
			}
		}
	}
	return nil
}

// find gives what is locked for an image's name; nil is nothing.
func (l *Lock) find(name, platform string) (*LockedImage, error) {
	ref, err := image.ParseReference(name)
	if err != nil {
		return nil, err
	}
	p, err := platformOf(platform)
	if err != nil {
		return nil, err
	}
	locked, ok := l.Images[ref.String()][p.String()]
	if !ok {
		return nil, nil
	}
	return &locked, nil
}

func platformOf(text string) (image.Platform, error) {
	if text == "" {
		return image.MachinePlatform(), nil
	}
	return image.ParsePlatform(text)
}

// LockOptions are the choices of `lock`.
type LockOptions struct {
	Remote    bool     // ask the registries, though the image is here
	Check     bool     // write nothing
	Platforms []string // besides those of the stations
	Registry  func() (*image.Registry, error)
	Notice    func(string)
}

// Locked is what Lock wrote.
type Locked struct {
	Path   string `json:"path"`
	Images int    `json:"images"`
}

// lockKey is an image that a lock is to have.
type lockKey struct{ name, platform string }

// MakeLock writes the lock of a topology file, or checks it: a LockError tells
// where it differs from the file or, asked to, from what the registries say.
func MakeLock(ctx context.Context, l Layout, t *topology.Topology, o LockOptions) (*Locked, error) {
	path := LockOf(t.File())
	had, err := ReadLock(path)
	if err != nil && o.Check {
		return nil, err // else it is written anew
	}
	keys, err := lockKeys(t.Stations(), had, o.Platforms)
	if err != nil {
		return nil, err
	}
	done := &Locked{path, len(keys)}
	if o.Check {
		return done, checkLock(ctx, path, had, keys, o)
	}
	lock := &Lock{Version: lockVersion, Images: map[string]map[string]LockedImage{}}
	for _, k := range keys {
		have, err := lockedHere(l, k, o)
		var found LockedImage
		switch {
		case err != nil:
		case have == nil:
			found, err = resolveLocked(ctx, k, o)
		default:
			found = newLocked(have.Digest, have.Index)
			if have.Loose() {
				o.Notice(fmt.Sprintf("%s was made or loaded here, and no registry has it by this digest: --remote locks what its registry has", k.name))
			}
		}
		if err != nil {
			return nil, fmt.Errorf("cannot lock the image %s: %w", k.name, err)
		}
		if had != nil {
			if before, ok := had.Images[k.name][k.platform]; ok && before.Digest != found.Digest {
				o.Notice(fmt.Sprintf("%s for %s was %s in the lock, and is %s from now on", k.name, k.platform, before.Digest, found.Digest))
			}
		}
		lock.set(k.name, k.platform, found)
	}
	text, err := json.MarshalIndent(lock, "", "  ")
	if err != nil {
		return nil, err
	}
	return done, writeOwned(path, append(text, '\n'))
}

// lockKeys lists what a lock is to have: each image of the file for the platforms
// of its stations, and for those that the lock has already.
func lockKeys(which []*topology.Station, had *Lock, platforms []string) ([]lockKey, error) {
	all := map[lockKey]bool{}
	for _, s := range which {
		if s.Image == "" {
			continue
		}
		ref, err := image.ParseReference(s.Image)
		if err != nil {
			return nil, err
		}
		for _, text := range append([]string{s.Platform}, platforms...) {
			p, err := platformOf(text)
			if err != nil {
				return nil, err
			}
			all[lockKey{ref.String(), p.String()}] = true
		}
		if had != nil {
			for p := range had.Images[ref.String()] {
				all[lockKey{ref.String(), p}] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b lockKey) int {
		return strings.Compare(a.name+" "+a.platform, b.name+" "+b.platform)
	}), nil
}

// lockedHere finds the image that a name means here; nil is none, or that it
// doesn't count.
func lockedHere(l Layout, k lockKey, o LockOptions) (*image.Image, error) {
	if o.Remote || os.Geteuid() != 0 || !exists(l.images()) {
		return nil, nil
	}
	p, err := image.ParsePlatform(k.platform)
	if err != nil {
		return nil, err
	}
	store, err := image.OpenStore(l.images())
	if err != nil {
		return nil, err
	}
	have, err := store.Here(k.name, p)
	if err != nil || have == nil || !have.Fits(p) {
		return nil, err
	}
	return have, nil
}

// resolveLocked asks an image's registry what its name means.
func resolveLocked(ctx context.Context, k lockKey, o LockOptions) (locked LockedImage, err error) {
	p, err := image.ParsePlatform(k.platform)
	if err != nil {
		return locked, err
	}
	ref, err := image.ParseReference(k.name)
	if err != nil {
		return locked, err
	}
	registry, err := o.Registry()
	if err != nil {
		return locked, err
	}
	m, err := registry.Resolve(ctx, ref, p)
	if err != nil {
		return locked, err
	}
	return newLocked(m.Digest, m.Index), nil
}

// checkLock lists where a lock differs.
func checkLock(ctx context.Context, path string, had *Lock, keys []lockKey, o LockOptions) error {
	e := &LockError{Path: path}
	if had == nil {
		if len(keys) == 0 {
			return nil
		}
		return &LockError{Path: path, Problems: []string{"there is no such lock"}, Missing: true}
	}
	for _, k := range keys {
		locked, ok := had.Images[k.name][k.platform]
		if !ok {
			e.Missing = true
			e.Problems = append(e.Problems, fmt.Sprintf("the image %s for %s is not in it", k.name, k.platform))
			continue
		}
		if !o.Remote {
			continue
		}
		now, err := resolveLocked(ctx, k, o)
		if err != nil {
			return fmt.Errorf("cannot check the image %s: %w", k.name, err)
		}
		if now.Digest != locked.Digest {
			e.Problems = append(e.Problems, fmt.Sprintf("the image %s for %s is %s now, and %s in the lock", k.name, k.platform, now.Digest, locked.Digest))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(had.Images)) {
		if !slices.ContainsFunc(keys, func(k lockKey) bool { return k.name == name }) {
			e.Missing = true
			e.Problems = append(e.Problems, fmt.Sprintf("no station runs on the image %s, which is in it", name))
		}
	}
	if len(e.Problems) > 0 {
		return e
	}
	return nil
}

// writeOwned puts a file beside the user's own, as the user's.
func writeOwned(path string, text []byte) error {
	uid, gid := Invoker()
	err := image.ReplaceFile(path, 0o644, image.Owner{UID: uid, GID: gid}, func(w io.Writer, _ string) error {
		_, err := w.Write(text)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}
