package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// reuse replaces the file's tree by one in which include, templates, extends
// and defaults have done their work.
func (l *loader) reuse() {
	if l.root.kind != mapping {
		return
	}
	r := reuser{loader: l, done: map[*node]*node{}, files: map[string]*node{}, bases: map[*node]*bases{}}
	r.assemble(l.root, l.opt.Dir, nil)
	strip(l.root, map[*node]bool{})
}

type reuser struct {
	*loader
	done   map[*node]*node  // station bodies and templates with what they extend
	files  map[string]*node // of extends, by path
	bases  map[*node]*bases // by file
	values int              // that merging made
}

// bases are what a file's stations can extend, by name: templates before
// stations, which are services in a compose file.
type bases struct {
	templates, stations map[string][]*node
	names               []string
}

func (r *reuser) basesOf(root *node) *bases {
	if b, ok := r.bases[root]; ok {
		return b
	}
	b := &bases{templates: map[string][]*node{}, stations: map[string][]*node{}}
	look := func(into map[string][]*node, table *node, prefix string) {
		for _, p := range table.all() {
			b.names = append(b.names, p.key)
			into[p.key] = append(into[p.key], p.val)
			if prefix != "" {
				into[prefix+"/"+p.key] = append(into[prefix+"/"+p.key], p.val)
			}
		}
	}
	look(b.templates, root.get("templates"), "")
	look(b.stations, root.get("services"), "")
	for _, c := range root.get("clusters").all() {
		look(b.stations, c.val.get("stations"), c.key)
	}
	r.bases[root] = b
	return b
}

// assemble works on the tree of one file. Stations of included files come
// complete and get none of this file's defaults.
func (r *reuser) assemble(root *node, dir string, open []string) {
	var included []*node
	if n := root.get("include"); n != nil {
		for _, item := range n.asList().items {
			included = append(included, r.include(item, dir, open)...)
		}
	}
	for _, other := range included {
		r.adopt(root, other, "templates")
	}
	defaults := root.get("defaults")
	if defaults != nil && defaults.kind != mapping {
		defaults = nil
	}
	for _, c := range root.get("clusters").all() {
		stations := c.val.get("stations")
		for i := range stations.all() {
			p := &stations.pairs[i]
			body := r.extended(p.val, root, nil)
			if defaults != nil {
				body = r.put(defaults, body)
			}
			p.val = body
		}
	}
	for _, other := range included {
		r.adopt(root, other, "")
	}
}

// put merges a station's body over another's.
func (r *reuser) put(base, over *node) *node {
	if over.bad || r.values > maxNodes {
		return over
	}
	if over.kind == null {
		empty := *over
		empty.kind = mapping
		over = &empty
	}
	if over.kind != mapping || base.kind != mapping {
		return over
	}
	if r.values += base.count(maxNodes) + over.count(maxNodes); r.values > maxNodes {
		r.report(over.position, fmt.Sprintf("the file has more than %d values once its templates and defaults are merged", maxNodes),
			"keep what stations share small")
		return over
	}
	return merge(base, over, "")
}

// extended returns a station's body with what it extends below it.
func (r *reuser) extended(body, root *node, open []*node) *node {
	if out, ok := r.done[body]; ok {
		return out
	}
	n := body.get("extends")
	if n == nil || body.kind != mapping {
		return body
	}
	if slices.Contains(open, body) || len(open) > maxDepth {
		r.spoil(n, "extends leads back to itself", "a template cannot extend what extends it")
		return body
	}
	name, file := n, (*node)(nil)
	if n.kind == mapping {
		name, file = n.get("service"), n.get("file")
		if name == nil {
			name = n.get("template")
		}
	}
	if name == nil && !n.bad && !n.spoiled("service", "template") {
		r.spoil(n, "extends names nothing", "write extends: NAME, or {service: NAME, file: ./FILE}")
	}
	if name == nil || name.kind != scalar || name.pending != nil {
		return body // told when the form is checked
	}
	if file != nil {
		if root = r.extendedFile(file); root == nil {
			return body
		}
	}
	base := r.findBase(root, name)
	if base == nil {
		return body
	}
	base = r.extended(base, root, append(open, body))
	out := r.put(withoutExtends(base), body)
	r.done[body] = out
	return out
}

// withoutExtends leaves out what is not handed on.
func withoutExtends(n *node) *node {
	out := *n
	out.pairs = slices.DeleteFunc(slices.Clone(n.pairs), func(p pair) bool { return p.key == "extends" })
	return &out
}

// findBase finds a template, or otherwise a station, by its name.
func (r *reuser) findBase(root, name *node) *node {
	bases := r.basesOf(root)
	found := bases.templates[name.text]
	if len(found) == 0 {
		found = bases.stations[name.text]
	}
	names := bases.names
	switch {
	case len(found) == 1:
		return found[0]
	case len(found) > 1:
		r.spoil(name, fmt.Sprintf("%s is ambiguous", quoted(name.text)), "write CLUSTER/STATION")
		return nil
	}
	hint := nearestHint(name.text, names, "add it: templates: {"+name.text+": {...}}")
	r.spoil(name, fmt.Sprintf("there is no template or station %s", quoted(name.text)), hint)
	return nil
}

func (r *reuser) extendedFile(n *node) *node {
	if n.kind != scalar || n.pending != nil {
		return nil
	}
	path, ok := r.machinePath(n, n.text)
	if !ok {
		return nil
	}
	root, known := r.files[path]
	if !known {
		root = r.open(n, path, filepath.Dir(path))
		r.files[path] = root
	}
	return root
}

// open reads and parses a further file. Its relative paths start at dir.
func (r *reuser) open(at *node, path, dir string) *node {
	data, err := r.read(path)
	if err != nil {
		hint := "check the path; a relative one starts at the folder of the file that names it"
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("there is no such file")
		}
		r.spoil(at, fmt.Sprintf("cannot read %s: %v", quoted(path), err), hint)
		return nil
	}
	shown := path
	if rel, err := filepath.Rel(r.opt.Dir, path); err == nil {
		shown = filepath.Join(filepath.Dir(r.file), rel)
	}
	if r.folders == nil {
		r.folders = map[string]string{}
	}
	r.folders[shown] = dir
	before := r.included
	r.included = shown
	defer func() { r.included = before }()
	problems := len(r.problems)
	root := r.parse(data)
	for i := problems; i < len(r.problems); i++ {
		if r.problems[i].File == r.file { // of the file as a whole
			r.problems[i].File = shown
		}
	}
	if root != nil && root.kind != mapping {
		r.spoil(root, "an included file is a mapping with clusters", "write it like a topology file")
		return nil
	}
	return root
}

// include reads what one entry names, each file complete.
func (r *reuser) include(n *node, dir string, open []string) (roots []*node) {
	paths, base, lookup := n, (*node)(nil), r.opt.LookupEnv
	if n.kind == mapping {
		if paths, base = n.get("path"), n.get("project_directory"); paths == nil {
			return nil
		}
	}
	if paths.kind == null || paths.kind == mapping {
		return nil
	}
	env := map[string]string{}
	for _, f := range n.get("env_file").good() {
		if f.kind != scalar || f.pending != nil {
			continue
		}
		path, ok := r.machinePath(f, f.text)
		if !ok {
			continue
		}
		data, err := r.read(path)
		if err == nil {
			var more map[string]string
			if more, err = parseEnv(data, lookup, true); err == nil {
				for name, value := range more {
					env[name] = value
				}
			}
		}
		if err != nil {
			r.spoil(f, fmt.Sprintf("cannot read env_file %s: %v", path, err), "check the path and its lines, NAME=value")
		}
	}
	if len(env) > 0 {
		r.opt.LookupEnv = func(name string) (string, bool) {
			if lookup != nil {
				if v, ok := lookup(name); ok {
					return v, true
				}
			}
			v, ok := env[name]
			return v, ok
		}
		defer func() { r.opt.LookupEnv = lookup }()
	}
	for _, item := range paths.good() {
		if item.kind != scalar || item.pending != nil || item.text == "" {
			continue
		}
		path, ok := r.machinePath(item, item.text)
		if !ok {
			continue
		}
		if slices.Contains(open, path) || len(open) > maxDepth || filepath.Dir(path) == r.opt.Dir && filepath.Base(path) == filepath.Base(r.file) {
			r.spoil(item, fmt.Sprintf("include of %s leads back to itself", quoted(item.text)), "a file cannot include what includes it")
			continue
		}
		folder := filepath.Dir(path)
		if base != nil && base.kind == scalar && base.pending == nil {
			folder, _ = r.machinePath(base, base.text)
		}
		if root := r.open(item, path, folder); root != nil {
			r.assemble(root, folder, append(open, path))
			roots = append(roots, root)
		}
	}
	return roots
}

// adopt takes an included file's parts into the tree of the including one:
// those below only, or with "" everything but templates.
func (r *reuser) adopt(root, other *node, only string) {
	for _, p := range other.pairs {
		switch {
		case only != "" && p.key != only || only == "" && p.key == "templates":
		case slices.Contains([]string{"name", "defaults", "include"}, p.key) || strings.HasPrefix(p.key, "x-"):
		case p.key == "clusters":
			r.adoptTable(root, p, func(mine, theirs *node) {
				for _, q := range theirs.all() {
					if q.key == "stations" && mine.kind == mapping {
						r.adoptTable(mine, q, nil)
					} else {
						r.adoptPair(mine, q)
					}
				}
			})
		case slices.Contains([]string{"volumes", "configs", "secrets", "templates"}, p.key):
			r.adoptTable(root, p, nil)
		case p.key == "links" && root.get("links") != nil && root.get("links").kind == sequence && p.val.kind == sequence:
			mine := root.get("links")
			mine.items = append(slices.Clone(mine.items), p.val.items...)
		default:
			r.adoptPair(root, p)
		}
	}
}

// adoptTable takes over the names of a table; both is asked about those on
// both sides, which without it are a problem.
func (r *reuser) adoptTable(root *node, p pair, both func(mine, theirs *node)) {
	i := slices.IndexFunc(root.pairs, func(q pair) bool { return q.key == p.key })
	if i < 0 || root.pairs[i].val.kind == null {
		r.adoptPair(root, p)
		return
	}
	mine := root.pairs[i].val
	have := make(map[string]*node, len(mine.pairs))
	for _, q := range mine.pairs {
		have[q.key] = q.val
	}
	for _, q := range p.val.all() {
		switch known := have[q.key]; {
		case known == nil:
			mine.pairs = append(mine.pairs, q)
		case both != nil:
			both(known, q.val)
		default:
			r.adoptPair(mine, q)
		}
	}
}

func (r *reuser) adoptPair(root *node, p pair) {
	for i, q := range root.pairs {
		switch {
		case q.key != p.key:
		case q.val.kind == null:
			root.pairs[i] = p
			return
		case q.val == p.val:
			return
		default:
			where := q.at.file
			if where == "" {
				where = r.file
			}
			r.report(p.at, fmt.Sprintf("%s is set in two files", quoted(p.key)), fmt.Sprintf("it also stands in %s:%d: keep one", where, q.at.line))
			return
		}
	}
	root.pairs = append(root.pairs, p)
}

// folderOf is where a relative path of a node starts.
func (l *loader) folderOf(n *node) string {
	if folder, ok := l.folders[n.file]; ok && n.file != "" {
		return folder
	}
	return l.opt.Dir
}
