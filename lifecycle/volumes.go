package lifecycle

import (
	"errors"
	"fmt"
	"os"

	"platelayer/topology"
)

// RemoveVolumes removes the named volumes of a topology that is not up, as its
// file has them, and tells how many there were: an earlier `down` has left them.
func RemoveVolumes(l Layout, t *topology.Topology) (int, error) {
	if err := needRoot("remove volumes"); err != nil {
		return 0, err
	}
	unlock, err := lock(l, t.Name)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if _, err := os.Lstat(l.lib(t.Name)); err == nil {
		return 0, fmt.Errorf("cannot remove the volumes of %q: it is up again", t.Name)
	}
	own, err := ownVolumes(l, t)
	if err != nil {
		return 0, err
	}
	var there []string
	for _, v := range own {
		if _, err := os.Lstat(l.volume(v)); err == nil {
			there = append(there, v)
		}
	}
	return len(there), removeVolumes(l, there)
}

// ownVolumes lists the volumes that are the topology's alone.
func ownVolumes(l Layout, t *topology.Topology) ([]string, error) {
	all, err := names(l)
	if err != nil {
		return nil, err
	}
	others := map[string]bool{}
	for _, other := range all {
		if i, err := readIntent(l, other); err == nil && other != t.Name {
			for _, v := range i.Topology.Volumes {
				others[volumeName(i.Topology, v.Key)] = true
			}
		}
	}
	var own []string
	for _, v := range t.Volumes {
		if called := volumeName(t, v.Key); !v.External && !others[called] {
			own = append(own, called)
		}
	}
	return own, nil
}

func removeVolumes(l Layout, named []string) error {
	var errs []error
	for _, v := range named {
		if err := os.RemoveAll(l.volume(v)); err != nil {
			errs = append(errs, fmt.Errorf("cannot remove the volume %q: %w", v, err))
		}
	}
	return errors.Join(errs...)
}
