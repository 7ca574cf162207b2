package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// open reads a further compose file; nil after reporting why it cannot.
func (c *composeFile) open(at *yaml.Node, path string) *yaml.Node {
	if tree, known := c.files[path]; known {
		return tree
	}
	c.files[path] = nil
	fail := func(why string) *yaml.Node {
		c.problem(at, fmt.Sprintf("%s is left out: %s", quoted(textIn(at)), why), "check the path, or import that file by itself")
		return nil
	}
	if c.opt.ReadFile == nil || len(c.files) > maxFiles {
		return fail("it is not read")
	}
	data, err := c.opt.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail("there is no such file")
	case err != nil:
		return fail(err.Error())
	case len(data) > maxBytes:
		return fail("it is larger than 4 MiB")
	}
	doc, _, err := decodeYAML(data)
	if err != nil {
		where, message := yamlError(err)
		return fail(fmt.Sprintf("line %d: %s", where.line, message))
	}
	if doc == nil || len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return fail("it is not a compose file")
	}
	shown := path
	if rel, err := filepath.Rel(c.dir, path); err == nil {
		shown = filepath.Join(filepath.Dir(c.path), rel)
	}
	c.names = append(c.names, shown)
	c.plain.file = len(c.names) - 1
	defer func() { c.plain.file = 0 }()
	c.files[path] = c.plain.copy(doc.Content[0], 0)
	return c.files[path]
}

// pathOf is an absolute path that a compose file of a folder names; "" where
// it depends on a variable, which is reported.
func (c *composeFile) pathOf(n *yaml.Node, dir string) string {
	text := textIn(n)
	switch {
	case text == "":
		return ""
	case strings.Contains(text, "$"), strings.Contains(text, "://"), strings.HasPrefix(text, "~"):
		c.problem(n, fmt.Sprintf("%s is left out", quoted(text)), "only the path of a file is followed: import that file by itself")
		return ""
	case filepath.IsAbs(text):
		return filepath.Clean(text)
	}
	return filepath.Join(dir, text)
}

// serviceOf finds a service of a file by its name; nil where there is none.
func (c *composeFile) serviceOf(services *yaml.Node, name string) (key, body *yaml.Node) {
	index, known := c.index[services]
	if !known {
		index = map[string][2]*yaml.Node{}
		for k, v := range entries(services) {
			index[k.Value] = [2]*yaml.Node{k, v}
		}
		c.index[services] = index
	}
	found := index[name]
	return found[0], found[1]
}

// extended returns a service with what it extends written out.
func (c *composeFile) extended(key, body, services *yaml.Node, dir string, open []*yaml.Node) *yaml.Node {
	ext := child(body, "extends")
	if ext == nil {
		return body
	}
	whose := "service " + key.Value
	if slices.Contains(open, body) || len(open) > maxDepth {
		c.problem(ext, whose+": extends is left out", "it leads back to itself")
		return without(body, "extends")
	}
	name, from, folder := ext, services, dir
	if ext.Kind == yaml.MappingNode {
		name = child(ext, "service")
		if file := child(ext, "file"); file != nil {
			path := c.pathOf(file, dir)
			if path == "" {
				return without(body, "extends")
			}
			root := c.open(file, path)
			if root == nil {
				return without(body, "extends")
			}
			from, folder = child(root, "services"), filepath.Dir(path)
		}
	}
	if k, v := c.serviceOf(from, textIn(name)); v != nil {
		base := c.extended(k, v, from, folder, append(open, body))
		if base = c.plain.copy(base, 0); base == nil {
			return without(body, "extends")
		}
		c.move(base, folder, dir)
		return mergeTrees(without(base, "extends"), without(body, "extends"), "")
	}
	c.problem(ext, whose+": extends is left out", fmt.Sprintf("there is no service %s", quoted(textIn(name))))
	return without(body, "extends")
}

// includeAll takes what a file includes into it.
func (c *composeFile) includeAll(root *yaml.Node, dir string, open []string) {
	for _, item := range items(child(root, "include")) {
		paths, folder := item, ""
		if item.Kind == yaml.MappingNode {
			paths = child(item, "path")
			for key, value := range entries(item) {
				switch key.Value {
				case "path":
				case "project_directory":
					folder = c.pathOf(value, dir)
				default:
					c.leftOut(key, "include", key.Value, "put its variables into .env beside the topology")
				}
			}
		}
		for _, n := range items(paths) {
			path := c.pathOf(n, dir)
			if path == "" {
				continue
			}
			if slices.Contains(open, path) || len(open) > maxDepth || path == filepath.Join(c.dir, filepath.Base(c.path)) {
				c.problem(n, fmt.Sprintf("include of %s is left out", quoted(textIn(n))), "it leads back to itself")
				continue
			}
			other := c.open(n, path)
			if other == nil {
				continue
			}
			if other = c.plain.copy(other, 0); other == nil {
				continue
			}
			from := folder
			if from == "" {
				from = filepath.Dir(path)
			}
			c.includeAll(other, from, append(open, path))
			c.adopt(root, other, from, dir)
		}
	}
}

// adopt adds an included file's parts. What both have keeps the including
// one's body; compose refuses such a file.
func (c *composeFile) adopt(root, other *yaml.Node, from, dir string) {
	for key, table := range entries(other) {
		if !slices.Contains([]string{"services", "networks", "volumes", "configs", "secrets"}, key.Value) {
			continue
		}
		mine := child(root, key.Value)
		if mine == nil {
			mine = mappingNode(key)
			root.Content = append(without(root, key.Value).Content, key, mine)
		}
		have := map[string]bool{}
		for k := range entries(mine) {
			have[k.Value] = true
		}
		for k, v := range entries(table) {
			if have[k.Value] {
				c.problem(k, fmt.Sprintf("the second %s in %s is left out", quoted(k.Value), key.Value), "it stands in the including file too")
				continue
			}
			if key.Value == "services" {
				v = c.plain.copy(c.extended(k, v, table, from, nil), 0)
			}
			if v != nil {
				c.move(v, from, dir)
				put(mine, k, v)
			}
		}
	}
}

// move rewrites the relative paths of a service, a config or a secret of one
// folder for another, in place.
func (c *composeFile) move(n *yaml.Node, from, to string) {
	if from == to || n == nil {
		return
	}
	change := func(s *yaml.Node) {
		if s != nil && s.Kind == yaml.ScalarNode && s.Value != "" && !strings.HasPrefix(s.Value, "/") && !strings.HasPrefix(s.Value, "~") && !strings.HasPrefix(s.Value, "$") {
			if rel, err := filepath.Rel(to, filepath.Join(from, s.Value)); err == nil {
				if s.Value = rel; rel != ".." && !strings.HasPrefix(rel, "../") {
					s.Value = "./" + rel
				}
			}
		}
	}
	change(child(n, "file")) // of a config or a secret
	for _, f := range items(child(n, "env_file")) {
		if f.Kind == yaml.MappingNode {
			f = child(f, "path")
		}
		change(f)
	}
	for _, v := range items(child(n, "volumes")) {
		if v.Kind == yaml.MappingNode {
			if textIn(child(v, "type")) == "bind" {
				change(child(v, "source"))
			}
			continue
		}
		if parts := splitVolume(v.Value); v.Kind == yaml.ScalarNode && len(parts) > 1 && strings.HasPrefix(parts[0], ".") {
			source := textNode(parts[0], v)
			change(source)
			v.Value = source.Value + v.Value[len(parts[0]):]
		}
	}
	if build := child(n, "build"); build != nil && build.Kind == yaml.ScalarNode {
		change(build)
	}
}
