package lifecycle

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"platelayer/topology"
)

// limitFields are a station's limits, files and rights. What a cgroup holds can
// be changed while the station runs.
func limitFields() []field[topology.Station] {
	type station = topology.Station
	yes := func(set bool) []part {
		if !set {
			return nil
		}
		return single("true")
	}
	return []field[station]{
		{"resources", elements, false, func(s *station) []part { return resourceParts(&s.Resources) }},
		{"shm_size", whole, true, func(s *station) []part { return single(bytesText(s.Resources.ShmSize)) }},
		{"ulimits", elements, true, func(s *station) []part {
			return partsOf(s.Ulimits, func(u topology.Ulimit) part { return part{word(u.Name), fmt.Sprintf("%d:%d", u.Soft, u.Hard)} })
		}},
		{"oom_score_adj", whole, true, func(s *station) []part { return single(countText(int64(s.OOMScoreAdj))) }},
		{"group_add", elements, true, func(s *station) []part { return partsOf(s.GroupAdd, alone) }},
		{"tty", whole, true, func(s *station) []part { return yes(s.TTY) }},
		{"stdin_open", whole, true, func(s *station) []part { return yes(s.StdinOpen) }},
		{"init", whole, true, func(s *station) []part { return yes(s.Init) }},
		{"systemd", whole, true, func(s *station) []part { return yes(s.Systemd) }},
		{"read_only", whole, true, func(s *station) []part { return yes(s.ReadOnly) }},
		{"tmpfs", elements, true, func(s *station) []part {
			return partsOf(s.Tmpfs, func(t topology.Tmpfs) part { return part{word(t.Target), tmpfsText(t)} })
		}},
		{"files", secrets, true, func(s *station) []part {
			return partsOf(s.Files, func(f topology.File) part {
				return part{word(f.Target), fmt.Sprintf("%q %q %q %q %v %d %d %o", f.Source, f.Digest, f.Variable, f.Content, f.Secret, f.UID, f.GID, f.Mode)}
			})
		}},
		{"devices", elements, true, func(s *station) []part {
			return partsOf(s.Devices, func(d topology.Device) part {
				return part{word(d.Target), "from " + word(d.Source) + " " + word(d.Permissions)}
			})
		}},
		{"cap_add", elements, true, func(s *station) []part { return partsOf(s.CapAdd, alone) }},
		{"cap_drop", elements, true, func(s *station) []part { return partsOf(s.CapDrop, alone) }},
		{"privileged", whole, true, func(s *station) []part { return yes(s.Privileged) }},
		{"security_opt", elements, true, func(s *station) []part {
			all := nonEmpty(part{"seccomp", word(s.Security.Seccomp)}, part{"what the seccomp profile says", digest(s.Security.Profile)},
				part{"apparmor", word(s.Security.AppArmor)}, part{"label", word(s.Security.Label)})
			if s.Security.NewPrivileges {
				all = append(all, part{"no-new-privileges", "false"})
			}
			return all
		}},
		{"sysctls", elements, true, func(s *station) []part {
			return partsOf(s.Sysctls, func(c topology.Sysctl) part { return part{word(c.Name), word(c.Value)} })
		}},
		{"pid", whole, true, func(s *station) []part { return single(word(s.PID)) }},
		{"ipc", whole, true, func(s *station) []part { return single(word(s.IPC)) }},
	}
}

// digest stands for a long text, "" for none.
func digest(text string) string {
	if text == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

func resourceParts(r *topology.Resources) []part {
	cpus, swap := "", bytesText(r.MemSwapLimit)
	if r.CPUs != 0 {
		cpus = strconv.FormatFloat(r.CPUs, 'f', -1, 64)
	}
	all := []part{{"cpus", cpus}, {"cpu_shares", countText(r.CPUShares)}, {"cpuset", word(r.CPUSet)}, {"memswap_limit", swap},
		{"mem_reservation", bytesText(r.MemReservation)}, {"blkio weight", countText(int64(r.Blkio.Weight))}}
	for _, w := range r.Blkio.WeightDevice {
		all = append(all, part{"weight of " + word(w.Path), countText(int64(w.Weight))})
	}
	for _, k := range []struct {
		name  string
		rates []topology.BlkioRate
	}{{"device_read_bps", r.Blkio.DeviceReadBps}, {"device_read_iops", r.Blkio.DeviceReadIOps},
		{"device_write_bps", r.Blkio.DeviceWriteBps}, {"device_write_iops", r.Blkio.DeviceWriteIOps}} {
		for _, d := range k.rates {
			all = append(all, part{k.name + " of " + word(d.Path), countText(d.Rate)})
		}
	}
	return nonEmpty(all...)
}

// tmpfsText is what is said of a memory file system: "size=64m mode=1777".
func tmpfsText(t topology.Tmpfs) string {
	mode := ""
	if t.Mode != 0 {
		mode = strconv.FormatUint(uint64(t.Mode), 8)
	}
	var said []string
	for _, o := range []struct{ name, value string }{{"size=", bytesText(t.Size)}, {"mode=", mode},
		{"uid=", countText(int64(t.UID))}, {"gid=", countText(int64(t.GID))}, {"", word(t.Options)}} {
		if o.value != "" {
			said = append(said, o.name+o.value)
		}
	}
	return strings.Join(said, " ")
}

func volumeText(v topology.Volume) string {
	text := "from " + word(v.Source)
	switch {
	case v.Name != "" && v.Source == "":
		text = "volume " + word(v.Name)
	case v.Name != "":
		text += " volume " + word(v.Name)
	case v.Source == "":
		text = "anonymous volume"
	}
	if v.Subpath != "" {
		text += " subpath " + word(v.Subpath)
	}
	if v.ReadOnly {
		text += " read-only"
	}
	for _, o := range []struct {
		name string
		set  bool
	}{{"create_host_path", v.CreateHostPath}, {"nocopy", v.NoCopy}} {
		if o.set {
			text += " " + o.name
		}
	}
	for _, o := range []struct{ name, value string }{{"propagation", v.Propagation}, {"selinux", v.SELinux}} {
		if o.value != "" {
			text += " " + o.name + " " + word(o.value)
		}
	}
	return text
}
