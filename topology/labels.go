package topology

import (
	"fmt"
	"regexp"
	"strings"
)

var profileName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// profiles reads the profiles that a station belongs to.
func (l *loader) profiles(n *node) []string {
	var out []string
	seen := map[string]bool{}
	for _, item := range n.good() {
		switch {
		case !profileName.MatchString(item.text):
			l.spoil(item, fmt.Sprintf("%s is not a profile's name", quoted(item.text)),
				"a name starts with a letter or digit and has letters, digits, _, . and -")
		case seen[item.text]:
			l.spoil(item, fmt.Sprintf("profile %s is listed twice", item.text), "remove one")
		default:
			out = append(out, item.text)
		}
		seen[item.text] = true
	}
	return out
}

// labels reads a mapping or a list of NAME=value; one without a value is
// empty.
func (l *loader) labels(n *node) map[string]string {
	if n == nil {
		return nil
	}
	out := map[string]string{}
	add := func(at *node, name, value string) {
		_, twice := out[name]
		switch {
		case name == "" || strings.Contains(name, "="):
			l.spoil(at, fmt.Sprintf("%s is not a label's name", quoted(name)), "write NAME: value, or NAME=value in a list")
		case twice:
			l.spoil(at, fmt.Sprintf("label %s is set twice", quoted(name)), "remove one")
		}
		out[name] = value
	}
	for _, p := range n.pairs {
		if !p.val.bad {
			add(&node{position: p.at}, p.key, p.val.text)
		}
	}
	for _, item := range n.items {
		if !item.bad {
			name, value, _ := strings.Cut(item.text, "=")
			add(item, name, value)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
