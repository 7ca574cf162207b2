package topology

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// plainer copies trees without anchors, aliases and merge keys, so that their
// parts can be taken apart. All that one import copies shares its bounds.
type plainer struct {
	report func(at *yaml.Node, message, hint string)
	file   int                 // of the tree that is copied, a number of fileOf
	open   map[*yaml.Node]bool // anchors being copied, to see one that contains itself
	nodes  int
	text   int // bytes
	full   bool
}

// copy returns nil for what cannot be copied, which it reports.
func (p *plainer) copy(n *yaml.Node, depth int) *yaml.Node {
	p.nodes++
	p.text += len(n.Value) + len(n.HeadComment) + len(n.LineComment) + len(n.FootComment)
	switch {
	case p.full:
		return nil
	case p.text > maxText:
		p.full = true
		p.report(n, "is larger than 16 MiB once its aliases are replaced: the rest is left out", "write fewer aliases to large anchors")
		return nil
	case p.nodes > maxNodes:
		p.full = true
		p.report(n, fmt.Sprintf("has more than %d values once its aliases are replaced: the rest is left out", maxNodes), "write fewer aliases to large anchors")
		return nil
	case depth > maxDepth:
		p.report(n, fmt.Sprintf("what is nested deeper than %d levels is left out", maxDepth), "no part of a compose file is that deep")
		return nil
	}
	if n.Kind == yaml.AliasNode {
		if n.Alias == nil || p.open[n.Alias] {
			p.report(n, fmt.Sprintf("alias *%s inside its own anchor is left out", n.Value), "an alias may only repeat what is complete")
			return nil
		}
		alias := p.copy(n.Alias, depth+1)
		if alias != nil && alias.HeadComment+alias.LineComment+alias.FootComment == "" {
			alias.HeadComment, alias.LineComment, alias.FootComment = n.HeadComment, n.LineComment, n.FootComment
		}
		return alias
	}
	p.open[n] = true
	defer delete(p.open, n)
	out := *n
	out.Anchor, out.Content = "", nil
	if n.Kind == yaml.ScalarNode {
		out.Value = escapeDollars(n.Value)
	}
	if fileOf(n) == 0 {
		out.Column |= p.file << fileShift
	}
	if n.Kind == yaml.MappingNode {
		p.pairs(&out, n, depth)
		return &out
	}
	for _, item := range n.Content {
		if item = p.copy(item, depth+1); item != nil {
			out.Content = append(out.Content, item)
		}
	}
	return &out
}

// pairs fills in a mapping: its own keys, the first of two that are the same,
// and what merge keys bring.
func (p *plainer) pairs(out, n *yaml.Node, depth int) {
	var merged []*yaml.Node
	have := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := p.copy(n.Content[i], depth+1), p.copy(n.Content[i+1], depth+1)
		switch {
		case key == nil || value == nil:
		case key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge":
			if value.Kind == yaml.SequenceNode {
				merged = append(merged, value.Content...)
			} else {
				merged = append(merged, value)
			}
		case key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null" || strings.ContainsRune(key.Value, 0):
			p.report(key, "a key that is no word is left out", "")
		case have[key.Value]:
			p.report(key, fmt.Sprintf("the second %s is left out", quoted(key.Value)), "a key stands once")
		default:
			if own := n.Content[i]; own.Kind == yaml.ScalarNode {
				key.Value = own.Value // no variable stands in a key
			}
			have[key.Value] = true
			put(out, key, value)
		}
	}
	for _, m := range merged { // the first that has a key wins
		for key, value := range entries(m) {
			if !have[key.Value] {
				have[key.Value] = true
				put(out, key, value)
			}
		}
	}
}

// escapeDollars doubles a $ that begins no variable.
func escapeDollars(s string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		b.WriteByte(s[i])
		if s[i] != '$' {
			continue
		}
		if rest := s[i+1:]; strings.HasPrefix(rest, "$") {
			b.WriteByte('$')
			i++
		} else if !strings.HasPrefix(rest, "{") && leadingName(rest) == "" {
			b.WriteByte('$')
		}
	}
	return b.String()
}

// fileShift is where a node's column begins to say in which of several files
// it stands: every copy of a node keeps that. A file has at most 4 MiB.
const fileShift = 23

// fileOf is the number of a node's file; 0 is the compose file itself.
func fileOf(n *yaml.Node) int { return n.Column >> fileShift }

func columnOf(n *yaml.Node) int { return n.Column & (1<<fileShift - 1) }

// mappingNode is an empty mapping of the program's own that stands where n
// does in the compose file.
func mappingNode(n *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: n.Line, Column: n.Column}
}

func listNode(n *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: n.Line, Column: n.Column}
}

// textNode is a scalar of the program's own that says what n does.
func textNode(text string, n *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Line: n.Line, Column: n.Column}
}

// renamedKey is a key with its comments under another name.
func renamedKey(key *yaml.Node, name string) *yaml.Node {
	out := textNode(name, key)
	out.HeadComment, out.LineComment, out.FootComment = key.HeadComment, key.LineComment, key.FootComment
	return out
}

func put(m, key, value *yaml.Node) { m.Content = append(m.Content, key, value) }

// putList writes one value under the one key and several under the many.
func putList(m *yaml.Node, one, many string, values []*yaml.Node) {
	switch {
	case len(values) == 0:
	case len(values) == 1 && one != "":
		put(m, textNode(one, values[0]), values[0])
	default:
		list := listNode(values[0])
		list.Style = yaml.FlowStyle
		list.Content = values
		put(m, textNode(many, values[0]), list)
	}
}

// child is the value of a mapping's key; nil where there is none.
func child(m *yaml.Node, key string) *yaml.Node {
	for k, v := range entries(m) {
		if k.Value == key && !isNull(v) {
			return v
		}
	}
	return nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// textIn is the text of a scalar; "" of anything else.
func textIn(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || isNull(n) {
		return ""
	}
	return n.Value
}

// items are the elements of a list; one value is a list of one.
func items(n *yaml.Node) []*yaml.Node {
	switch {
	case n == nil || isNull(n):
		return nil
	case n.Kind == yaml.SequenceNode:
		return n.Content
	}
	return []*yaml.Node{n}
}

// entries goes through a mapping; nothing else has pairs.
func entries(m *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(*yaml.Node, *yaml.Node) bool) {
		if m == nil || m.Kind != yaml.MappingNode {
			return
		}
		for pair := range slices.Chunk(m.Content, 2) {
			if len(pair) == 2 && !yield(pair[0], pair[1]) {
				return
			}
		}
	}
}

// without is a mapping without some keys.
func without(m *yaml.Node, keys ...string) *yaml.Node {
	out := *m
	out.Content = nil
	for key, value := range entries(m) {
		if !slices.Contains(keys, key.Value) {
			put(&out, key, value)
		}
	}
	return &out
}

// mergeTrees puts one value over another as compose does, and as merge does.
// What the tags !reset and !override ask for is left to settle.
func mergeTrees(base, over *yaml.Node, key string) *yaml.Node {
	switch {
	case over.Tag == "!reset", over.Tag == "!override":
		return over
	case isNull(over):
		return base
	case isTable(key) || key == "networks":
		base, over = treeTable(base), treeTable(over)
	case (key == "env_file" || key == "tmpfs") && base.Kind != over.Kind:
		wrap := func(n *yaml.Node) *yaml.Node {
			out := listNode(n)
			out.Content = items(n)
			return out
		}
		base, over = wrap(base), wrap(over)
	}
	if base.Kind != over.Kind || replacedWhole(key) {
		return over
	}
	out := *over
	switch over.Kind {
	case yaml.SequenceNode:
		out.Content = slices.Clone(base.Content)
		at := map[string]int{}
		for i, item := range out.Content {
			at[treePlace(item, key)] = i
		}
		for _, item := range over.Content {
			place := treePlace(item, key)
			if i, have := at[place]; have && place != "" {
				out.Content[i] = item
			} else {
				at[place] = len(out.Content)
				out.Content = append(out.Content, item)
			}
		}
	case yaml.MappingNode:
		out.Content = slices.Clone(base.Content)
		at := map[string]int{}
		for i := 0; i+1 < len(out.Content); i += 2 {
			at[out.Content[i].Value] = i
		}
		for k, v := range entries(over) {
			if i, have := at[k.Value]; have {
				out.Content[i], out.Content[i+1] = k, mergeTrees(out.Content[i+1], v, k.Value)
			} else {
				at[k.Value] = len(out.Content)
				put(&out, k, v)
			}
		}
	}
	return &out
}

// settle takes away what !reset asks for, once everything is merged.
func settle(n *yaml.Node) {
	if n.Tag == "!override" {
		n.Tag = ""
	}
	var kept []*yaml.Node
	for key, value := range entries(n) {
		if value.Tag != "!reset" {
			kept = append(kept, key, value)
		}
	}
	if n.Kind == yaml.MappingNode {
		n.Content = kept
	}
	for _, c := range n.Content {
		settle(c)
	}
}

// treePlace is what makes an element of a list the same as another.
func treePlace(n *yaml.Node, key string) string {
	if n.Kind != yaml.MappingNode {
		parts := splitVolume(n.Value)
		if key == "volumes" || key == "devices" {
			return parts[min(1, len(parts)-1)]
		}
		return n.Value
	}
	for _, k := range []string{"target", "source", "path"} {
		if text := textIn(child(n, k)); text != "" {
			return text
		}
	}
	return ""
}

// treeTable reads a list of NAME=value, or of names alone, as a mapping.
func treeTable(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return n
	}
	out := mappingNode(n)
	seen := map[string]bool{}
	for _, item := range n.Content {
		name, value, given := strings.Cut(textIn(item), "=")
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		v := textNode(value, item)
		if !given {
			v.Tag, v.Value = "!!null", ""
		}
		put(out, renamedKey(item, name), v)
	}
	return out
}
