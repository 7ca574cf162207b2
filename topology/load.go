package topology

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Options says what Load cannot know from the file.
type Options struct {
	Name string // another name for this copy; overrides the file's
	Dir  string // absolute folder of the file
	// Scale says how many of a station there are, whatever its `replicas` say.
	// Stations are named as in the file: "station" or "cluster/station".
	Scale map[string]int
	// LookupEnv gives the values of variables; nil knows none.
	LookupEnv func(string) (string, bool)
	// ReadFile reads what the file names (include, extends, env_file) by its
	// absolute path; nil reads nothing. A missing one is fs.ErrNotExist.
	ReadFile func(path string) ([]byte, error)
}

// Load reads a topology file, checks it and fills in what it leaves out. The
// path is used for messages, and for the folder where opt.Dir is empty. The
// error is Problems and holds every problem of the file.
func Load(path string, data []byte, opt Options) (*Topology, error) {
	if opt.Dir == "" {
		dir, err := filepath.Abs(filepath.Dir(path))
		if err != nil {
			return nil, Problems{{File: path, Line: 1, Column: 1, Message: "cannot tell the file's folder: " + err.Error()}}
		}
		opt.Dir = dir
	}
	l := &loader{file: path, opt: opt, keys: keyTable()}
	t := l.load(data)
	if len(l.problems) > 0 {
		return nil, l.problems.sorted()
	}
	return t, nil
}

// loader carries what one run of Load collects.
type loader struct {
	file     string
	opt      Options
	keys     map[level][]key
	problems Problems

	included  string            // the file that is being parsed, "" for the topology's own
	folders   map[string]string // where the relative paths of included files start
	filesRead int
	named     map[string]map[string]*node // of volumes, configs and secrets, by key and name

	root     *node
	clusters []*clusterDraft
	links    []*linkDraft
	attached map[string]position      // the machine's interfaces
	routes   []routeDraft             // the backbone's
	scale    map[*node]int            // of Options.Scale, by the station's body
	written  int                      // bytes that the replicas so far would be in a file
	closing  map[*node]position       // entries that close a cycle of dependencies
	dnsNames map[string]*stationDraft // of stations, aliases among them
}

// load is the order of the work: the text, its form, each value by itself,
// what values say about each other, and at last what the file leaves out.
func (l *loader) load(data []byte) *Topology {
	if l.root = l.parse(data); l.root == nil {
		return nil
	}
	return l.resolve()
}

// resolve makes a topology of the file's tree.
func (l *loader) resolve() *Topology {
	l.reuse()
	l.check(l.root, &shape{form: formObject, is: "a mapping with clusters", level: topologyLevel}, "a topology")
	if l.root.kind != mapping {
		return nil
	}
	t := &Topology{Name: l.topologyName(), Dir: l.opt.Dir, Backbone: l.backbone(), Volumes: l.namedVolumes()}
	l.indexNames()
	l.checkContents()
	l.readScale()
	l.decodeClusters(t.Name)

	l.checkNames()
	l.resolveGateways()
	l.resolveMeetings()
	l.resolveInterfaces()
	l.resolveLinks()
	l.nameInterfaces()
	l.checkSwitches()
	l.resolveRecords()
	l.resolveDependencies()
	l.checkManifests()
	l.checkTLS()
	l.checkPorts()

	l.placeSubnets()
	for _, c := range l.clusters {
		l.placeAddresses(c)
	}
	l.placeLinks()
	l.checkResolvers(&t.Backbone)
	l.checkRoutes()
	if len(l.problems) > 0 {
		return nil
	}
	t.Links = l.finishLinks()
	for _, r := range l.routes {
		t.Backbone.Routes = append(t.Backbone.Routes, r.Route)
	}
	t.source = &source{file: l.file, root: l.root, stations: map[string]*stationDraft{}}
	for _, c := range l.clusters {
		t.Clusters = append(t.Clusters, c.finish())
		for _, s := range c.stations {
			t.source.stations[s.out.ID()] = s
		}
	}
	t.certify()
	return t
}

func (l *loader) report(at position, message, hint string) {
	file := l.file
	if at.file != "" {
		file = at.file
	}
	l.problems = append(l.problems, Problem{file, max(at.line, 1), max(at.column, 1), message, hint})
}

// spoil reports a problem of a node and marks the node bad.
func (l *loader) spoil(n *node, message, hint string) *node {
	n.bad = true
	l.report(n.position, message, hint)
	return n
}

// clusterDraft is a cluster on its way: what the file says, with positions,
// and what is known so far.
type clusterDraft struct {
	at      position
	body    *node
	out     Cluster
	subnets []subnet
	unsure  bool // its subnets have problems: say nothing about addresses
	bare    bool // it has no subnet
	noLeg   bool // the backbone has no leg in it
	inline  bool // the gateway stands between it and the backbone
	transit []subnet

	stations []*stationDraft
	// ghosts stand for the stations that have replicas in their stead: they
	// keep the address of the name, so that nobody else has it for a while.
	ghosts []*stationDraft
	legs   []*leg // every interface in the cluster, in file order
}

// stationDraft is a station on its way.
type stationDraft struct {
	at      position
	replica int // its number, from 1; 0 where the file names the station itself
	// ghost tells that there is no such station, only its replicas.
	ghost    bool
	before   int // of a ghost: how many of the cluster's stations come before it
	replicas int // of a ghost: how many stand in its stead
	body     *node
	out      Station
	legs     []*leg          // eth0, eth1, ...
	links    []linkRef       // the interfaces after them
	targets  map[string]bool // where something is mounted
	unsure   bool            // its interfaces have problems: say nothing about routes
	routes   []routeDraft
}

func (l *loader) topologyName() string {
	const hint = "a name starts and ends with a letter or digit, has lower-case letters, digits, - and _, and at most 63"
	n := l.root.get("name")
	switch {
	case n != nil && !validName(n.text):
		l.spoil(n, fmt.Sprintf("%s is not a topology name", quoted(n.text)), hint)
		return ""
	case l.opt.Name != "" && !validName(l.opt.Name):
		l.report(position{line: 1, column: 1}, fmt.Sprintf("%s (from --name) is not a topology name", quoted(l.opt.Name)), hint)
		return ""
	case l.opt.Name != "":
		return l.opt.Name
	case n != nil:
		return n.text
	case l.root.spoiled("name"):
		return ""
	}
	name := nameOfFolder(filepath.Base(l.opt.Dir))
	if name == "" {
		l.report(l.root.position, fmt.Sprintf("the folder's name %s makes no topology name", quoted(filepath.Base(l.opt.Dir))),
			"add a line like name: shop")
	}
	return name
}

// nameOfFolder makes a name of a folder's as compose does: lower-case, and
// only the characters that a name may have.
func nameOfFolder(folder string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return -1
	}, strings.ToLower(folder))
	name = strings.TrimLeft(name, "-_")
	return strings.TrimRight(name[:min(len(name), 63)], "-_")
}

func (l *loader) backbone() Backbone {
	n := l.root.get("backbone")
	b := Backbone{Upstream: []string{}}
	l.routes = l.routesOf(n)
	b.Egress = l.egress(n)
	silent := b.Egress == EgressNone && !l.opened()
	if h := n.get("host_routes"); h != nil && h.text != "auto" {
		b.HostRoutes = strings.ToLower(h.text)
	}
	if h := n.get("host_access"); h.isTrue() {
		if b.HostAccess = true; b.HostRoutes == "false" {
			l.spoil(h, "host_access is set although host_routes is false", "without routes the machine can't answer a station: remove one of them")
		}
	}
	up := n.get("upstream")
	if up == nil {
		if !silent && !n.spoiled("upstream") {
			b.Upstream = append(b.Upstream, "host")
		}
		return b
	}
	if silent && len(up.items) > 0 {
		l.spoil(up, "upstream is set although egress is none", "with egress: none nothing leaves, DNS included: remove one of them")
		return b
	}
	l.upstream(&b, up)
	return b
}
