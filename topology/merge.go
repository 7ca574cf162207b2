package topology

import (
	"slices"
	"strings"
)

// merge puts one value over another as compose does: mappings key by key,
// lists one after the other, anything else replaced. The tags !reset and
// !override take a value away and replace it whole.
func merge(base, over *node, key string) *node {
	switch {
	case over.override || over.reset || over.bad:
		return over
	case over.kind == null:
		return base
	case base.bad || base.reset:
		return over
	}
	if isTable(key) && base.kind != over.kind {
		base, over = base.asTable(), over.asTable()
	} else if isTable(key) && base.kind == sequence {
		base, over = base.asTable(), over.asTable()
	}
	if key == "env_file" || key == "tmpfs" {
		base, over = base.asList(), over.asList()
	}
	switch {
	case base.kind != over.kind || over.kind == scalar || replacedWhole(key):
		return over
	case over.kind == sequence:
		return mergeLists(base, over, key)
	case key == "logging" && textOf(base.get("driver")) != textOf(over.get("driver")) && over.get("driver") != nil:
		return over
	}
	out := *over
	out.pairs = slices.Clone(base.pairs)
	at := make(map[string]int, len(out.pairs))
	for i, p := range out.pairs {
		at[p.key] = i
	}
	for _, p := range over.pairs {
		if i, have := at[p.key]; have {
			out.pairs[i] = pair{p.key, p.at, merge(out.pairs[i].val, p.val, p.key)}
		} else {
			at[p.key] = len(out.pairs)
			out.pairs = append(out.pairs, p)
		}
	}
	return &out
}

func textOf(n *node) string {
	if n == nil {
		return ""
	}
	return n.text
}

// replacedWhole names lists whose elements mean something only together.
func replacedWhole(key string) bool {
	return slices.Contains([]string{"command", "entrypoint", "test", "startup", "addresses", "ulimit"}, key)
}

// isTable names what may be written as a mapping or as a list.
func isTable(key string) bool {
	return slices.Contains([]string{"environment", "labels", "sysctls", "depends_on"}, key)
}

// asTable reads a list of NAME=value, or of names alone, as a mapping.
func (n *node) asTable() *node {
	if n.kind != sequence {
		return n
	}
	out := &node{position: n.position, kind: mapping}
	for _, item := range n.items {
		name, value, given := strings.Cut(item.text, "=")
		v := &node{position: item.position, kind: null, pending: item.pending, bad: item.bad || item.kind != scalar}
		if given {
			v.kind, v.text, v.tag = scalar, value, item.tag
		}
		out.pairs = append(out.pairs, pair{name, item.position, v})
	}
	return out
}

func (n *node) asList() *node {
	if n.kind == sequence {
		return n
	}
	return &node{position: n.position, kind: sequence, items: []*node{n}}
}

// mergeLists appends; an element for the same place as an earlier one takes
// that one's.
func mergeLists(base, over *node, key string) *node {
	out := *over
	out.items = slices.Clone(base.items)
	at := map[string]int{}
	for i, item := range out.items {
		at[item.place(key)] = i
	}
	for _, item := range over.items {
		if i, have := at[item.place(key)]; have {
			out.items[i] = item
			continue
		}
		at[item.place(key)] = len(out.items)
		out.items = append(out.items, item)
	}
	return &out
}

// place is what makes an element of a list the same as another.
func (n *node) place(key string) string {
	first := func(keys ...string) string {
		for _, k := range keys {
			if v := n.get(k); v != nil {
				return v.text
			}
		}
		return ""
	}
	parts := strings.Split(n.text, ":")
	switch key {
	case "volumes", "devices":
		if n.kind == mapping {
			return first("target", "source")
		}
		return parts[min(1, len(parts)-1)]
	case "tmpfs":
		return parts[0]
	case "configs", "secrets":
		if n.kind == mapping {
			return first("target", "source")
		}
	case "interfaces":
		return first("cluster")
	case "routes":
		return first("to") + " " + first("metric")
	case "env_file", "weight_device", "device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops":
		if n.kind == mapping {
			return first("path")
		}
	}
	return n.text
}

// strip takes away what !reset asks for, once everything is merged.
func strip(n *node, done map[*node]bool) {
	if done[n] {
		return
	}
	done[n] = true
	n.pairs = slices.DeleteFunc(slices.Clone(n.pairs), func(p pair) bool { return p.val.reset })
	for _, p := range n.pairs {
		strip(p.val, done)
	}
	for _, item := range n.items {
		strip(item, done)
	}
}

// count is the number of values below a node, or more than most.
func (n *node) count(most int) int {
	total := 1
	for _, item := range n.items {
		if total > most {
			break
		}
		total += item.count(most - total)
	}
	for _, p := range n.pairs {
		if total > most {
			break
		}
		total += p.val.count(most - total)
	}
	return total
}
