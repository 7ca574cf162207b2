package topology

import (
	"iter"
	"slices"

	"gopkg.in/yaml.v3"
)

// mostDepth bounds how deep aliases are followed: a file can nest them so that
// they grow without end.
const mostDepth = 64

// plainTree gives a copy of a tree without anchors, aliases and merge keys, so
// that its parts can be taken apart.
func plainTree(n *yaml.Node, depth int) *yaml.Node {
	if n.Kind == yaml.AliasNode && depth < mostDepth {
		alias := plainTree(n.Alias, depth+1)
		alias.HeadComment, alias.LineComment, alias.FootComment = n.HeadComment, n.LineComment, n.FootComment
		return alias
	}
	out := *n
	out.Anchor, out.Content = "", nil
	if n.Kind != yaml.MappingNode {
		for _, item := range n.Content {
			out.Content = append(out.Content, plainTree(item, depth+1))
		}
		return &out
	}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], plainTree(n.Content[i+1], depth+1)
		switch {
		case key.Tag != "!!merge":
			put(&out, key, value)
		case value.Kind == yaml.SequenceNode:
			merged = append(merged, value.Content...)
		default:
			merged = append(merged, value)
		}
	}
	for _, m := range merged { // the first that has a key wins
		for key, value := range entries(m) {
			if child(&out, key.Value) == nil {
				put(&out, key, value)
			}
		}
	}
	return &out
}

func mappingNode() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"} }

// textNode is a scalar of the program's own.
func textNode(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
}

// renamedKey is a key with its comments under another name.
func renamedKey(key *yaml.Node, name string) *yaml.Node {
	out := *textNode(name)
	out.HeadComment, out.LineComment, out.FootComment = key.HeadComment, key.LineComment, key.FootComment
	return &out
}

func put(m, key, value *yaml.Node) { m.Content = append(m.Content, key, value) }

// putList writes one value under the one key and several under the many.
func putList(m *yaml.Node, one, many string, values []string) {
	switch {
	case len(values) == 0:
	case len(values) == 1 && one != "":
		put(m, textNode(one), textNode(values[0]))
	default:
		list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
		for _, v := range values {
			list.Content = append(list.Content, textNode(v))
		}
		put(m, textNode(many), list)
	}
}

// child is the value of a mapping's key; nil where there is none.
func child(m *yaml.Node, key string) *yaml.Node {
	for k, v := range entries(m) {
		if k.Value == key && v.Tag != "!!null" {
			return v
		}
	}
	return nil
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
