package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/topology"
)

// target is a place in a root where something is mounted.
type target struct {
	key, path string // where it stands in the file
	what      string
	folder    bool
}

// checkTargets finds folders that are to be mounted on files and the reverse,
// where what the root has can be told before it is there.
func checkTargets(l Layout, t *topology.Topology, s *topology.Station, spec *containers.Spec) error {
	root := knownRoot(l, t, s)
	if root == "" {
		return nil
	}
	all := targets(t, s, spec)
	var errs []error
	for _, m := range all {
		covered := slices.ContainsFunc(all, func(o target) bool { return strings.HasPrefix(m.path, o.path+"/") })
		if covered || root == "/" && !shown(m.path) {
			continue
		}
		if err := native.CheckTarget(root, m.path, m.folder); err != nil {
			errs = append(errs, &containers.Impossible{Key: m.key, Value: m.path, Err: fmt.Errorf("cannot mount %s on %s: %w", m.what, m.path, err)})
		}
	}
	return errors.Join(errs...)
}

// targets are all whose kind is known.
func targets(t *topology.Topology, s *topology.Station, spec *containers.Spec) []target {
	var all []target
	for _, v := range s.Volumes {
		m := target{"volumes", v.Target, "a volume", true}
		if v.Source != "" {
			m.what = v.Source
			info, err := os.Stat(v.Source)
			if err != nil && !v.CreateHostPath {
				continue // said already
			}
			m.folder = err != nil || info.IsDir()
		} else if v.Subpath != "" {
			continue // it may be either
		}
		all = append(all, m)
	}
	for _, f := range spec.Tmpfs {
		m := target{"tmpfs", f.Target, "a tmpfs", true}
		if t.Place(s.ID(), m.key, m.path) == t.Place(s.ID(), "", "") {
			m.key = "volumes" // it was written there
		}
		all = append(all, m)
	}
	for _, f := range s.Files {
		all = append(all, target{kindOf(f), f.Target, "a file", false})
	}
	return all
}

// knownRoot is the folder that a station's root shows, or "" where that can't
// be told: one that the station has written to is another.
func knownRoot(l Layout, t *topology.Topology, s *topology.Station) string {
	root := s.Rootfs
	if root == "host" {
		root = "/"
	}
	if _, err := os.Stat(root); root == "" || err != nil {
		return "" // said already
	}
	if _, err := os.Stat(l.writable(t.Name, t.ContainerName(s))); err == nil {
		return ""
	}
	return root
}

// shown tells whether stations on the machine's own files have the same at a
// path: not what others may not read, nor where links lead.
func shown(name string) bool {
	for ; name != "/usr" && name != "/etc"; name = path.Dir(name) {
		info, err := os.Lstat(name)
		if err != nil || name == "/" || info.Mode()&fs.ModeSymlink != 0 || info.Mode()&0o004 == 0 {
			return false
		}
	}
	return true
}
