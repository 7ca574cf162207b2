package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"platelayer/containers/native"
	"platelayer/topology"
)

// A station's layer means something on the root that it was written on only.
// Where a file asks for another root, its layers are marked with that before
// the file counts, and one is thrown away before it is used on the root that it
// is marked with: whatever ends in between, no layer meets the wrong root, and
// none is lost to a file that never counted.

func outdated(l Layout, name, container string) string {
	return filepath.Join(l.writable(name, container), ".outdated")
}

// outdate marks the layers of stations that have another root in the new
// topology than in the old.
func outdate(l Layout, old, new *topology.Topology) error {
	before := map[string]*topology.Station{}
	for _, s := range old.Stations() {
		before[s.ID()] = s
	}
	for _, s := range new.Stations() {
		was := before[s.ID()]
		if was == nil || rootOf(was) == rootOf(s) {
			continue
		}
		err := os.WriteFile(outdated(l, new.Name, new.ContainerName(s)), []byte(rootOf(s)), 0o600)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // no layer, nothing to mark
			return fmt.Errorf("cannot mark the writable layer of %q: %w", s.ID(), err)
		}
	}
	return nil
}

// rootOf tells what a layer of the station is written on.
func rootOf(s *topology.Station) string { return s.Writable + " on " + s.Rootfs + s.Digest }

// restore takes the marks away that outdate made for a change that does not
// come about.
func restore(l Layout, t *topology.Topology) error {
	var errs []error
	for _, s := range t.Stations() {
		if err := os.Remove(outdated(l, t.Name, t.ContainerName(s))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("cannot unmark the writable layer of %q: %w", s.ID(), err))
		}
	}
	return errors.Join(errs...)
}

// layer makes a container's writable layer, or finds the one that it wrote
// before on the same root.
func layer(l Layout, name, container, root string) (found bool, err error) {
	dir := l.writable(name, container)
	if mark, err := os.ReadFile(outdated(l, name, container)); err == nil && string(mark) == root {
		// The mark goes last: what is half removed is still outdated.
		entries, err := os.ReadDir(dir)
		if err != nil {
			return false, fmt.Errorf("cannot read the writable layer of %q: %w", container, err)
		}
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); path != outdated(l, name, container) {
				if err := native.RemoveAll(path); err != nil {
					return false, fmt.Errorf("cannot remove the writable layer of %q: %w", container, err)
				}
			}
		}
		if err := native.RemoveAll(dir); err != nil {
			return false, fmt.Errorf("cannot remove the writable layer of %q: %w", container, err)
		}
	}
	_, err = os.Stat(dir)
	if found = err == nil; found {
		return true, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, fmt.Errorf("cannot make the writable layer of %q: %w", container, err)
	}
	return false, nil
}
