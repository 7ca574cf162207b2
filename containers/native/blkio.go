package native

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	if v1 {
		err = blkioV1(dir, b)
	} else {
		err = blkioV2(dir, b)
	}
	if err != nil || !wanted {
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

// blkioWeights sets weights where an I/O scheduler of the kernel knows any: BFQ
// under v1 and v2, the io.cost controller under v2.
func blkioWeights(dir string, v1 bool, b *containers.Blkio) error {
	files := []string{"io.bfq.weight", "io.weight"}
	if v1 {
		files = []string{"blkio.bfq.weight", "blkio.weight"}
	}
	set := func(device string, weight int64) error {
		for _, file := range files {
			w := weight
			if file == "io.weight" {
				w = 1 + (weight-10)*9999/990 // runc's
			}
			name := file
			if v1 && device != "" {
				name += "_device"
			}
			err := writeFile(filepath.Join(dir, name), strings.TrimSpace(device+" "+strconv.FormatInt(w, 10)))
			if !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return &containers.Unsupported{Feature: "block I/O weights"}
	}
	if b.Weight != 0 {
		if err := set("", int64(b.Weight)); err != nil {
			return err
		}
	}
	for _, d := range b.DeviceWeights {
		device, err := blockDevice(d.Path)
		if err != nil {
			return err
		}
		if err := set(device, d.Rate); err != nil {
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
