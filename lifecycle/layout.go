// Package lifecycle joins the topology, its plan, the engine and the integrity
// gate into up, down and all that happens between. Read up.go first.
package lifecycle

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"platelayer/containers/image"
	"platelayer/netplan/kernel"
	"platelayer/policy"
	"platelayer/topology"
)

// Layout says where state lies on the machine.
type Layout struct {
	Root  string // the folder that Run and Lib were moved to, or ""
	Run   string // what a reboot may take: /run/platelayer
	Lib   string // what it may not: /var/lib/platelayer
	NetNS string // where ip(8) looks namespaces up: /run/netns
	// Policies are the files that say what may run; all of them count.
	Policies []string
}

// kernelOptions says where the namespaces of a topology are.
func (l Layout) kernelOptions(name string) kernel.Options {
	return kernel.Options{PinDir: l.pins(name), NetNSDir: l.NetNS, Owner: name}
}

// elsewhere gives a namespace that has the topology's name and is not its own.
func (l Layout) elsewhere(name string) string {
	return kernel.Elsewhere(l.kernelOptions(name), name+".fabric")
}

// NewLayout gives the machine's layout; root moves it to a folder of its own.
func NewLayout(root string) Layout {
	l := Layout{Run: "/run/platelayer", Lib: "/var/lib/platelayer", NetNS: "/run/netns", Policies: []string{policy.File}}
	if root != "" {
		// Another place for the state is no way around the machine's policy.
		l.Policies = append(l.Policies, filepath.Join(root, "policy.yaml"))
		l.Root = root
		l.Run, l.Lib = filepath.Join(root, "run"), filepath.Join(root, "lib")
	}
	return l
}

func (l Layout) locks() string             { return filepath.Join(l.Run, ".locks") }
func (l Layout) run(name string) string    { return filepath.Join(l.Run, name) }
func (l Layout) state(name string) string  { return filepath.Join(l.run(name), "state.json") }
func (l Layout) socket(name string) string { return filepath.Join(l.run(name), "keeper.sock") }
func (l Layout) leaks(name string) string  { return filepath.Join(l.run(name), "leaks.json") }
func (l Layout) pins(name string) string   { return filepath.Join(l.run(name), "pins") }
func (l Layout) topologies() string        { return filepath.Join(l.Lib, "topologies") }
func (l Layout) lib(name string) string    { return filepath.Join(l.topologies(), name) }
func (l Layout) intent(name string) string { return filepath.Join(l.lib(name), "topology.json") }
func (l Layout) logs(name string) string   { return filepath.Join(l.lib(name), "logs") }
func (l Layout) events(name string) string { return filepath.Join(l.logs(name), "events.jsonl") }

func (l Layout) writable(name, container string) string {
	return filepath.Join(l.lib(name), "stations", container)
}

func (l Layout) images() string { return filepath.Join(l.Lib, "images") }

// signatures holds those that registries gave for images.
func (l Layout) signatures() string { return filepath.Join(l.Lib, "signatures") }

// layers is the folder that holds the unpacked layers of images.
func (l Layout) layers() string { return filepath.Join(l.images(), "layers") }

// noLayers is the root folder of images that have none.
func (l Layout) noLayers() string { return filepath.Join(l.images(), image.NoLayers) }

func (l Layout) authorities() string          { return filepath.Join(l.Lib, "authorities") }
func (l Layout) authority(name string) string { return filepath.Join(l.authorities(), name+".pem") }

// firstIntent is where format 1 had the intent.
func (l Layout) firstIntent(name string) string { return filepath.Join(l.run(name), "topology.json") }

// streams lies on the pins' tmpfs: a FIFO on ext4 costs 0.5 ms.
func (l Layout) streams(name string) string { return filepath.Join(l.pins(name), ".streams") }

// pin is the path of a container's network namespace.
func (l Layout) pin(name, container string) string {
	return filepath.Join(l.pins(name), container)
}

// cgroup is the name of the topology's cgroup; its containers and its keeper
// have one each below it.
func cgroup(name string) string { return "platelayer/" + name }

// keeperCgroup can't be a container's: those have dots in their names.
func keeperCgroup(name string) string { return cgroup(name) + "/keeper" }

// checkName refuses what can't be a topology's name before it becomes part of
// a path.
func checkName(name string) error {
	if len(name) > 63 || !regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`).MatchString(name) {
		return fmt.Errorf("%q is not a topology's name", name)
	}
	return nil
}

// backboneName is the container of the topology's backbone.
func backboneName(t *topology.Topology) string { return t.Name + ".backbone" }

// Invoker is the user on whose behalf sudo runs the program: files written
// beside the topology file are theirs.
func Invoker() (uid, gid int) {
	uid, gid = os.Getuid(), os.Getgid()
	var u, g int
	if _, err := fmt.Sscan(os.Getenv("SUDO_UID"), &u); err != nil || uid != 0 {
		return uid, gid
	}
	if _, err := fmt.Sscan(os.Getenv("SUDO_GID"), &g); err != nil {
		return uid, gid
	}
	return u, g
}
