package topology

import (
	"fmt"
	"strings"
)

// volumes reads a station's volumes in both syntaxes.
func (l *loader) volumes(s *stationDraft) {
	seen := map[string]bool{}
	for _, n := range s.body.get("volumes").good() {
		var v Volume
		var ok bool
		if n.kind == mapping {
			v, ok = l.longVolume(n)
		} else {
			v, ok = l.shortVolume(n)
		}
		if !ok {
			continue
		}
		if seen[v.Target] {
			l.spoil(n, fmt.Sprintf("a second volume at %s", v.Target), "remove one")
			continue
		}
		seen[v.Target] = true
		s.out.Volumes = append(s.out.Volumes, v)
	}
}

// shortVolume reads SOURCE:TARGET[:ro|rw].
func (l *loader) shortVolume(n *node) (v Volume, ok bool) {
	parts := strings.Split(n.text, ":")
	if len(parts) < 2 || len(parts) > 3 {
		l.spoil(n, fmt.Sprintf("%s is not a volume", quoted(n.text)), "write ./SOURCE:/TARGET or ./SOURCE:/TARGET:ro")
		return v, false
	}
	if len(parts) == 3 {
		switch parts[2] {
		case "ro":
			v.ReadOnly = true
		case "rw":
		default:
			l.spoil(n, fmt.Sprintf("volume option %s is not available in this version", quoted(parts[2])), "write ro or rw")
			return v, false
		}
	}
	return l.bind(n, v, parts[0], &node{position: n.position, text: parts[1]})
}

func (l *loader) longVolume(n *node) (v Volume, ok bool) {
	kind, source, target := n.get("type"), n.get("source"), n.get("target")
	if kind == nil || source == nil || target == nil {
		return v, false
	}
	if kind.text != "bind" {
		l.spoil(kind, fmt.Sprintf("type cannot be %s", quoted(kind.text)), "only bind is available in this version; use a folder for a named volume")
		return v, false
	}
	if r := n.get("read_only"); r != nil {
		v.ReadOnly = strings.EqualFold(r.text, "true")
	}
	return l.bind(source, v, source.text, target)
}

func (l *loader) bind(n *node, v Volume, source string, target *node) (Volume, bool) {
	if source == "" || !strings.ContainsAny(source[:1], "/.~") {
		l.spoil(n, fmt.Sprintf("%s is a named volume, which this version does not have", quoted(source)),
			fmt.Sprintf("for a folder beside the file write ./%s", source))
		return v, false
	}
	var ok, fine bool
	v.Source, ok = l.machinePath(n, source)
	v.Target, fine = l.absolute(target)
	if fine && v.Target == "/" {
		l.spoil(target, "a volume cannot be the station's whole root", "use rootfs: FOLDER")
		fine = false
	}
	return v, ok && fine
}
