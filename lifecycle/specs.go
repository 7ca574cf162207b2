package lifecycle

import (
	"net/netip"
	"path/filepath"

	"platelayer/containers"
	"platelayer/topology"
)

// site is where a topology's containers are made: the machine's folders and
// the built-in image.
type site struct {
	layout  Layout
	builtin string // root folder of the built-in image
	program string // the program's path inside it
	images  Images
}

// station turns a station into what the engine runs.
func (w site) station(t *topology.Topology, s *topology.Station) *containers.Spec {
	name := t.ContainerName(s)
	spec := &containers.Spec{
		Name:        name,
		Hostname:    s.Hostname,
		Args:        command(s),
		Env:         environment(s),
		WorkingDir:  s.WorkingDir,
		User:        s.User,
		Hosts:       hosts(t, s),
		ResolvConf:  resolvConf(t, s),
		NetNSPath:   w.layout.pin(t.Name, name),
		Sealed:      s.Integrity.Paths,
		MemoryBytes: s.MemLimit,
		Pids:        s.PidsLimit,
		Stdout:      stream(w.layout, t.Name, name, "stdout"),
		Stderr:      stream(w.layout, t.Name, name, "stderr"),
	}
	switch {
	case s.Image != "" && len(w.images[s.Digest]) == 0:
		spec.Root.Lower = w.layout.noLayers()
	case s.Image != "":
		spec.Root.Lower, spec.Root.Layers = w.layout.layers(), w.images[s.Digest]
	case s.Rootfs == "":
		spec.Root.Lower = w.builtin
	case s.Rootfs == "host":
		spec.Root.Host = true
	default:
		spec.Root.Lower = s.Rootfs
	}
	if s.Writable != "memory" {
		spec.Root.WritableDir = w.layout.writable(t.Name, name)
	}
	spec.Mounts = w.mounts(t, s)
	w.limit(spec, s)
	spec.StdinOpen = s.StdinOpen && !s.TTY
	return spec
}

// backbone is the container that answers DNS; routing needs no process.
func (w site) backbone(t *topology.Topology) *containers.Spec {
	name := backboneName(t)
	return &containers.Spec{
		Name:       name,
		Hostname:   "backbone",
		Root:       containers.Root{Lower: w.builtin},
		Args:       []string{w.program, "backbone"},
		Hosts:      loopbackHosts,
		ResolvConf: "nameserver 127.0.0.1\n",
		NetNSPath:  w.layout.pin(t.Name, name),
		Stdout:     stream(w.layout, t.Name, name, "stdout"),
		Stderr:     stream(w.layout, t.Name, name, "stderr"),
	}
}

func stream(l Layout, name, container, which string) string {
	return filepath.Join(l.streams(name), container+"."+which)
}

// command is the entrypoint with the command behind it; the built-in image has
// a web server of its own as its command.
func command(s *topology.Station) []string {
	args := append(append([]string{}, s.Entrypoint...), s.Command...)
	if len(args) == 0 && s.Rootfs == "" && s.Image == "" {
		args = []string{"/bin/serve"}
	}
	return args
}

// addresses lists a station's addresses, eth0's first.
func addresses(s *topology.Station) []netip.Addr {
	all := append([]netip.Addr{}, s.Addresses...)
	for _, i := range s.Interfaces {
		all = append(all, i.Addresses...)
	}
	return all
}
