package topology

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// mostTries bounds how often what is refused is taken out: taking one thing
// out can make another one wrong.
const mostTries = 5

// spot is a place in one of the files.
type spot struct {
	file         string
	line, column int
}

// try loads the topology as check would, takes out the values that are
// refused, and lists them. What cannot be taken out is listed as well, so that
// check says nothing that import has not said.
func (c *composeFile) try(tree *yaml.Node) {
	for try := 1; ; try++ {
		l := &loader{file: c.path, keys: c.keys, opt: Options{Dir: c.opt.Dir}}
		if nameOfFolder(filepath.Base(c.opt.Dir)) == "" {
			l.opt.Name = "compose"
		}
		l.opt.ReadFile = func(string) ([]byte, error) { return nil, nil }
		l.opt.LookupEnv = func(name string) (string, bool) { return "/root", name == "HOME" }
		e := expander{loader: l, open: map[*yaml.Node]bool{}, files: c.names, from: map[*node]*yaml.Node{}}
		l.root = e.top(tree)
		l.resolve()
		r := refusal{composeFile: c, at: map[spot]Problems{}, bad: map[*yaml.Node]bool{},
			closing: map[*yaml.Node]bool{}, cycles: map[spot]bool{}}
		for _, p := range l.problems {
			at := spot{p.File, p.Line, p.Column}
			r.at[at] = append(r.at[at], p)
		}
		for n, y := range e.from {
			if n.bad {
				r.bad[y] = true
			}
			if at, closes := l.closing[n]; closes {
				r.closing[y], r.cycles[spot{cmp.Or(at.file, l.file), at.line, at.column}] = true, true
			}
		}
		if try < mostTries {
			r.remove(tree, nil)
		}
		if !r.removed {
			r.tellRest(tree)
			return
		}
	}
}

// refusal is what one try has found.
type refusal struct {
	*composeFile
	at  map[spot]Problems
	bad map[*yaml.Node]bool
	// closing are the dependencies that close a cycle. Others, of services that
	// are extended, may stand at the same place.
	closing map[*yaml.Node]bool
	cycles  map[spot]bool
	removed bool
}

// spotOf is a node's place.
func (r *refusal) spotOf(n *yaml.Node) spot { return spot{r.names[fileOf(n)], n.Line, columnOf(n)} }

// problemAt is what is wrong at a node's place, the first of several.
func (r *refusal) problemAt(n *yaml.Node) (p Problem, ok bool) {
	all := r.at[r.spotOf(n)]
	if len(all) == 0 {
		return p, false
	}
	return all[0], true
}

// remove takes the refused out of a mapping or list; path are the keys that
// lead to it.
func (r *refusal) remove(n *yaml.Node, path []string) {
	var kept []*yaml.Node
	step := 1
	if n.Kind == yaml.MappingNode {
		step = 2
	}
	for i := 0; i+step <= len(n.Content); i += step {
		key, value := (*yaml.Node)(nil), n.Content[i+step-1]
		name := "[" + strconv.Itoa(i) + "]"
		if step == 2 {
			key = n.Content[i]
			name = key.Value
		}
		inner := append(slices.Clone(path), name)
		if p, refused := r.refused(key, value, inner); refused {
			r.removed = true
			r.tell(key, value, inner, p)
			continue
		}
		before := len(value.Content)
		r.remove(value, inner)
		if before > 0 && len(value.Content) == 0 && (len(inner) == 1 || len(inner) == 5 && inner[2] == "stations") {
			continue // a key without anything left
		}
		kept = append(kept, n.Content[i:i+step]...)
	}
	n.Content = kept
}

// refused tells whether a value is to go. Clusters and stations stay, so do
// builds, and what a variable can make right.
func (r *refusal) refused(key, value *yaml.Node, path []string) (Problem, bool) {
	switch {
	case path[0] == "backbone", path[0] == "clusters" && (len(path) < 3 || path[2] == "stations" && len(path) < 5):
		return Problem{}, false
	case pending(path), variable(value):
		return Problem{}, false
	}
	if kind := child(value, "type"); key == nil && kind != nil && !variable(kind) {
		// An entry is nothing without it.
		if p, here := r.problemAt(kind); here && r.bad[kind] {
			return p, true
		}
	}
	p, here := r.problemAt(value)
	if here && r.another(r.spotOf(value), value) {
		here = false
	}
	if r.bad[value] || here && value.Kind == yaml.ScalarNode {
		return p, true
	}
	if key != nil && !r.bad[key] {
		// The place of a key is also that of the mapping that it begins, which
		// has been asked about before.
		if p, here := r.problemAt(key); here && !r.another(r.spotOf(key), value) && (value.Line != key.Line || value.Column != key.Column) {
			return p, true
		}
	}
	return Problem{}, false
}

// another tells whether a place's problem is a cycle that another entry closes,
// which stands there too.
func (r *refusal) another(at spot, value *yaml.Node) bool { return r.cycles[at] && !r.closing[value] }

// pending tells whether a value waits for a later version, or for a variable
// that is set when the topology is loaded.
func pending(path []string) bool {
	if len(path) == 5 && path[2] == "stations" && path[4] == "build" {
		return true
	}
	return len(path) == 3 && (path[0] == "configs" || path[0] == "secrets") && path[2] == "environment"
}

func variable(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && strings.Contains(strings.ReplaceAll(n.Value, "$$", ""), "$")
}

// tell lists something that was taken out.
func (r *refusal) tell(key, value *yaml.Node, path []string, p Problem) {
	at := key
	if key == nil {
		at = value
	}
	what, in := path[len(path)-1], ""
	for _, name := range path[:len(path)-1] {
		if !strings.HasPrefix(name, "[") {
			in = " of " + name
		}
	}
	switch {
	case key == nil && value.Kind == yaml.ScalarNode:
		what = quoted(value.Value) + in
	case key == nil:
		what = "an entry" + in
	case len(path) > 5:
		what += in
	}
	reason := p.Message
	if reason == "" {
		reason = "it is not taken here"
	}
	if what = r.whose(path) + ": " + what; len(path) == 2 {
		what = r.whose(path)
	}
	r.problem(at, fmt.Sprintf("%s is left out: %s", what, reason), p.Hint)
}

// whose names what a path leads into as the compose file does.
func (r *refusal) whose(path []string) string {
	switch {
	case path[0] != "clusters":
		if len(path) > 1 {
			return strings.TrimSuffix(path[0], "s") + " " + path[1]
		}
	case len(path) > 3 && path[2] == "stations":
		for _, s := range r.services {
			if s.as == path[3] {
				return "service " + s.name
			}
		}
	case len(path) > 1:
		for _, n := range r.networks {
			if n.as == path[1] {
				return "network " + n.name
			}
		}
	}
	return "the file"
}

// tellRest lists what check refuses and nobody has taken out.
func (r *refusal) tellRest(tree *yaml.Node) {
	waiting, builds := map[spot]bool{}, map[spot]bool{}
	var walk func(n *yaml.Node, path []string)
	walk = func(n *yaml.Node, path []string) {
		step := 1
		if n.Kind == yaml.MappingNode {
			step = 2
		}
		for i := 0; i+step <= len(n.Content); i += step {
			value := n.Content[i+step-1]
			inner := append(slices.Clone(path), n.Content[i].Value)
			if pending(inner) {
				builds[r.spotOf(n.Content[i])] = true
			}
			waiting[r.spotOf(value)] = pending(inner) || variable(value)
			walk(value, inner)
		}
	}
	walk(tree, nil)
	for at, problems := range r.at {
		for _, p := range problems {
			unset := strings.HasPrefix(p.Message, "variable ") && waiting[at]
			if !unset && !(builds[at] && strings.Contains(p.Message, " is not available in this version")) {
				r.left = append(r.left, Problem{p.File, p.Line, p.Column, "check refuses what is written: " + p.Message, p.Hint})
			}
		}
	}
}
