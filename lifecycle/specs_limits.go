package lifecycle

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"platelayer/containers"
	"platelayer/topology"
)

// mounts are a station's volumes as the engine binds them.
func (w site) mounts(t *topology.Topology, s *topology.Station) []containers.Mount {
	var all []containers.Mount
	for _, v := range s.Volumes {
		m := containers.Mount{
			Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly,
			Propagation: v.Propagation, Subpath: v.Subpath, SELinux: v.SELinux,
		}
		if v.Source == "" {
			m.Fill = !v.NoCopy
			m.Source = w.layout.anonymous(t.Name, t.ContainerName(s), v.Target)
			m.Yield = v.Name == ""
			if v.Name != "" {
				m.Source = w.layout.volume(volumeName(t, v.Name))
			}
		}
		all = append(all, m)
	}
	return all
}

// resources are the station's limits as the engine sets them.
func resources(s *topology.Station) containers.Resources {
	r := s.Resources
	return containers.Resources{
		CPUs: r.CPUs, CPUShares: r.CPUShares, CPUSet: r.CPUSet,
		MemSwap: r.MemSwapLimit, MemReservation: r.MemReservation, ShmSize: r.ShmSize,
		Blkio: containers.Blkio{
			Weight:        r.Blkio.Weight,
			DeviceWeights: weights(r.Blkio.WeightDevice),
			ReadBps:       rates(r.Blkio.DeviceReadBps), ReadIOps: rates(r.Blkio.DeviceReadIOps),
			WriteBps: rates(r.Blkio.DeviceWriteBps), WriteIOps: rates(r.Blkio.DeviceWriteIOps),
		},
	}
}

// limit adds to a container's description what it shares with compose.
func (w site) limit(spec *containers.Spec, s *topology.Station) {
	spec.Resources = resources(s)
	for _, u := range s.Ulimits {
		spec.Ulimits = append(spec.Ulimits, containers.Ulimit(u))
	}
	spec.TTY = s.TTY
	spec.OOMScoreAdj, spec.Groups, spec.Init, spec.ReadOnly = s.OOMScoreAdj, s.GroupAdd, s.Init, s.ReadOnly
	for _, f := range s.Tmpfs {
		spec.Tmpfs = append(spec.Tmpfs, containers.Tmpfs(f))
	}
	if s.Systemd {
		systemd(spec)
	}
	for _, d := range s.Devices {
		spec.Devices = append(spec.Devices, containers.Device(d))
	}
	for _, c := range s.Sysctls {
		spec.Sysctls = append(spec.Sysctls, containers.Sysctl(c))
	}
	spec.CapAdd, spec.CapDrop, spec.Privileged = s.CapAdd, s.CapDrop, s.Privileged
	spec.NewPrivileges, spec.AppArmor, spec.Label = s.Security.NewPrivileges, s.Security.AppArmor, s.Security.Label
	if s.Security.Seccomp == "unconfined" {
		spec.Seccomp = "unconfined"
	}
}

// systemd gives a system manager what it looks for in a container
// (systemd.io/CONTAINER_INTERFACE): what the file mounts or sets itself stays.
func systemd(spec *containers.Spec) {
	spec.Delegate = true
	taken := map[string]bool{}
	for _, f := range spec.Tmpfs {
		taken[f.Target] = true
	}
	for _, m := range spec.Mounts {
		taken[m.Target] = true
	}
	for _, f := range []containers.Tmpfs{{Target: "/run", Mode: 0o755}, {Target: "/run/lock"}, {Target: "/tmp"}} {
		if !taken[f.Target] {
			spec.Tmpfs = append(spec.Tmpfs, f)
		}
	}
	named := func(v string) bool { return strings.HasPrefix(v, "container=") }
	if !slices.ContainsFunc(spec.Env, named) {
		spec.Env = append(slices.Clone(spec.Env), "container=platelayer")
	}
}

func weights(all []topology.BlkioWeight) (out []containers.BlkioRate) {
	for _, w := range all {
		out = append(out, containers.BlkioRate{Path: w.Path, Rate: int64(w.Weight)})
	}
	return out
}

func rates(all []topology.BlkioRate) (out []containers.BlkioRate) {
	for _, r := range all {
		out = append(out, containers.BlkioRate(r))
	}
	return out
}

// joins tells whether a station shares a namespace with another, which must
// run when its root is made.
func joins(s *topology.Station) bool { return s != nil && (s.PID != "" || s.IPC != "") }

// sharesPIDs tells whether a station's processes are another's too.
func sharesPIDs(t *topology.Topology, s *topology.Station) bool {
	id := s.ID()
	return s.PID != "" || slices.ContainsFunc(t.Stations(), func(o *topology.Station) bool { return o.PID == id })
}

// makeVolumes makes the folders of a container's volumes.
func (k *keeper) makeVolumes(r *root) error {
	for i, v := range r.station.Volumes {
		source := r.spec.Mounts[i].Source
		var err error
		switch {
		case v.Source == "" && v.Name != "":
			err = makeVolume(filepath.Dir(source), k.name)
		case v.Source == "":
			err = os.MkdirAll(source, 0o755)
		case v.CreateHostPath:
			err = k.makeHostPath(source)
		}
		if err != nil {
			return fmt.Errorf("cannot make a volume of %q: %w", r.spec.Name, err)
		}
	}
	return nil
}

// furnish reads what a container gets from the machine's files.
func furnish(r *root) error {
	s := r.station
	r.spec.Files = nil
	for _, f := range s.Files {
		content := []byte(f.Content)
		if f.Source != "" {
			var err error
			if content, err = r.read(f.Source); err != nil {
				return fmt.Errorf("cannot read a config or secret of %q: %w", r.spec.Name, err)
			}
		}
		r.spec.Files = append(r.spec.Files, containers.File{Target: f.Target, Content: content, Mode: f.Mode, UID: f.UID, GID: f.GID})
	}
	return readFilter(r.spec, s)
}

// readFilter reads the station's own system call filter, where it has one: as it
// was when the station was asked for, for its restarts and the commands in it.
func readFilter(spec *containers.Spec, s *topology.Station) error {
	profile := s.Security.Seccomp
	if profile == "" || profile == "unconfined" {
		return nil
	}
	if spec.Seccomp = s.Security.Profile; spec.Seccomp != "" {
		return nil
	}
	text, err := ReadSource(profile)
	if err != nil {
		return fmt.Errorf("cannot read the system call filter of %q: %w", s.ID(), err)
	}
	spec.Seccomp = string(text)
	return nil
}

// join has a container share the namespaces of others, which must run.
func (k *keeper) join(r *root) error {
	for _, share := range []struct {
		id string
		of **containers.ProcessRef
	}{{r.station.PID, &r.spec.PIDOf}, {r.station.IPC, &r.spec.IPCOf}} {
		if share.id == "" {
			continue
		}
		other := k.member(share.id)
		if other == nil {
			return fmt.Errorf("cannot start %q: there is no station %q to share a namespace with", r.spec.Name, share.id)
		}
		c, _, _ := other.now()
		if !c.alive() {
			return fmt.Errorf("cannot start %q: station %q, with which it shares a namespace, does not run", r.spec.Name, share.id)
		}
		*share.of = &c.Process
	}
	return nil
}
