package topology

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Limits that no honest file comes near. They keep a hostile one (aliases
// that multiply, endless nesting) from using up time and memory.
const (
	maxBytes = 4 << 20
	maxNodes = 500_000
	maxText  = 16 << 20 // bytes of all values, aliases replaced
	maxDepth = 64
)

// parse reads one YAML document. It returns nil after reporting what is wrong
// when there is no document to go on with.
func (l *loader) parse(data []byte) *node {
	start := position{line: 1, column: 1}
	if len(data) > maxBytes {
		l.report(start, "the file is larger than 4 MiB", "a topology file is a few kilobytes")
		return nil
	}
	doc, next, err := decodeYAML(data)
	if err != nil {
		at, message := yamlError(err)
		l.report(at, message, "check the indentation, the quotes and the brackets just before this place")
		return nil
	}
	if next != nil {
		l.report(position{line: next.Line, column: next.Column, file: l.included}, "a second YAML document starts here",
			"a topology is one document: remove everything from the --- on")
	}
	if doc == nil || len(doc.Content) == 0 {
		l.report(start, "the file is empty", "platelayer init writes a starter")
		return nil
	}
	e := expander{loader: l, open: map[*yaml.Node]bool{}}
	root := e.top(doc.Content[0])
	if root.kind == null && !root.bad {
		l.report(start, "the file is empty", "platelayer init writes a starter")
		return nil
	}
	return root
}

// decodeYAML returns the first document and, if there is one, the second.
// The YAML library is known to panic on some inputs; that becomes an error.
func decodeYAML(data []byte) (first, second *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML reader gave up: %v", r)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil, nil
		}
		return nil, nil, err
	}
	switch err := dec.Decode(&more); {
	case errors.Is(err, io.EOF):
		return &doc, nil, nil
	case err != nil:
		return nil, nil, err
	}
	return &doc, &more, nil
}

// yamlError finds the line in the library's error text, which is the only
// place where it has one.
func yamlError(err error) (position, string) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	at := position{line: 1, column: 1}
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(message); m != nil {
		if line, err := strconv.Atoi(m[1]); err == nil && line > 0 {
			at.line = line
		}
		message = message[len(m[0]):]
	}
	return at, "not YAML: " + message
}

// expander turns the library's tree into nodes.
type expander struct {
	*loader
	open  map[*yaml.Node]bool // anchors being expanded, to see one that contains itself
	nodes int
	text  int // bytes
	full  bool
	files []string             // of fileOf, where the tree is of several; nil otherwise
	from  map[*node]*yaml.Node // what nodes were made of; nil where nobody asks
}

// place is where something of the library's tree stands.
func (e *expander) place(y *yaml.Node) position {
	if e.files != nil {
		return position{line: y.Line, column: columnOf(y), file: e.files[fileOf(y)]}
	}
	return position{line: y.Line, column: y.Column, file: e.included}
}

// top expands the document. Top-level x- keys hold what the file wants to
// keep; only what is used of them by alias counts.
func (e *expander) top(y *yaml.Node) *node {
	if y.Kind == yaml.MappingNode {
		kept := *y
		kept.Content = nil
		for i := 0; i+1 < len(y.Content); i += 2 {
			if y.Content[i].Kind == yaml.ScalarNode && strings.HasPrefix(y.Content[i].Value, "x-") {
				continue
			}
			kept.Content = append(kept.Content, y.Content[i], y.Content[i+1])
		}
		y = &kept
	}
	return e.expand(y, 0)
}

func (e *expander) expand(y *yaml.Node, depth int) *node {
	n := &node{position: e.place(y)}
	if e.from != nil {
		e.from[n] = y
	}
	e.nodes++
	e.text += len(y.Value)
	switch {
	case e.full:
		n.bad = true
		return n
	case e.nodes > maxNodes:
		e.full = true
		return e.spoil(n, fmt.Sprintf("the file has more than %d values once its aliases are replaced", maxNodes),
			"write fewer aliases to large anchors")
	case e.text > maxText:
		e.full = true
		return e.spoil(n, "the file is larger than 16 MiB once its aliases are replaced", "write fewer aliases to large anchors")
	case depth > maxDepth:
		return e.spoil(n, fmt.Sprintf("nested deeper than %d levels", maxDepth), "no part of a topology is that deep")
	}
	n.reset, n.override = y.Tag == "!reset", y.Tag == "!override"
	switch y.Kind {
	case yaml.AliasNode:
		if y.Alias == nil || e.open[y.Alias] {
			return e.spoil(n, fmt.Sprintf("alias *%s stands inside its own anchor", y.Value),
				"an alias may only repeat what is complete")
		}
		return e.expand(y.Alias, depth+1)
	case yaml.ScalarNode:
		e.scalar(n, y)
	case yaml.SequenceNode:
		e.open[y] = true
		defer delete(e.open, y)
		n.kind = sequence
		for _, c := range y.Content {
			n.items = append(n.items, e.expand(c, depth+1))
		}
	case yaml.MappingNode:
		e.open[y] = true
		defer delete(e.open, y)
		n.kind = mapping
		e.mapping(n, y, depth)
	default:
		return e.spoil(n, "not a value", "write a word, a list or a mapping")
	}
	return n
}

func (e *expander) scalar(n *node, y *yaml.Node) {
	n.tag = y.ShortTag()
	if n.reset || n.override {
		plain := *y
		plain.Tag = ""
		n.tag = plain.ShortTag()
	}
	switch n.tag {
	case "!!null":
		n.kind = null
		return
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp", "!!merge":
	default:
		n.pending = &valueError{fmt.Sprintf("tag %s is not known", n.tag), "remove the tag; a topology needs none"}
		return
	}
	text, err := interpolate(y.Value, e.opt.LookupEnv)
	switch {
	case errors.As(err, &n.pending):
		return
	case strings.ContainsRune(text, 0):
		n.pending = &valueError{"a NUL byte cannot stand in a value", "remove the \\0"}
		return
	case !utf8.ValidString(text):
		n.pending = &valueError{"the value is not UTF-8", "check the variable it comes from"}
		return
	}
	n.text = text
	if strings.Contains(y.Value, "$") {
		n.tag = ""
	}
}

// mapping fills in the pairs: the mapping's own keys, then those that merge
// keys bring and it does not have itself.
func (e *expander) mapping(n *node, y *yaml.Node, depth int) {
	lines := map[string]int{}
	var merges []*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		at := e.place(k)
		for k.Kind == yaml.AliasNode && k.Alias != nil {
			k = k.Alias
		}
		switch {
		case k.Kind != yaml.ScalarNode || k.ShortTag() == "!!null":
			e.report(at, "a key must be a word", "quote it if it has brackets, braces or nothing in it")
			continue
		case k.ShortTag() == "!!merge":
			merges = append(merges, e.mergeSources(e.expand(v, depth+1))...)
			continue
		case strings.ContainsRune(k.Value, 0):
			e.report(at, "a NUL byte cannot stand in a key", "remove the \\0")
			continue
		}
		if first, twice := lines[k.Value]; twice {
			e.report(at, fmt.Sprintf("%s is set twice", quoted(k.Value)),
				fmt.Sprintf("it is first set in line %d: remove one", first))
			continue
		}
		lines[k.Value] = at.line
		n.pairs = append(n.pairs, pair{k.Value, at, e.expand(v, depth+1)})
	}
	for _, m := range merges {
		for _, p := range m.pairs {
			if _, have := lines[p.key]; !have {
				lines[p.key] = p.at.line
				n.pairs = append(n.pairs, p)
			}
		}
	}
}

// mergeSources returns the mappings that one merge key names, the first to
// win.
func (e *expander) mergeSources(v *node) []*node {
	var out []*node
	all := []*node{v}
	if v.kind == sequence {
		all = v.items
	}
	for _, m := range all {
		if m.kind != mapping && !m.bad {
			e.spoil(m, "<< takes a mapping or a list of mappings, not "+m.kind.String(),
				"write <<: *anchor, where the anchor is on a mapping")
			continue
		}
		out = append(out, m)
	}
	return out
}

// quoted puts a word of the user's into a message: readable, on one line and
// not longer than a line.
func quoted(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "..."
	}
	return strconv.Quote(s)
}
