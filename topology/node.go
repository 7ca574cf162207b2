package topology

// position is a place in a file, counted from 1.
type position struct {
	line, column int
	file         string // of an included one; "" is the topology's own
}

// kind is what a node is in YAML.
type kind int

const (
	scalar kind = iota
	null
	sequence
	mapping
)

func (k kind) String() string {
	return [...]string{"a value", "nothing", "a list", "a mapping"}[k]
}

// node is one value of the file with aliases, merge keys and variables
// already replaced. Everything after parsing works on nodes, so that every
// problem has its position.
type node struct {
	position
	kind  kind
	text  string // of a scalar
	tag   string // of a scalar: !!str, !!int, ...; "" when a variable made it
	items []*node
	pairs []pair

	// reset and override are what the tags of these names ask of merging.
	reset, override bool

	// pending is what is wrong with the scalar itself. It is reported where the
	// value is used, so that nobody hears about what is ignored.
	pending *valueError
	// bad is set once a problem was reported here: nothing below is looked at
	// again, so one mistake gives one problem.
	bad bool
	// meant lists known keys that a misspelt key of this mapping probably
	// stands for.
	meant []string
}

// pair is a key of a mapping with its value.
type pair struct {
	key string
	at  position
	val *node
}

// get returns the value of a key, or nil when it is absent or bad.
func (n *node) get(key string) *node {
	if n == nil || n.bad {
		return nil
	}
	for i := range n.pairs {
		if n.pairs[i].key == key && !n.pairs[i].val.bad {
			return n.pairs[i].val
		}
	}
	return nil
}

// spoiled tells whether one of the keys was meant to be set but is not
// usable: what depends on it must not be reported as missing or wrong.
func (n *node) spoiled(keys ...string) bool {
	if n == nil {
		return false
	}
	if n.bad {
		return true
	}
	for _, key := range keys {
		for i := range n.pairs {
			if n.pairs[i].key == key && n.pairs[i].val.anyBad() {
				return true
			}
		}
		for _, m := range n.meant {
			if m == key {
				return true
			}
		}
	}
	return false
}

func (n *node) anyBad() bool {
	if n.bad {
		return true
	}
	for _, item := range n.items {
		if item.bad {
			return true
		}
	}
	return false
}

// good returns the items of a list that have no problem; a single value
// counts as a list of one.
func (n *node) good() []*node {
	if n == nil || n.bad {
		return nil
	}
	if n.kind == scalar {
		return []*node{n}
	}
	var out []*node
	for _, item := range n.items {
		if !item.bad {
			out = append(out, item)
		}
	}
	return out
}
