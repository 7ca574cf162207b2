package topology

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,126}$`)

// namedVolumes reads the volumes that stations share by name.
func (l *loader) namedVolumes() []NamedVolume {
	var out []NamedVolume
	for _, p := range l.root.get("volumes").all() {
		if !volumeName.MatchString(p.key) {
			l.report(p.at, fmt.Sprintf("%s is not a volume's name", quoted(p.key)), "it starts with a letter or digit and has letters, digits, _, . and -")
			continue
		}
		v := NamedVolume{Key: p.key}
		if n := p.val.get("name"); n != nil {
			if v.Name = n.text; !volumeName.MatchString(n.text) {
				l.spoil(n, fmt.Sprintf("%s is not a volume's name", quoted(n.text)), "it starts with a letter or digit and has letters, digits, _, . and -")
			}
		}
		if d := p.val.get("driver"); d != nil && d.text != "local" {
			l.spoil(d, fmt.Sprintf("volume driver %s is not available", quoted(d.text)), "a volume is a folder of this machine: remove driver")
		}
		v.External = p.val.get("external").isTrue()
		v.Labels = l.labels(p.val.get("labels"))
		out = append(out, v)
	}
	return out
}

// volumes reads a station's volumes in both syntaxes.
func (l *loader) volumes(s *stationDraft) {
	for _, n := range s.body.get("volumes").good() {
		if n.kind == mapping {
			if kind := n.get("type"); kind != nil && kind.text == "tmpfs" {
				l.longTmpfs(s, n)
				continue
			}
		}
		var v Volume
		var ok bool
		if n.kind == mapping {
			v, ok = l.longVolume(n)
		} else {
			v, ok = l.shortVolume(n)
		}
		if ok && l.claimTarget(s, n, v.Target) {
			s.out.Volumes = append(s.out.Volumes, v)
		}
	}
}

// claimTarget reports two things mounted at one place.
func (l *loader) claimTarget(s *stationDraft, n *node, target string) bool {
	if s.targets[target] {
		l.spoil(n, fmt.Sprintf("a second volume at %s", target), "remove one")
		return false
	}
	if s.targets == nil {
		s.targets = map[string]bool{}
	}
	s.targets[target] = true
	return true
}

// shortVolume reads TARGET or SOURCE:TARGET[:OPTION,...].
func (l *loader) shortVolume(n *node) (v Volume, ok bool) {
	parts := strings.Split(n.text, ":")
	if len(parts) > 3 || len(parts) == 1 && !strings.HasPrefix(n.text, "/") {
		l.spoil(n, fmt.Sprintf("%s is not a volume", quoted(n.text)), "write ./SOURCE:/TARGET or ./SOURCE:/TARGET:ro")
		return v, false
	}
	if len(parts) == 1 {
		v.Target, ok = l.volumeTarget(n)
		return v, ok
	}
	if len(parts) == 3 {
		for option := range strings.SplitSeq(parts[2], ",") {
			switch option {
			case "ro":
				v.ReadOnly = true
			case "rw":
			case "z", "Z":
				v.SELinux = option
			case "nocopy", "volume-nocopy":
				v.NoCopy = true
			case "cached", "delegated", "consistent":
				l.spoil(n, fmt.Sprintf("volume option %s has no effect on Linux", option), "remove it")
				return v, false
			default:
				if !slices.Contains(propagations(), option) {
					l.spoil(n, fmt.Sprintf("there is no volume option %s", quoted(option)), "ro, rw, z, Z, nocopy, "+orList(propagations()))
					return v, false
				}
				v.Propagation = propagation(option)
			}
		}
	}
	return l.mount(n, v, parts[0], &node{position: n.position, text: parts[1]})
}

func propagations() []string {
	return []string{"rprivate", "private", "rshared", "shared", "rslave", "slave"}
}

// propagation leaves out the default.
func propagation(s string) string {
	if s == "rprivate" {
		return ""
	}
	return s
}

func (l *loader) longVolume(n *node) (v Volume, ok bool) {
	kind, source, target := n.get("type"), n.get("source"), n.get("target")
	if kind == nil || target == nil || n.spoiled("source") {
		return v, false
	}
	v.ReadOnly = n.get("read_only").isTrue()
	unfit := func(key, wanted string) bool {
		if o := n.get(key); o != nil && kind.text != wanted {
			l.spoil(o, fmt.Sprintf("%s is set and the type is %s", key, kind.text), "it is for type: "+wanted)
			return true
		}
		return false
	}
	if unfit("bind", "bind") || unfit("volume", "volume") || unfit("tmpfs", "tmpfs") {
		return v, false
	}
	if kind.text == "bind" {
		if source == nil {
			l.spoil(n, "source is missing", "a bind has a file or folder of the machine: source: ./FOLDER")
			return v, false
		}
		b := n.get("bind")
		v.CreateHostPath = b.get("create_host_path").isTrue()
		if p := b.get("propagation"); p != nil {
			v.Propagation = propagation(p.text)
		}
		if p := b.get("selinux"); p != nil {
			v.SELinux = p.text
		}
		if source.text == "" {
			l.spoil(source, "the source is empty", "write a path")
			return v, false
		}
		v.Source, ok = l.machinePath(source, source.text)
	} else {
		o := n.get("volume")
		v.NoCopy, ok = o.get("nocopy").isTrue(), true
		if p := o.get("selinux"); p != nil {
			v.SELinux = p.text
		}
		if p := o.get("subpath"); p != nil {
			if v.Subpath = p.text; !filepath.IsLocal(p.text) || filepath.Clean(p.text) != p.text || p.text == "." {
				l.spoil(p, fmt.Sprintf("%s is not a path below the volume", quoted(p.text)), "write it without /, . and .. at its start: data/main")
				return v, false
			}
		}
		if source != nil {
			v.Name, ok = l.volumeRef(source, source.text)
		} else if v.Subpath != "" {
			l.spoil(o, "subpath is set for a volume without a name", "a new volume has no folders: add source: NAME")
			return v, false
		}
	}
	var fine bool
	v.Target, fine = l.volumeTarget(target)
	return v, ok && fine
}

// mount tells a bind from a named volume by the source's first character, as
// compose does.
func (l *loader) mount(n *node, v Volume, source string, target *node) (Volume, bool) {
	var ok, fine bool
	if source == "" || !strings.ContainsAny(source[:1], "/.~") {
		if v.Name, ok = l.volumeRef(n, source); v.Propagation != "" && ok {
			l.spoil(n, "a named volume has no propagation", "remove "+v.Propagation)
			return v, false
		}
	} else {
		if v.Source, ok = l.machinePath(n, source); v.NoCopy && ok {
			l.spoil(n, "nocopy is for named volumes", "remove it: nothing is ever copied into a bind")
			return v, false
		}
	}
	v.Target, fine = l.volumeTarget(target)
	return v, ok && fine
}

// volumeRef reads the name of a volume of the topology.
func (l *loader) volumeRef(n *node, name string) (string, bool) {
	if _, known := l.named["volumes"][name]; known {
		return name, true
	}
	if l.root.spoiled("volumes") {
		return "", false
	}
	hint := nearestHint(name, slices.Sorted(maps.Keys(l.named["volumes"])), fmt.Sprintf("for a folder beside the file write ./%s; a named volume stands at the top too: volumes: {%s: }", name, name))
	l.spoil(n, fmt.Sprintf("there is no volume %s", quoted(name)), hint)
	return "", false
}

func (l *loader) volumeTarget(target *node) (string, bool) {
	p, fine := l.absolute(target)
	if fine && p == "/" {
		l.spoil(target, "a volume cannot be the station's whole root", "use rootfs: FOLDER")
		return "", false
	}
	if fine && !mountable(p) {
		l.spoil(target, fmt.Sprintf("nothing can be mounted at %s", p), "the kernel's own files are there; write another path")
		return "", false
	}
	return p, fine
}

// mountable tells whether a place is not the engine's own, in whatever root.
func mountable(p string) bool {
	switch p {
	case "/dev", "/dev/pts", "/proc", "/sys":
		return false
	}
	return !strings.HasPrefix(p, "/proc/") && !strings.HasPrefix(p, "/sys/") && !strings.HasPrefix(p, "/dev/pts/")
}
