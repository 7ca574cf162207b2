package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ObtainOptions say how an image is obtained, and from whom.
type ObtainOptions struct {
	Platform Platform // the zero value is this machine's
	Always   bool     // ask the registry though the store has one
	Never    bool     // don't ask a registry
	// MaxAge has the registry asked when it was last asked longer ago than this; what
	// is here is taken where it doesn't answer. 0 is any age.
	MaxAge   time.Duration
	Registry func() (*Registry, error) // called when one is asked; nil is none
	Local    Local                     // Docker and Podman, asked for what the store lacks
	Progress func(Progress)            // called from several goroutines; may be nil
	Notice   func(string)              // may be nil
	// Check is asked whether the image that was found may run: before its blobs
	// are fetched from a registry, and before it is unpacked. nil is yes.
	Check func(ctx context.Context, digest, index v1.Hash) error
}

// Obtain finds the image that a name means, and makes sure that its layers are
// unpacked: from the store, else the machine's Docker or Podman, else its
// registry. A digest that is here is never asked for.
func Obtain(ctx context.Context, s *Store, name string, o ObtainOptions) (*Image, error) {
	ref, err := ParseReference(name)
	if err != nil {
		return nil, err
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.Platform == (Platform{}) {
		o.Platform = MachinePlatform()
	}
	done, err := s.Use(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	i, err := s.provide(ctx, ref, &o)
	if err != nil {
		s.noticeLocalhost(ref, &o)
		return nil, err
	}
	if o.Check != nil {
		if err := o.Check(ctx, i.Digest, i.Index); err != nil {
			return nil, err
		}
	}
	return i, s.Unpack(ctx, i, AddOptions{Name: ref.String(), Progress: o.Progress})
}

func (s *Store) provide(ctx context.Context, ref Reference, o *ObtainOptions) (*Image, error) {
	have, err := s.here(ref, o.Platform)
	if err != nil {
		return nil, err
	}
	fit := have != nil && (have.Fits(o.Platform) || !o.Platform.Exact)
	switch {
	case fit && (o.Never || ref.Digest != "" || !o.Always && o.MaxAge == 0):
		return have, nil
	case fit && !o.Always && time.Since(have.Asked) < o.MaxAge && !have.Asked.After(time.Now()):
		return have, nil
	}
	if have == nil && !o.Always {
		if i, err := s.fromLocal(ctx, ref, o); i != nil || err != nil {
			return i, err
		}
	}
	if o.Never || o.Registry == nil {
		if have != nil {
			return nil, &NoPlatformError{Name: ref.Short(), Wanted: o.Platform, Have: []string{have.MadeFor()}}
		}
		return nil, &UnknownError{ref.Short()}
	}
	i, err := s.pull(ctx, ref, o)
	var broken *BadImageError
	if err != nil && fit && o.MaxAge > 0 && ctx.Err() == nil && !errors.As(err, &broken) {
		o.Notice(fmt.Sprintf("%s is taken as it is here, though it may have changed: %v", ref.Short(), err))
		return have, nil
	}
	return i, err
}

// noticeLocalhost tells of the image that Podman would have taken: an archive of
// Podman's names it so.
func (s *Store) noticeLocalhost(ref Reference, o *ObtainOptions) {
	for _, name := range localNames(ref)[1:] {
		if i, err := s.Here(name, o.Platform); err == nil && i != nil {
			o.Notice(fmt.Sprintf("%s is here, which is not what %s means; it would be after: platelayer image tag %s %s", name, ref.Short(), name, ref.Short()))
		}
	}
}

func (s *Store) pull(ctx context.Context, ref Reference, o *ObtainOptions) (*Image, error) {
	r, err := o.Registry()
	if err != nil {
		return nil, err
	}
	return r.Pull(ctx, s, ref, o.Platform, AddOptions{Progress: o.Progress, Check: o.Check, Unpack: true})
}

// fromLocal asks Docker and Podman; nil: they don't have it, or not for the platform.
func (s *Store) fromLocal(ctx context.Context, ref Reference, o *ObtainOptions) (*Image, error) {
	local := o.Local
	local.Notice = o.Notice
	var refused error
	check := func(ctx context.Context, digest, index v1.Hash) error {
		if o.Check != nil {
			refused = o.Check(ctx, digest, index)
		}
		return refused
	}
	i, whose, err := fromLocal(ctx, s, ref, local, LoadOptions{Progress: o.Progress, Check: check})
	var unknown *UnknownError
	switch {
	case errors.As(err, &unknown):
		return nil, refused
	case err != nil:
		return nil, err
	case o.Platform.Exact && !i.Fits(o.Platform):
		return nil, nil
	}
	o.Notice(fmt.Sprintf("%s is taken from %s", ref.Short(), whose))
	return i, nil
}

// Here gives the image that the store has under a name, nil for none. It asks
// nobody and unpacks nothing.
func (s *Store) Here(name string, p Platform) (*Image, error) {
	ref, err := ParseReference(name)
	if err != nil {
		return nil, err
	}
	return s.here(ref, p)
}

// here gives the image that the store has under a name, the one for the platform
// where a digest means several; nil is none, or one of which something is gone.
func (s *Store) here(ref Reference, p Platform) (*Image, error) {
	index, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	var found *Image
	for _, d := range index.Manifests {
		// A digest says what the image is, by whatever name it came.
		pinned := ref.Digest != "" && (d.Digest.String() == ref.Digest || d.Annotations[indexAnnotation] == ref.Digest)
		if !pinned && !matches(d, ref) {
			continue
		}
		i, err := s.described(d)
		var missing *MissingError
		if errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		there, err := s.usable(i)
		if err != nil {
			return nil, err
		}
		if there && (found == nil || i.Fits(p)) {
			found = i
		}
	}
	return found, nil
}

// usable tells whether each layer of an image is unpacked or can be.
func (s *Store) usable(i *Image) (bool, error) {
	for n := range i.Layers {
		l := &i.Layers[n]
		if s.hasBlob(l.Digest) {
			continue
		}
		if there, err := s.isUnpacked(l); err != nil || !there {
			return false, err
		}
	}
	return true, nil
}

// Fits tells whether a machine of a platform runs the image by itself.
func (i *Image) Fits(p Platform) bool { return fits(i, p) }

// MadeFor is the platform that the image itself says, "linux/arm64".
func (i *Image) MadeFor() string {
	text := i.Config.OS + "/" + i.Config.Architecture
	if i.Config.Variant != "" {
		text += "/" + i.Config.Variant
	}
	return shorten(theirs(text))
}
