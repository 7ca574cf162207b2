package native

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// SetResources changes all limits of a container in place; zero values are no
// limit. Memory that a process used before its container had a limit is not
// counted by cgroup v1.
func SetResources(cgroup string, memory, pids int64, r containers.Resources) error {
	if err := checkCgroup(cgroup); err != nil {
		return err
	}
	err := checkResources(memory, pids, &r)
	if err == nil {
		err = findHierarchies().limit(cgroup, memory, pids, &r)
	}
	if err != nil {
		return fmt.Errorf("cannot change the limits of %s: %w", path.Base(cgroup), err)
	}
	return nil
}

// cpuPeriod is the kernel's default period of cpu.max, in microseconds.
const cpuPeriod = 100000

// checkResources compares limits with each other and with the machine, and
// tells all that is wrong as Impossible.
func checkResources(memory, pids int64, r *containers.Resources) error {
	var errs []error
	refuse := func(wrong bool, key, format string, args ...any) {
		if wrong {
			errs = append(errs, impossible(key, "", fmt.Errorf(format, args...)))
		}
	}
	refuse(memory < 0 || memory > 0 && memory < minMemory, "mem_limit",
		"memory limit of %d bytes is below the %d that a program needs to start", memory, minMemory)
	refuse(pids < 0, "pids_limit", "pids limit of %d is below 0", pids)
	refuse(r.CPUs < 0 || r.CPUs > 0 && r.CPUs < 0.01, "cpus", "cpus limit of %g is below the kernel's least, 0.01", r.CPUs)
	if r.CPUs > 0 || r.CPUSet != "" {
		errs = append(errs, checkProcessors(r))
	}
	refuse(r.CPUShares < 0 || r.CPUShares == 1 || r.CPUShares > 262144, "cpu_shares", "cpu shares of %d are not within 2 and 262144", r.CPUShares)
	switch {
	case r.MemSwap < -1:
		refuse(true, "memswap_limit", "memory and swap limit of %d bytes is below 0", r.MemSwap)
	case r.MemSwap > 0 && memory == 0:
		refuse(true, "memswap_limit", "a limit of memory and swap needs a memory limit")
	case r.MemSwap > 0 && r.MemSwap < memory:
		refuse(true, "memswap_limit", "memory and swap limit of %d bytes is below the memory limit of %d", r.MemSwap, memory)
	}
	refuse(r.MemReservation < 0 || memory > 0 && r.MemReservation > memory, "mem_reservation",
		"memory reservation of %d bytes is not within 0 and the memory limit of %d", r.MemReservation, memory)
	refuse(r.ShmSize < 0, "shm_size", "shm size of %d bytes is below 0", r.ShmSize)
	return errors.Join(append(errs, checkBlkio(&r.Blkio))...)
}

func checkProcessors(r *containers.Resources) error {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return fmt.Errorf("cannot count the machine's processors: %w", err)
	}
	online, err := cpuList(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("cannot count the machine's processors: %w", err)
	}
	var errs []error
	if r.CPUs > float64(len(online)) {
		errs = append(errs, impossible("cpus", "", fmt.Errorf("cpus limit of %g is above the %d processors of this machine", r.CPUs, len(online))))
	}
	if r.CPUSet == "" {
		return errors.Join(errs...)
	}
	wanted, err := cpuList(r.CPUSet)
	if err != nil {
		return errors.Join(append(errs, impossible("cpuset", "", err))...)
	}
	for _, cpu := range slices.Sorted(maps.Keys(wanted)) {
		if !online[cpu] {
			errs = append(errs, impossible("cpuset", "",
				fmt.Errorf("cpuset %q names processor %d, this machine has %s", r.CPUSet, cpu, strings.TrimSpace(string(b)))))
			break
		}
	}
	return errors.Join(errs...)
}

// cpuList reads the kernel's list format: 0-2,7.
func cpuList(text string) (map[int]bool, error) {
	list := map[int]bool{}
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 13)
		to, err2 := strconv.ParseUint(last, 10, 13)
		if err1 != nil || err2 != nil || to < from {
			return nil, fmt.Errorf("cannot read the list of processors %q", text)
		}
		for ; from <= to; from++ {
			list[int(from)] = true
		}
	}
	return list, nil
}

// setResources sets what is limited beside memory and pids.
func (h *hierarchies) setResources(name string, r *containers.Resources) error {
	if err := h.setCPU(name, r); err != nil {
		return err
	}
	if err := h.setCPUSet(name, r.CPUSet); err != nil {
		return err
	}
	return h.setBlkio(name, &r.Blkio)
}

func (h *hierarchies) setCPU(name string, r *containers.Resources) error {
	quota := int64(math.Round(r.CPUs * cpuPeriod))
	dir, v1, err := h.limited(name, "cpu", max(quota, r.CPUShares))
	if err != nil || dir == "" {
		return err
	}
	if v1 {
		if err := writeLimit(dir, "cpu.cfs_quota_us", quota, "-1"); err != nil {
			return err
		}
		return writeLimit(dir, "cpu.shares", r.CPUShares, "1024")
	}
	text := "max"
	if quota > 0 {
		text = strconv.FormatInt(quota, 10) + " " + strconv.Itoa(cpuPeriod)
	}
	if err := writeSetting(dir, "cpu.max", text, quota > 0); err != nil {
		return err
	}
	return writeLimit(dir, "cpu.weight", cpuWeight(r.CPUShares), "100")
}

// cpuWeight maps v1's shares to v2's weight as runc does since its release 1.3:
// a curve through (2, 1), (1024, 100) and (262144, 10000).
func cpuWeight(shares int64) int64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return int64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func (h *hierarchies) setCPUSet(name, cpus string) error {
	limit := int64(0)
	if cpus != "" {
		limit = 1
	}
	dir, v1, err := h.limited(name, "cpuset", limit)
	if err != nil || dir == "" {
		return err
	}
	if !v1 {
		return cpuSetV2(dir, cpus)
	}
	if _, err := os.Stat(dir); err != nil {
		return ignoreMissing(err)
	}
	if err := inheritCPUSet(h.v1["cpuset"], name); err != nil {
		return err
	}
	if cpus == "" {
		b, err := os.ReadFile(h.v1["cpuset"] + "/cpuset.cpus")
		if err != nil {
			return fmt.Errorf("cannot read the machine's cpuset: %w", err)
		}
		cpus = strings.TrimSpace(string(b))
	}
	return writeSetting(dir, "cpuset.cpus", cpus, true)
}

// cpuSetV2 lifts a limit by naming all processors, as older kernels refuse an
// empty set where there are processes.
func cpuSetV2(dir, cpus string) error {
	wanted := cpus != ""
	if !wanted {
		b, err := os.ReadFile(dir + "/cpuset.cpus")
		if err != nil || strings.TrimSpace(string(b)) == "" {
			return ignoreMissing(err)
		}
		if b, err = os.ReadFile(filepath.Dir(dir) + "/cpuset.cpus.effective"); err != nil {
			return fmt.Errorf("cannot read a cpuset: %w", err)
		}
		cpus = strings.TrimSpace(string(b))
	}
	return writeSetting(dir, "cpuset.cpus", cpus, wanted)
}

// inheritCPUSet fills the sets down the path, which v1 leaves empty.
func inheritCPUSet(root, name string) error {
	parent := root
	for part := range strings.SplitSeq(name, "/") {
		dir := filepath.Join(parent, part)
		for _, file := range []string{"/cpuset.mems", "/cpuset.cpus"} {
			b, err := os.ReadFile(dir + file)
			if err != nil {
				return fmt.Errorf("cannot read a cpuset: %w", err)
			}
			if len(strings.TrimSpace(string(b))) > 0 {
				continue
			}
			if b, err = os.ReadFile(parent + file); err != nil {
				return fmt.Errorf("cannot read a cpuset: %w", err)
			}
			if err := writeFile(dir+file, string(b)); err != nil {
				return fmt.Errorf("cannot set %s: %w", dir+file, err)
			}
		}
		parent = dir
	}
	return nil
}

// writeSetting writes a value that is no plain number; one that only lifts a
// limit is not missed where there is no such controller.
func writeSetting(dir, file, text string, wanted bool) error {
	err := writeFile(filepath.Join(dir, file), text)
	controller, _, _ := strings.Cut(file, ".")
	switch {
	case err == nil || errors.Is(err, os.ErrNotExist) && !wanted:
		return nil
	case errors.Is(err, os.ErrNotExist):
		return &containers.Unsupported{Feature: "cgroup " + controller + " controller", Err: err}
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("cannot set %s to %q: not a whole disk: %w", file, text, err)
	}
	return fmt.Errorf("cannot set %s to %q: %w", file, text, err)
}
