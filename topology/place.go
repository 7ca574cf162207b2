package topology

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// source is the file as Load read it, for what is found wrong later.
type source struct {
	file     string
	root     *node
	stations map[string]*stationDraft // by id
}

// Place tells as FILE:LINE:COLUMN where a station's key stands, or the element
// of it that value names: a path, a name. What is not found is the next larger
// thing that is; a Topology that is not from Load knows no places, "".
func (t *Topology) Place(station, key, value string) string {
	if t.source == nil {
		return ""
	}
	s := t.source.stations[station]
	if s == nil {
		return t.source.text(position{line: 1, column: 1})
	}
	n := s.body.get(key)
	if n == nil {
		limits := s.body.get("deploy").get("resources").get("limits")
		n = limits.get(map[string]string{"cpus": "cpus", "mem_limit": "memory", "pids_limit": "pids"}[key])
	}
	if n == nil {
		return t.source.text(s.at)
	}
	if found := n.element(value); found != nil {
		n = found
	}
	return t.source.text(n.position)
}

// PlaceOf does the same for a volume, config or secret of the top level; kind
// is the key that it stands below.
func (t *Topology) PlaceOf(kind, name string) string {
	if t.source == nil {
		return ""
	}
	for _, p := range t.source.root.get(kind).all() {
		if p.key == name {
			return t.source.text(p.at)
		}
	}
	return t.source.text(position{line: 1, column: 1})
}

// File is the absolute path of the file; "" where the Topology is not from Load.
func (t *Topology) File() string {
	if t.source == nil {
		return ""
	}
	return filepath.Join(t.Dir, filepath.Base(t.source.file))
}

func (s *source) text(at position) string {
	file := s.file
	if at.file != "" {
		file = at.file
	}
	return fmt.Sprintf("%s:%d:%d", file, at.line, at.column)
}

// element finds what names value: one of A:B:C or of a mapping's values, or the
// value of a key.
func (n *node) element(value string) *node {
	if value == "" {
		return nil
	}
	for i := range n.pairs {
		if n.pairs[i].key == value {
			return n.pairs[i].val
		}
	}
	for _, item := range n.items {
		name := path.Base(value) // of a config or secret, whose target may be left out
		if item.text == name || slices.Contains(strings.FieldsFunc(item.text, func(r rune) bool { return r == ':' || r == '=' }), value) {
			return item
		}
		for _, p := range item.pairs {
			if p.val.text == value || p.key == "target" && p.val.text == name {
				return item
			}
		}
	}
	for _, p := range n.pairs { // lists below, as in blkio_config
		if found := p.val.element(value); found != nil {
			return found
		}
	}
	return nil
}
