// Package native is the container engine that needs nothing installed: it makes
// namespaces, mounts, cgroups and filters itself and starts commands with one
// clone, without running the program once more for each container.
//
// Read engine.go for what is made once, prepare.go for a container's root and
// start.go for its command.
package native

// Config is what an engine is told about its surroundings.
type Config struct {
	// Cgroup is the topology's cgroup, such as "platelayer/hello"; a
	// container's is Cgroup+"/"+Spec.Name.
	Cgroup string
	// Workers bounds how many containers are prepared or started at a time; 0
	// is the number of processors, at most four.
	Workers int
}

// Noticer is met by containers of this engine that have something to tell the
// user, such as writes kept in memory because the disk can't hold them.
type Noticer interface{ Notices() []string }

// Runner is met by this engine's processes. It tells at once what Wait waits
// for, for a tenth of what Alive costs.
type Runner interface{ Running() bool }

// Feature is one need of the engine and whether this machine meets it.
type Feature struct {
	Name     string
	OK       bool
	Detail   string
	Remedy   string
	Required bool
}
