package lifecycle

import (
	"path/filepath"

	"platelayer/policy"
)

// realFolder is a folder's path without links.
func realFolder(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}

// project is the topology file's folder when it was brought up: it may be a link
// to another by now.
func (i *Intent) project() string {
	if i.Project == "" { // recorded by an earlier program
		return realFolder(i.Topology.Dir)
	}
	return i.Project
}

// confine has the policies look at what a container gets of the machine's files
// as it gets them. Since `up` a link may have come into the place of a folder:
// made by a user, or by a station that writes to the folder above it.
func confine(l Layout, project string, r *root) error {
	all, err := policies(l)
	if err != nil {
		return err
	}
	var refused []policy.Refusal
	for _, p := range all {
		if !p.LimitsSources() {
			continue
		}
		real, not := p.Sources(project, r.station)
		if refused = append(refused, not...); len(not) > 0 {
			continue
		}
		r.real = real
		r.spec.Root.NoLinks = r.station.Rootfs != "" && r.station.Rootfs != "host"
		if r.spec.Root.NoLinks {
			r.spec.Root.Lower = real[r.station.Rootfs]
		}
		for n, v := range r.station.Volumes {
			if v.Source != "" {
				r.spec.Mounts[n].Source, r.spec.Mounts[n].NoLinks = real[v.Source], true
			}
		}
	}
	if len(refused) > 0 {
		return &policy.RefusedError{Refusals: refused}
	}
	return nil
}
