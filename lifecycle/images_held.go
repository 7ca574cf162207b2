package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
)

// holdImages keeps what a topology runs on from being pruned; besides what it
// ran on, or instead.
func holdImages(ctx context.Context, l Layout, name string, images Images, besides bool) error {
	if len(images) == 0 && !exists(l.images()) {
		return nil
	}
	store, err := image.OpenStore(l.images())
	if err != nil {
		return err
	}
	var digests []v1.Hash
	for d := range images {
		h, err := v1.NewHash(d)
		if err != nil {
			return fmt.Errorf("cannot keep the images of %q: %w", name, err)
		}
		digests = append(digests, h)
	}
	return store.Hold(ctx, name, digests, besides)
}

// releaseImages lets go of what a topology ran on.
func releaseImages(l Layout, name string) error {
	if !exists(l.images()) {
		return nil
	}
	store, err := image.OpenStore(l.images())
	if err != nil {
		return err
	}
	return store.Release(name)
}

// ReleaseGone lets go of what topologies ran that are gone: a command that was
// killed at its end, or before it began, has not.
func ReleaseGone(l Layout) error {
	store, err := image.OpenStore(l.images())
	if err != nil {
		return err
	}
	held, err := store.Holders()
	if err != nil {
		return err
	}
	var names []string
	for _, by := range held {
		names = append(names, by...)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		unlock, err := lock(l, name)
		if busy := new(Busy); errors.As(err, &busy) {
			continue
		}
		if err != nil {
			return err
		}
		if !exists(l.run(name)) && !exists(l.lib(name)) {
			err = store.Release(name)
		}
		unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// dropStrayHold lets go of what a launch that never began would have run on.
func dropStrayHold(l Layout, name string) {
	if !exists(l.intent(name)) {
		_ = releaseImages(l, name) // it only takes room
	}
}
