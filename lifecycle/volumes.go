package lifecycle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"platelayer/containers/native"
	"platelayer/topology"
)

// Named volumes lie in folders of their own, each with its data and the name of
// the topology that made it: they outlive the topology, and an edit that drops
// them. Nobody but root may walk there: stations write programs with set-user-ID
// bits and owners that mean somebody else on the machine.
const (
	volumeData  = "data"
	volumeOwner = "topology"
	// volumeFresh marks one made for a launch or a change that may still be
	// refused. What it was filled with then is thrown away: its seals are bad.
	volumeFresh = "fresh"
)

func (l Layout) volumes() string { return filepath.Join(l.Lib, "volumes") }

// volume is the folder of a named volume's data.
func (l Layout) volume(name string) string { return filepath.Join(l.volumes(), name, volumeData) }

// anonymous is the folder of a volume of a station's own, which goes with it.
func (l Layout) anonymous(name, container, target string) string {
	sum := sha256.Sum256([]byte(target))
	return filepath.Join(l.lib(name), "volumes", container, hex.EncodeToString(sum[:8]))
}

// volumeName is what a volume is called on the machine.
func volumeName(t *topology.Topology, key string) string {
	for _, v := range t.Volumes {
		if v.Key == key && v.Name != "" {
			return v.Name
		}
	}
	return t.Name + "_" + key
}

// makeVolume makes a named volume, for a topology, where there is none.
func makeVolume(dir, owner string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, volumeOwner), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(owner)
		err = errors.Join(err, f.Close(), os.WriteFile(filepath.Join(dir, volumeFresh), nil, 0o600))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, volumeData), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// removeVolumes removes the named volumes that a topology made and gives their
// names. One that another topology has stays; the error tells.
func removeVolumes(l Layout, name string) (removed []string, err error) {
	return dropVolumes(l, name, false)
}

// dropFreshVolumes removes the volumes of a launch or a change that is refused.
func dropFreshVolumes(l Layout, name string) error {
	_, err := dropVolumes(l, name, true)
	return err
}

func dropVolumes(l Layout, name string, freshOnly bool) (removed []string, err error) {
	own, err := volumesOf(l, name)
	if err != nil || len(own) == 0 {
		return nil, err
	}
	users, err := volumeUsers(l, name)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, volume := range own {
		dir := filepath.Join(l.volumes(), volume)
		if _, err := os.Lstat(filepath.Join(dir, volumeFresh)); err != nil && freshOnly {
			continue
		}
		if user := users[volume]; user != "" {
			if !freshOnly {
				errs = append(errs, fmt.Errorf("cannot remove the volume %q: topology %q uses it", volume, user))
			}
			continue
		}
		// Its owner last: a removal that is cut off can be tried again.
		err := errors.Join(native.RemoveAll(filepath.Join(dir, volumeData)), os.RemoveAll(dir))
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot remove the volume %q: %w", volume, err))
			continue
		}
		removed = append(removed, volume)
	}
	return removed, errors.Join(errs...)
}

// keepVolumes has what was made for a launch or a change outlive its failure.
func keepVolumes(l Layout, name string) error {
	own, err := volumesOf(l, name)
	if err != nil {
		return err
	}
	for _, volume := range own {
		err := os.Remove(filepath.Join(l.volumes(), volume, volumeFresh))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot keep the volume %q: %w", volume, err)
		}
	}
	return nil
}

// volumesOf lists the named volumes that a topology made.
func volumesOf(l Layout, name string) (own []string, err error) {
	entries, err := os.ReadDir(l.volumes())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot list volumes: %w", err)
	}
	for _, e := range entries {
		owner, err := os.ReadFile(filepath.Join(l.volumes(), e.Name(), volumeOwner))
		if err == nil && string(owner) == name {
			own = append(own, e.Name())
		}
	}
	return own, nil
}

// volumeUsers tells for each named volume another topology that is there and
// has it.
func volumeUsers(l Layout, but string) (map[string]string, error) {
	all, err := names(l)
	if err != nil {
		return nil, err
	}
	users := map[string]string{}
	for _, name := range all {
		intent, err := readIntent(l, name)
		if err != nil || name == but {
			continue // remains of a launch use nothing
		}
		for _, v := range intent.Topology.Volumes {
			users[volumeName(intent.Topology, v.Key)] = name
		}
	}
	return users, nil
}
