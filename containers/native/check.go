package native

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// Check finds, without making anything, what of a container this machine does
// not allow: its limits, its powers and its devices. All that is wrong is told
// at once, each as an Impossible. The parent is the process that would start
// it; the zero one is this process.
func Check(spec *containers.Spec, parent containers.ProcessRef) error {
	errs := []error{checkResources(spec.MemoryBytes, spec.Pids, &spec.Resources), checkControllers(spec)}
	asked := specPowers(spec)
	asked.Ulimits = nil
	_, err := powersOf(asked, nil)
	errs = append(errs, impossible(powerKey(asked, err), "", err))
	for _, u := range spec.Ulimits {
		one := []containers.Ulimit{u}
		_, err := ulimits(one)
		if err == nil {
			err = checkLimits(parent, one)
		}
		errs = append(errs, impossible("ulimits", u.Name, err))
	}
	errs = append(errs, impossible("oom_score_adj", "", checkOOMScore(parent, spec.OOMScoreAdj)))
	for _, d := range spec.Devices {
		_, err := findDevice(d, spec.Privileged && d.Source == "/dev")
		errs = append(errs, impossible("devices", d.Source, err))
	}
	return errors.Join(errs...)
}

// CheckUser looks a user and further groups up in the passwd and group of a
// root that is a folder.
func CheckUser(root, user string, groups []string) error {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the root %s: %w", root, err)
	}
	defer closeFD(fd)
	if _, err := lookupUser(fd, user, nil); err != nil {
		return impossible("user", user, err)
	}
	var errs []error
	for _, g := range groups {
		_, err := lookupUser(fd, user, []string{g})
		errs = append(errs, impossible("group_add", g, err))
	}
	return errors.Join(errs...)
}

// CheckTarget tells whether a folder, or a file, can be mounted at a path of a
// root that is a folder.
func CheckTarget(root, path string, folder bool) error {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the root %s: %w", root, err)
	}
	defer closeFD(dir)
	fd, err := openTarget(dir, path, folder)
	if err == nil {
		closeFD(fd)
	}
	return ignoreMissing(err)
}

func impossible(key, value string, err error) error {
	if err == nil {
		return nil
	}
	return &containers.Impossible{Key: key, Value: value, Err: err}
}

// powerKey tells which of the fields an error of powersOf is about.
func powerKey(s *containers.ExecSpec, err error) string {
	switch {
	case err == nil:
		return ""
	case grants(s) != nil:
		return "cap_add"
	case s.OOMScoreAdj < -1000 || s.OOMScoreAdj > 1000:
		return "oom_score_adj"
	}
	return "security_opt"
}

func grants(s *containers.ExecSpec) error {
	_, err := grantCaps(s.CapAdd, s.CapDrop, s.Privileged)
	return err
}

// checkControllers finds limits for which the kernel has no controller.
func checkControllers(spec *containers.Spec) error {
	h, r := findHierarchies(), &spec.Resources
	var errs []error
	for _, c := range []struct {
		name, key string
		wanted    bool
	}{
		{"memory", "mem_limit", spec.MemoryBytes > 0}, {"memory", "mem_reservation", r.MemReservation > 0},
		{"pids", "pids_limit", spec.Pids > 0}, {"cpu", "cpus", r.CPUs > 0}, {"cpu", "cpu_shares", r.CPUShares > 0},
		{"cpuset", "cpuset", r.CPUSet != ""}, {"io", "blkio_config", limitsBlkio(&r.Blkio)},
	} {
		if c.wanted && !h.has(c.name) {
			errs = append(errs, impossible(c.key, "", &containers.Unsupported{Feature: "cgroup " + c.name + " controller"}))
		}
	}
	// The weights themselves are not in the root of a v1 tree, what is counted beside them is.
	if b := &r.Blkio; (b.Weight != 0 || len(b.DeviceWeights) > 0) && h.v1["blkio"] != "" &&
		!exists(h.v1["blkio"], "blkio.bfq.io_serviced", "blkio.leaf_weight") {
		errs = append(errs, impossible("blkio_config", "weight", &containers.Unsupported{Feature: "block I/O weights"}))
	}
	return errors.Join(errs...)
}

// exists tells whether a folder has one of the files.
func exists(dir string, names ...string) bool {
	for _, name := range names {
		if _, err := os.Stat(dir + "/" + name); err == nil {
			return true
		}
	}
	return false
}

// has tells whether the machine can limit what a controller of v2 does.
func (h *hierarchies) has(controller string) bool {
	v1 := map[string]string{"io": "blkio"}[controller]
	if v1 == "" {
		v1 = controller
	}
	if h.v1[v1] != "" {
		return true
	}
	if h.v2 == "" {
		return false
	}
	b, err := os.ReadFile(h.v2 + "/cgroup.controllers")
	return err == nil && slices.Contains(strings.Fields(string(b)), controller)
}
