package topology

import (
	"fmt"
	"strconv"
)

// shared prints what stations name: volumes, configs and secrets.
func (w *writer) shared(t *Topology) {
	if len(t.Volumes) > 0 {
		w.open(0, "volumes")
	}
	for _, v := range t.Volumes {
		w.open(1, scalarText(v.Key))
		w.text(2, "name", v.Name)
		w.flag(2, "external", v.External)
		w.someOf(2, "labels", pairsOf(v.Labels))
	}
	for _, secret := range []bool{false, true} {
		first, i := true, 0
		for _, s := range t.Stations() {
			for _, f := range s.Files {
				i++
				if f.Secret != secret {
					continue
				}
				if first {
					w.open(0, kindOf(f))
					first = false
				}
				w.open(1, fileName(i))
				switch {
				case f.Source != "":
					w.line(2, "file", scalarText(f.Source))
				case f.Variable != "":
					w.line(2, "environment", scalarText(f.Variable))
				default:
					w.line(2, "content", scalarText(f.Content))
				}
			}
		}
	}
}

func kindOf(f File) string {
	if f.Secret {
		return "secrets"
	}
	return "configs"
}

func fileName(i int) string { return fmt.Sprintf("file-%d", i) }

func (w *writer) flag(depth int, key string, set bool) {
	if set {
		w.line(depth, key, "true")
	}
}

// number prints a key that is left out when it is 0.
func (w *writer) number(depth int, key string, value int64) {
	if value != 0 {
		w.line(depth, key, strconv.FormatInt(value, 10))
	}
}

func (w *writer) process(depth int, s *Station) {
	w.someOf(depth, "group_add", s.GroupAdd)
	w.flag(depth, "tty", s.TTY)
	w.flag(depth, "stdin_open", s.StdinOpen)
	w.flag(depth, "init", s.Init)
	w.flag(depth, "read_only", s.ReadOnly)
	w.flag(depth, "systemd", s.Systemd)
}

func (w *writer) volumes(depth int, all []Volume) {
	if len(all) > 0 {
		w.open(depth, "volumes")
	}
	for _, v := range all {
		if v.Source != "" {
			w.line(depth+1, "- type", "bind")
			w.line(depth+2, "source", scalarText(v.Source))
		} else {
			w.line(depth+1, "- type", "volume")
			w.text(depth+2, "source", v.Name)
		}
		w.line(depth+2, "target", scalarText(v.Target))
		w.line(depth+2, "read_only", fmt.Sprint(v.ReadOnly))
		if v.Source != "" && (v.CreateHostPath || v.Propagation != "" || v.SELinux != "") {
			w.open(depth+2, "bind")
			w.flag(depth+3, "create_host_path", v.CreateHostPath)
			w.text(depth+3, "propagation", v.Propagation)
			w.text(depth+3, "selinux", v.SELinux)
		}
		if v.Source == "" && (v.NoCopy || v.Subpath != "" || v.SELinux != "") {
			w.open(depth+2, "volume")
			w.flag(depth+3, "nocopy", v.NoCopy)
			w.text(depth+3, "subpath", v.Subpath)
			w.text(depth+3, "selinux", v.SELinux)
		}
	}
}

func (w *writer) mounts(depth int, s *Station) {
	var all []string
	for _, t := range s.Tmpfs {
		text, sep := t.Target, ":"
		add := func(option string) { text, sep = text+sep+option, "," }
		if t.Size != 0 {
			add(fmt.Sprintf("size=%d", t.Size))
		}
		if t.Mode != 0 {
			add(fmt.Sprintf("mode=%o", t.Mode))
		}
		if t.UID != 0 {
			add(fmt.Sprintf("uid=%d", t.UID))
		}
		if t.GID != 0 {
			add(fmt.Sprintf("gid=%d", t.GID))
		}
		if t.Options != "" {
			add(t.Options)
		}
		all = append(all, text)
	}
	w.someOf(depth, "tmpfs", all)
	last := ""
	for _, f := range s.Files {
		w.files++
		if kind := kindOf(f); kind != last {
			w.open(depth, kind)
			last = kind
		}
		w.line(depth+1, "- source", scalarText(fileName(w.files)))
		w.line(depth+2, "target", scalarText(f.Target))
		w.number(depth+2, "uid", int64(f.UID))
		w.number(depth+2, "gid", int64(f.GID))
		w.line(depth+2, "mode", fmt.Sprintf("0%o", f.Mode))
	}
	if len(s.Devices) > 0 {
		w.open(depth, "devices")
	}
	for _, d := range s.Devices {
		w.line(depth+1, "- source", scalarText(d.Source))
		w.line(depth+2, "target", scalarText(d.Target))
		w.line(depth+2, "permissions", scalarText(d.Permissions))
	}
}

func (w *writer) security(depth int, s *Station) {
	w.someOf(depth, "cap_add", s.CapAdd)
	w.someOf(depth, "cap_drop", s.CapDrop)
	w.flag(depth, "privileged", s.Privileged)
	var options []string
	if s.Security.Seccomp != "" {
		options = append(options, "seccomp="+s.Security.Seccomp)
	}
	if s.Security.NewPrivileges {
		options = append(options, "no-new-privileges=false")
	}
	if s.Security.AppArmor != "" {
		options = append(options, "apparmor="+s.Security.AppArmor)
	}
	if s.Security.Label != "" {
		options = append(options, "label="+s.Security.Label)
	}
	w.someOf(depth, "security_opt", options)
	if len(s.Sysctls) > 0 {
		w.open(depth, "sysctls")
	}
	for _, c := range s.Sysctls {
		w.line(depth+1, scalarText(c.Name), scalarText(c.Value))
	}
}

func (w *writer) joined(depth int, s *Station) {
	if s.PID != "" {
		w.line(depth, "pid", scalarText("station:"+s.PID))
	}
	if s.IPC != "" {
		w.line(depth, "ipc", scalarText("station:"+s.IPC))
	}
}

func (w *writer) resources(depth int, s *Station) {
	r := &s.Resources
	if r.CPUs != 0 {
		w.line(depth, "cpus", strconv.FormatFloat(r.CPUs, 'f', -1, 64))
	}
	w.number(depth, "cpu_shares", r.CPUShares)
	w.text(depth, "cpuset", r.CPUSet)
	w.number(depth, "memswap_limit", r.MemSwapLimit)
	w.number(depth, "mem_reservation", r.MemReservation)
	w.number(depth, "shm_size", r.ShmSize)
	w.number(depth, "oom_score_adj", int64(s.OOMScoreAdj))
	if len(s.Ulimits) > 0 {
		w.open(depth, "ulimits")
	}
	for _, u := range s.Ulimits {
		w.line(depth+1, u.Name, fmt.Sprintf("{soft: %d, hard: %d}", u.Soft, u.Hard))
	}
	b := &r.Blkio
	rates := []struct {
		key string
		all []BlkioRate
	}{{"device_read_bps", b.DeviceReadBps}, {"device_read_iops", b.DeviceReadIOps},
		{"device_write_bps", b.DeviceWriteBps}, {"device_write_iops", b.DeviceWriteIOps}}
	some := b.Weight != 0 || len(b.WeightDevice) > 0
	for _, k := range rates {
		some = some || len(k.all) > 0
	}
	if !some {
		return
	}
	w.open(depth, "blkio_config")
	w.number(depth+1, "weight", int64(b.Weight))
	if len(b.WeightDevice) > 0 {
		w.open(depth+1, "weight_device")
	}
	for _, d := range b.WeightDevice {
		w.line(depth+2, "- path", scalarText(d.Path))
		w.line(depth+3, "weight", fmt.Sprint(d.Weight))
	}
	for _, k := range rates {
		if len(k.all) > 0 {
			w.open(depth+1, k.key)
		}
		for _, d := range k.all {
			w.line(depth+2, "- path", scalarText(d.Path))
			w.line(depth+3, "rate", fmt.Sprint(d.Rate))
		}
	}
}
