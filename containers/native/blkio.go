package native

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

func checkBlkio(b *containers.Blkio) error {
	var errs []error
	refuse := func(device string, err error) { errs = append(errs, impossible("blkio_config", device, err)) }
	if b.Weight != 0 && (b.Weight < 10 || b.Weight > 1000) {
		refuse("weight", fmt.Errorf("block I/O weight of %d is not within 10 and 1000", b.Weight))
	}
	for _, d := range b.DeviceWeights {
		if d.Rate < 10 || d.Rate > 1000 {
			refuse(d.Path, fmt.Errorf("block I/O weight of %d for %s is not within 10 and 1000", d.Rate, d.Path))
		}
	}
	for _, list := range [][]containers.BlkioRate{b.DeviceWeights, b.ReadBps, b.ReadIOps, b.WriteBps, b.WriteIOps} {
		for _, d := range list {
			if _, err := blockDevice(d.Path); err != nil {
				refuse(d.Path, err)
			}
			if d.Rate < 0 {
				refuse(d.Path, fmt.Errorf("block I/O rate of %d for %s is below 0", d.Rate, d.Path))
			}
		}
	}
	return errors.Join(errs...)
}

// blockDevice gives a device's numbers as cgroup files have them.
func blockDevice(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("cannot limit the device %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("cannot limit %s: it is not a block device", path)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

func limitsBlkio(b *containers.Blkio) bool {
	return b.Weight != 0 || len(b.DeviceWeights)+len(b.ReadBps)+len(b.ReadIOps)+len(b.WriteBps)+len(b.WriteIOps) > 0
}

func (h *hierarchies) setBlkio(name string, b *containers.Blkio) error {
	wanted := limitsBlkio(b)
	limit := int64(0)
	if wanted {
		limit = 1
	}
	controller := "io"
	if h.v1["blkio"] != "" {
		controller = "blkio"
	}
	dir, v1, err := h.limited(name, controller, limit)
	if err != nil || dir == "" {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		return ignoreMissing(err) // of v1, without a limit so far
	}
	if v1 {
		err = blkioV1(dir, b)
	} else {
		err = blkioV2(dir, b)
	}
	if err != nil {
		return err
	}
	return blkioWeights(dir, v1, b)
}

func blkioV1(dir string, b *containers.Blkio) error {
	for _, l := range []struct {
		file string
		list []containers.BlkioRate
	}{{"read_bps", b.ReadBps}, {"read_iops", b.ReadIOps}, {"write_bps", b.WriteBps}, {"write_iops", b.WriteIOps}} {
		file := "blkio.throttle." + l.file + "_device"
		for _, device := range firstFields(filepath.Join(dir, file)) {
			if err := writeSetting(dir, file, device+" 0", false); err != nil {
				return err
			}
		}
		for _, d := range l.list {
			device, err := blockDevice(d.Path)
			if err != nil {
				return err
			}
			if err := writeSetting(dir, file, fmt.Sprintf("%s %d", device, d.Rate), true); err != nil {
				return err
			}
		}
	}
	return nil
}

func blkioV2(dir string, b *containers.Blkio) error {
	for _, device := range firstFields(filepath.Join(dir, "io.max")) {
		if err := writeSetting(dir, "io.max", device+" rbps=max wbps=max riops=max wiops=max", false); err != nil {
			return err
		}
	}
	for _, l := range []struct {
		key  string
		list []containers.BlkioRate
	}{{"rbps", b.ReadBps}, {"riops", b.ReadIOps}, {"wbps", b.WriteBps}, {"wiops", b.WriteIOps}} {
		for _, d := range l.list {
			device, err := blockDevice(d.Path)
			if err != nil {
				return err
			}
			if err := writeSetting(dir, "io.max", fmt.Sprintf("%s %s=%d", device, l.key, d.Rate), true); err != nil {
				return err
			}
		}
	}
	return nil
}

// weightFiles are the names under which the kernel's I/O schedulers take
// weights, and what they have without one: BFQ under v1 and v2, the io.cost
// controller under v2.
func weightFiles(v1 bool) []weightFile {
	if v1 {
		return []weightFile{{"blkio.bfq.weight", "blkio.bfq.weight_device", 100}, {"blkio.weight", "blkio.weight_device", 500}}
	}
	return []weightFile{{"io.bfq.weight", "io.bfq.weight", 100}, {"io.weight", "io.weight", 100}}
}

type weightFile struct {
	all, device string
	usual       int64
}

// blkioWeights sets weights where a scheduler knows any, and takes earlier ones
// back.
func blkioWeights(dir string, v1 bool, b *containers.Blkio) error {
	files := slices.DeleteFunc(weightFiles(v1), func(f weightFile) bool { return !exists(dir, f.all) })
	if len(files) == 0 {
		if b.Weight == 0 && len(b.DeviceWeights) == 0 {
			return nil
		}
		return &containers.Unsupported{Feature: "block I/O weights"}
	}
	f := files[0]
	scale := func(weight int64) int64 {
		if f.all == "io.weight" {
			return 1 + (weight-10)*9999/990 // runc's
		}
		return weight
	}
	weight := f.usual
	if b.Weight != 0 {
		weight = scale(int64(b.Weight))
	}
	if err := writeFile(filepath.Join(dir, f.all), strconv.FormatInt(weight, 10)); err != nil {
		return fmt.Errorf("cannot set the block I/O weight: %w", err)
	}
	for _, device := range firstFields(filepath.Join(dir, f.device)) {
		if strings.Contains(device, ":") {
			_ = writeFile(filepath.Join(dir, f.device), device+" default") // of a device that is gone it has no effect
		}
	}
	for _, d := range b.DeviceWeights {
		device, err := blockDevice(d.Path)
		if err != nil {
			return err
		}
		err = writeFile(filepath.Join(dir, f.device), fmt.Sprintf("%s %d", device, scale(d.Rate)))
		if errors.Is(err, unix.EOPNOTSUPP) {
			return &containers.Unsupported{Feature: "block I/O weights for " + d.Path, Err: errors.New("its I/O scheduler knows none")}
		}
		if err != nil {
			return fmt.Errorf("cannot set the block I/O weight for %s: %w", d.Path, err)
		}
	}
	return nil
}

// firstFields lists the devices that a file has something about.
func firstFields(file string) []string {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 {
			list = append(list, f[0])
		}
	}
	return list
}
