package topology

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// stationOf writes a service as a station.
func (c *composeFile) stationOf(s *composeService) *yaml.Node {
	out := mappingNode(s.key)
	whose := "service " + s.name
	wired, waits := false, false
	for key, value := range entries(s.body) {
		name := key.Value
		shape := c.shape(stationLevel, name)
		switch {
		case strings.HasPrefix(name, "x-"):
			put(out, key, value)
		case isNull(value), name == "extends":
		case name == "networks":
			c.wires(out, s)
			wired = true
		case name == "network_mode", name == "container_name", name == "links": // done by wire
		case slices.Contains([]string{"address", "addresses", "interfaces", "aliases"}, name):
			c.leftOut(key, whose, name, "it follows from the service's networks")
		case name == "build" && child(s.body, "image") == nil:
			c.problem(key, fmt.Sprintf("%s: %s is kept, but not available in this version", whose, name), c.hint(stationLevel, name))
			put(out, key, value)
		case name == "depends_on":
			put(out, key, c.dependencies(value, s))
			waits = true
		case name == "restart" && restartPolicy(child(s.body, "deploy")) != nil:
			c.problem(key, whose+": restart is left out", "compose takes the restart_policy of deploy where both are given")
		case name == "deploy":
			c.deploy(out, s, key, value)
		case shape == nil:
			c.leftOut(key, whose, name, c.hint(stationLevel, name))
		default:
			put(out, key, c.pruned(c.rewritten(name, value), shape, whose, name))
		}
	}
	if len(s.linked) > 0 && !waits {
		list := listNode(s.key)
		put(out, textNode("depends_on", s.key), c.dependencies(list, s))
	}
	if !wired {
		c.wires(out, s)
	}
	return out
}

// shape is what a key of a level takes; nil where there is no such key.
func (c *composeFile) shape(at level, name string) *shape {
	for i, k := range c.keys[at] {
		if k.name == name {
			return &c.keys[at][i].shape
		}
	}
	return nil
}

// hint says what to do instead of a key that a level does not take.
func (c *composeFile) hint(at level, name string) string {
	keys, known := c.refused[at]
	if !known {
		keys = foreignKeys(at)
		c.refused[at] = keys
	}
	return keys[name]
}

// dependencies are the names of services, as the stations are called, with
// those that are linked to.
func (c *composeFile) dependencies(n *yaml.Node, s *composeService) *yaml.Node {
	out := *n
	out.Content = nil
	have := map[string]bool{}
	if n.Kind == yaml.MappingNode {
		shape := shape{form: formObject, level: dependencyLevel}
		for key, value := range entries(n) {
			name := c.called(key.Value)
			have[name] = true
			put(&out, renamedKey(key, name), c.pruned(value, &shape, "service "+s.name, "depends_on"))
		}
		for _, name := range s.linked {
			if !have[name] {
				put(&out, textNode(name, s.key), mappingNode(s.key))
			}
		}
		return &out
	}
	if n.Kind != yaml.SequenceNode {
		return n
	}
	for _, item := range n.Content {
		renamed := *item
		if item.Kind == yaml.ScalarNode {
			renamed.Value = c.called(item.Value)
			have[renamed.Value] = true
		}
		out.Content = append(out.Content, &renamed)
	}
	for _, name := range s.linked {
		if !have[name] {
			out.Content = append(out.Content, textNode(name, s.key))
		}
	}
	return &out
}

// deploy keeps what a station has of it; restart_policy becomes restart.
func (c *composeFile) deploy(out *yaml.Node, s *composeService, key, value *yaml.Node) {
	whose := "service " + s.name
	if policy := restartPolicy(value); policy != nil {
		restart := RestartAlways
		most := textIn(child(policy, "max_attempts"))
		switch textIn(child(policy, "condition")) {
		case "none":
			restart = RestartNo
		case "on-failure":
			if restart = RestartOnFailure; most != "" {
				restart += ":" + most
				most = ""
			}
		}
		for k := range entries(policy) {
			if k.Value != "condition" && (k.Value != "max_attempts" || most != "") {
				c.leftOut(k, whose, k.Value+" of restart_policy", "the pauses between restarts grow from 0.1 s to a minute")
			}
		}
		put(out, textNode("restart", policy), textNode(restart, policy))
		value = without(value, "restart_policy")
	}
	if value = c.pruned(value, &shape{form: formObject, level: deployLevel}, whose, "deploy"); len(value.Content) > 0 {
		put(out, key, value)
	}
}

// restartPolicy is what deploy says of restarts; nil where it says nothing.
func restartPolicy(deploy *yaml.Node) *yaml.Node {
	if policy := child(deploy, "restart_policy"); policy != nil && policy.Kind == yaml.MappingNode {
		return policy
	}
	return nil
}

// rewritten is a value in the form that a topology wants it.
func (c *composeFile) rewritten(key string, n *yaml.Node) *yaml.Node {
	each := func(change func(string) string) *yaml.Node {
		if n.Kind == yaml.ScalarNode {
			return changedText(n, change(n.Value))
		}
		out := *n
		out.Content = slices.Clone(n.Content)
		for i, item := range out.Content {
			switch item.Kind {
			case yaml.ScalarNode:
				out.Content[i] = changedText(item, change(item.Value))
			case yaml.MappingNode: // the long form
				long := *item
				long.Content = slices.Clone(item.Content)
				for j := 0; j+1 < len(long.Content); j += 2 {
					if v := long.Content[j+1]; long.Content[j].Value == "target" && v.Kind == yaml.ScalarNode {
						long.Content[j+1] = changedText(v, cleanPath(v.Value))
					}
				}
				out.Content[i] = &long
			}
		}
		return &out
	}
	switch key {
	case "working_dir":
		return each(cleanPath)
	case "volumes", "devices":
		return each(tidyVolume)
	case "tmpfs":
		return each(func(s string) string {
			target, options, given := strings.Cut(s, ":")
			if target = cleanPath(target); given {
				target += ":" + options
			}
			return target
		})
	case "configs", "secrets":
		return each(func(s string) string { return s })
	case "pid", "ipc":
		return each(func(s string) string {
			if kind, name, ok := strings.Cut(s, ":"); ok && kind == "service" {
				return "station:" + c.called(name)
			}
			return s
		})
	}
	return n
}

func changedText(n *yaml.Node, text string) *yaml.Node {
	if n.Value == text {
		return n
	}
	out := *n
	out.Value = text
	return &out
}

// cleanPath is an absolute path in its shortest form.
func cleanPath(p string) string {
	if !path.IsAbs(p) || strings.Contains(p, "$") {
		return p
	}
	return path.Clean(p)
}

// tidyVolume writes a volume's target in its shortest form, and leaves out
// options that have no effect on Linux.
func tidyVolume(s string) string {
	parts := splitVolume(s)
	target := min(1, len(parts)-1)
	parts[target] = cleanPath(parts[target])
	if len(parts) == 3 {
		options := slices.DeleteFunc(strings.Split(parts[2], ","), func(o string) bool {
			return slices.Contains([]string{"cached", "delegated", "consistent"}, o)
		})
		if parts[2] = strings.Join(options, ","); len(options) == 0 {
			parts = parts[:2]
		}
	}
	return strings.Join(parts, ":")
}

// splitVolume splits at colons, but not at those of ${NAME:-value}.
func splitVolume(s string) []string {
	var parts []string
	start, open := 0, 0
	for i := range len(s) {
		switch {
		case s[i] == '{' && i > 0 && s[i-1] == '$':
			open++
		case s[i] == '}' && open > 0:
			open--
		case s[i] == ':' && open == 0:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// pruned is a value without the keys that its level does not take, which it
// reports. It changes nothing in place: an anchor's value stands in several
// places.
func (c *composeFile) pruned(n *yaml.Node, s *shape, whose, name string) *yaml.Node {
	if isNull(n) {
		return n
	}
	out := *n
	switch s.form {
	case formEither:
		for i := range s.options {
			if s.options[i].fitsTree(n) {
				return c.pruned(n, &s.options[i], whose, name)
			}
		}
		return n
	case formBoolean:
		return boolean(n)
	case formList:
		if n.Kind != yaml.SequenceNode {
			return n
		}
		out.Content = nil
		for _, item := range n.Content {
			out.Content = append(out.Content, c.pruned(item, s.elem, whose, name))
		}
	case formTable:
		if n.Kind != yaml.MappingNode {
			return n
		}
		out.Content = nil
		for key, value := range entries(n) {
			put(&out, key, c.pruned(value, s.elem, whose, key.Value))
		}
	case formObject:
		if n.Kind != yaml.MappingNode {
			return n
		}
		out.Content = nil
		for key, value := range entries(n) {
			inner := c.shape(s.level, key.Value)
			switch {
			case inner != nil && (!isNull(value) || inner.null):
				put(&out, key, c.pruned(value, inner, whose, key.Value))
			case inner == nil:
				c.leftOut(key, whose, key.Value+" of "+name, c.hint(s.level, key.Value))
			}
		}
	}
	return &out
}

// fitsTree compares only the kind of value.
func (s *shape) fitsTree(n *yaml.Node) bool {
	switch s.form {
	case formList:
		return n.Kind == yaml.SequenceNode
	case formTable, formObject:
		return n.Kind == yaml.MappingNode
	case formEither:
		return slices.ContainsFunc(s.options, func(o shape) bool { return o.fitsTree(n) })
	}
	return n.Kind == yaml.ScalarNode
}

// boolean takes the words that compose takes for true and false.
func boolean(n *yaml.Node) *yaml.Node {
	words := map[string]string{"true": "true", "yes": "true", "on": "true", "y": "true", "false": "false", "no": "false", "off": "false", "n": "false"}
	word, ok := words[strings.ToLower(textIn(n))]
	if !ok || n.ShortTag() == "!!bool" {
		return n
	}
	out := *n
	out.Value, out.Tag, out.Style = word, "!!bool", 0
	return &out
}

// table writes a table of the top level: volumes, configs or secrets.
func (c *composeFile) table(name string, n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return n
	}
	elem := c.shape(topologyLevel, name).elem
	out := *n
	out.Content = nil
	for key, value := range entries(n) {
		if external := child(value, "external"); external != nil && external.Kind == yaml.MappingNode {
			// Compose's older form: external: {name: NAME}.
			body := without(value, "external")
			put(body, textNode("external", external), boolean(textNode("true", external)))
			for k, v := range entries(external) {
				if k.Value == "name" && child(body, "name") == nil {
					put(body, k, v)
				}
			}
			value = body
		}
		if c.dir != c.opt.Dir && name != "volumes" {
			if value = c.plain.copy(value, 0); value == nil {
				continue
			}
			c.move(value, c.dir, c.opt.Dir)
		}
		put(&out, key, c.pruned(value, elem, strings.TrimSuffix(name, "s")+" "+key.Value, name))
	}
	return &out
}
