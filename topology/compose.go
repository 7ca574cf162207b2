package topology

import (
	"bytes"
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// ImportOptions says what Import cannot know from the compose file.
type ImportOptions struct {
	// Dir is the absolute folder that the topology file will be in; relative
	// paths are written from there. "" is the compose file's own.
	Dir string
	// Over are further compose files, by absolute path, each laid over those
	// before it as `docker compose -f` does. Their relative paths start at the
	// first file's folder.
	Over []string
	// ReadFile reads further files (Over, include, extends) by their absolute
	// path; nil reads nothing.
	ReadFile func(path string) ([]byte, error)
}

// Import turns a compose file into a topology file: each of its networks is a
// cluster, each service a station of its first network with an interface in
// each further one. Anchors, extends and include are written out. Comments
// stay where their keys do. What can't be carried over is left out and
// listed, with its place in the compose file and what to do instead; so is
// what the file asks for and `check` refuses, such as builds. A file that is
// no compose file is an error, Problems.
func Import(path string, compose []byte, opt ImportOptions) (text []byte, left Problems, err error) {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, nil, fmt.Errorf("cannot tell the folder of %s: %w", path, err)
	}
	if opt.Dir == "" {
		opt.Dir = dir
	}
	c := &composeFile{path: path, dir: dir, opt: opt, files: map[string]*yaml.Node{}, names: []string{path}, anchors: map[string]bool{}, keys: keyTable(),
		refused: map[level]map[string]string{},
		index:   map[*yaml.Node]map[string][2]*yaml.Node{}, byNetwork: map[string]*composeNetwork{}, byService: map[string]*composeService{}, seen: map[Problem]bool{}}
	c.plain = plainer{report: c.problem, open: map[*yaml.Node]bool{}}
	if err := c.read(compose); err != nil {
		return nil, nil, err
	}
	out := c.topology()
	c.try(out)
	text, err = encodeTree(out)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot write the topology of %s: %w", path, err)
	}
	if len(text) > maxBytes {
		return nil, nil, Problems{{File: path, Line: 1, Column: 1, Message: "its topology is larger than 4 MiB", Hint: "anchors, extends and include are written out: keep what services share small"}}
	}
	left = c.left.sorted()
	slices.SortStableFunc(left, func(a, b Problem) int {
		_, one, _ := strings.Cut(a.Message, ": ")
		_, other, _ := strings.Cut(b.Message, ": ")
		return cmp.Or(slices.Index(c.names, a.File)-slices.Index(c.names, b.File),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), strings.Compare(one, other))
	})
	return text, together(left), nil
}

// together tells what an anchor says for several services once.
func together(all Problems) Problems {
	const most = 3 // names that are told
	var out Problems
	var names []string
	say := func() {
		if len(names) > 1 {
			p := &out[len(out)-1]
			rest := ""
			if more := len(names) - most; more > 0 {
				names, rest = names[:most], fmt.Sprintf(" and %d more", more)
			}
			_, message, _ := strings.Cut(p.Message, ": ")
			p.Message = "services " + strings.Join(names, ", ") + rest + ": " + message
		}
		names = nil
	}
	last := Problem{}
	for _, p := range all {
		whose, message, _ := strings.Cut(p.Message, ": ")
		name, ofService := strings.CutPrefix(whose, "service ")
		same := p
		if same.Message = message; !ofService || same != last {
			say()
			out = append(out, p)
		}
		if last = same; ofService {
			names = append(names, name)
		} else {
			last = Problem{}
		}
	}
	say()
	return out
}

// encodeTree writes a tree as YAML, without its comments where the library
// cannot write them so that they are read as comments again.
func encodeTree(tree *yaml.Node) (text []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML writer gave up: %v", r)
		}
	}()
	spellNulls(tree, false)
	encode := func() ([]byte, error) {
		var b bytes.Buffer
		e := yaml.NewEncoder(&b)
		e.SetIndent(2)
		err := e.Encode(tree)
		return b.Bytes(), err
	}
	if text, err = encode(); err == nil {
		if len(text) > maxBytes { // which is refused in any case
			return text, nil
		}
		if back, more, err := decodeYAML(text); err == nil && more == nil && back != nil && sameTree(tree, back.Content[0]) {
			return text, nil
		}
	}
	uncomment(tree)
	return encode()
}

// spellNulls writes out what is empty within brackets: the library would write
// an empty text.
func spellNulls(n *yaml.Node, flow bool) {
	if flow && n.Kind == yaml.ScalarNode && n.Value == "" && isNull(n) {
		n.Value = "null"
	}
	for _, c := range n.Content {
		spellNulls(c, flow || n.Style&yaml.FlowStyle != 0)
	}
}

func sameTree(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.Value != b.Value || len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !sameTree(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}

func uncomment(n *yaml.Node) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	for _, c := range n.Content {
		uncomment(c)
	}
}

// composeFile is a compose file, with those that it includes, on its way to a
// topology.
type composeFile struct {
	path, dir string
	opt       ImportOptions
	plain     plainer
	files     map[string]*yaml.Node // those read, by absolute path; nil where they cannot be
	names     []string              // of the files, as messages show them
	anchors   map[string]bool       // x- keys that have one
	root      *yaml.Node
	networks  []*composeNetwork
	services  []*composeService
	index     map[*yaml.Node]map[string][2]*yaml.Node // services by name, of a file's
	byNetwork map[string]*composeNetwork
	byService map[string]*composeService
	keys      map[level][]key
	refused   map[level]map[string]string
	left      Problems
	seen      map[Problem]bool // of left
}

// composeNetwork becomes a cluster.
type composeNetwork struct {
	name string // in the compose file
	as   string // the cluster's
	key  *yaml.Node
	body *yaml.Node // nil: nothing is said about it
	used []*composeService
}

// composeService becomes a station.
type composeService struct {
	name     string
	as       string // the station's
	key      *yaml.Node
	body     *yaml.Node
	networks []membership
	aliases  []*yaml.Node // asked for by links, container_name and a name that had to change
	linked   []string     // the stations it waits for because it links to them
}

// membership is a service's place in one network.
type membership struct {
	network *composeNetwork
	body    *yaml.Node // addresses, aliases; nil
}

func (c *composeFile) problem(n *yaml.Node, message, hint string) {
	p := Problem{File: c.names[fileOf(n)], Line: max(n.Line, 1), Column: max(columnOf(n), 1), Message: message, Hint: hint}
	if !c.seen[p] {
		c.seen[p] = true
		c.left = append(c.left, p)
	}
}

// leftOut reports a key that is not carried over.
func (c *composeFile) leftOut(n *yaml.Node, whose, key, hint string) {
	if hint == "" {
		hint = "there is no such key here"
	}
	c.problem(n, fmt.Sprintf("%s: %s is left out", whose, key), hint)
}

func (c *composeFile) read(text []byte) error {
	refuse := func(at position, message, hint string) error {
		return Problems{{File: c.path, Line: max(at.line, 1), Column: max(at.column, 1), Message: message, Hint: hint}}
	}
	if len(text) > maxBytes {
		return refuse(position{}, "the file is larger than 4 MiB", "a compose file is a few kilobytes")
	}
	doc, more, err := decodeYAML(text)
	if err != nil {
		at, message := yamlError(err)
		return refuse(at, message, "check the indentation, the quotes and the brackets just before this place")
	}
	if doc == nil || len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && isNull(doc.Content[0]) {
		return refuse(position{}, "the file is empty", "a mapping with services is expected")
	}
	if doc.Content[0].Kind != yaml.MappingNode {
		return refuse(position{}, "is not a compose file", "a mapping with services is expected")
	}
	if more != nil {
		c.problem(more, "a second YAML document is left out", "write its parts into the first, or import it by itself")
	}
	for key, value := range entries(doc.Content[0]) {
		c.anchors[key.Value] = value.Anchor != ""
	}
	c.root = c.plain.copy(doc.Content[0], 0)
	if c.root == nil {
		return c.left
	}
	c.root.HeadComment = cmp.Or(c.root.HeadComment, doc.HeadComment)
	c.root.FootComment = cmp.Or(c.root.FootComment, doc.FootComment)
	if len(c.root.Content) > 0 {
		// The library takes what heads the file for the first key's.
		switch key := c.root.Content[0]; key.Value {
		case "name", "version", "include", "networks": // which may go
			c.root.HeadComment = strings.Trim(c.root.HeadComment+"\n\n"+key.HeadComment, "\n")
			key.HeadComment = ""
		}
	}
	for _, path := range c.opt.Over {
		over := c.open(textNode(path, &yaml.Node{}), path)
		if over == nil {
			return c.left
		}
		c.root = mergeTrees(c.root, over, "")
	}
	c.includeAll(c.root, c.dir, nil)
	services := child(c.root, "services")
	if services == nil || services.Kind != yaml.MappingNode || len(services.Content) == 0 {
		return refuse(position{line: c.root.Line, column: c.root.Column}, "has no services", "a mapping of names to services is expected")
	}
	for key, value := range entries(c.root) {
		if key.Value != "services" {
			settle(value)
		}
	}
	for key, body := range entries(child(c.root, "networks")) {
		n := c.network(key.Value, key)
		n.key, n.body = key, body
	}
	names := map[string]int{}
	for key, body := range entries(services) {
		if strings.HasPrefix(key.Value, "x-") {
			continue
		}
		s := &composeService{name: key.Value, key: key, body: c.extended(key, body, services, c.dir, nil)}
		settle(s.body)
		if c.dir != c.opt.Dir {
			if s.body = c.plain.copy(s.body, 0); s.body == nil {
				break
			}
			c.move(s.body, c.dir, c.opt.Dir)
		}
		if s.body.Kind != yaml.MappingNode {
			if !isNull(s.body) {
				c.problem(s.body, fmt.Sprintf("service %s: what is no mapping is left out", s.name), "a service is a mapping of its keys")
			}
			s.body = mappingNode(key)
		}
		s.as = c.name(s.name, "service", key, names)
		if !strings.EqualFold(s.as, s.name) && validDNSName(s.name) {
			s.aliases = append(s.aliases, textNode(s.name, key))
		}
		c.services, c.byService[s.name] = append(c.services, s), s
	}
	c.wire()
	return nil
}

// topology writes the whole.
func (c *composeFile) topology() *yaml.Node {
	out := mappingNode(c.root)
	out.HeadComment, out.FootComment = c.root.HeadComment, c.root.FootComment
	for key, value := range entries(c.root) {
		switch name := key.Value; {
		case name == "services", name == "networks", name == "version", name == "include", isNull(value) && name != "name":
		case strings.HasPrefix(name, "x-"):
			// What was there for its anchor is written out where it is used.
			if fileOf(key) == 0 && !c.anchors[name] {
				put(out, key, value)
			}
		case name == "name":
			if value.Kind == yaml.ScalarNode && !variable(value) {
				fixed := *value
				fixed.Value = c.name(value.Value, "the project", key, map[string]int{})
				value = &fixed
			}
			put(out, key, value)
		case name == "volumes", name == "configs", name == "secrets":
			put(out, key, c.table(name, value))
		default:
			c.leftOut(key, "the file", name, "a topology has no such key")
		}
	}
	internal := true
	clusters := mappingNode(c.root)
	names := map[string]int{}
	for _, n := range c.networks {
		n.as = c.name(n.name, "network", n.key, names)
	}
	var used []*composeNetwork
	made := map[*composeNetwork]*yaml.Node{}
	for _, n := range c.networks {
		if len(n.used) == 0 {
			if n.name != "default" {
				c.problem(n.key, fmt.Sprintf("network %s is left out", n.name), "no service uses it")
			}
			continue
		}
		used = append(used, n)
		internal = internal && textIn(child(n.body, "internal")) == "true"
		made[n] = c.cluster(n)
		put(clusters, renamedKey(n.key, n.as), made[n])
	}
	if len(used) > 1 {
		c.problem(used[0].key, "services of different networks reach each other", "the backbone routes between clusters; only addresses and names are as in compose")
	}
	if internal {
		backbone := mappingNode(c.root)
		put(backbone, textNode("egress", c.root), textNode("none", c.root))
		put(out, textNode("backbone", c.root), backbone)
	} else {
		for _, n := range used {
			switch i := child(n.body, "internal"); textIn(i) {
			case "true":
				put(made[n], textNode("egress", i), textNode("none", i))
			case "", "false":
			default:
				c.leftOut(i, "network "+n.name, "internal", "egress: none on the cluster keeps its stations inside")
			}
		}
	}
	heading := textNode("clusters", c.root)
	for key := range entries(c.root) {
		if key.Value == "services" {
			heading = renamedKey(key, "clusters")
		}
	}
	put(out, heading, clusters)
	return out
}

// name makes a compose name one that a topology takes, and that nothing else
// has.
func (c *composeFile) name(name, what string, at *yaml.Node, taken map[string]int) string {
	base := fixName(name)
	fixed := base
	for taken[fixed] > 0 {
		taken[base]++
		number := fmt.Sprintf("-%d", taken[base])
		fixed = base[:min(len(base), 63-len(number))] + number
	}
	taken[fixed]++
	if fixed != name {
		c.problem(at, fmt.Sprintf("%s %s is called %s", what, quoted(name), fixed), "names are lower-case letters, digits, - and _, at most 63")
	}
	return fixed
}

func fixName(name string) string {
	fixed := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	fixed = strings.TrimLeft(fixed, "-_")
	if fixed = strings.TrimRight(fixed[:min(len(fixed), 63)], "-_"); fixed == "" {
		return "unnamed"
	}
	return fixed
}

// called is what a service is called here.
func (c *composeFile) called(name string) string {
	if s := c.byService[name]; s != nil {
		return s.as
	}
	return fixName(name)
}
