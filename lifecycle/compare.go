package lifecycle

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"platelayer/topology"
)

// Action is what `up` does to an object.
type Action string

// Actions of a Change.
const (
	ActionCreate   Action = "create"
	ActionChange   Action = "change"   // in place; its process runs on
	ActionRecreate Action = "recreate" // its process is replaced
	ActionStart    Action = "start"    // it is there and does not run
	ActionRemove   Action = "remove"
)

// Change is what `up` would do to one object, and why.
type Change struct {
	Object  string   `json:"object"` // "station", "cluster", "link" or "backbone"
	Name    string   `json:"name"`   // "cluster/station", a cluster's name, a link's two ends as "cluster/station:interface", or ""
	Action  Action   `json:"action"`
	Reasons []string `json:"reasons,omitempty"` // such as "address: 10.0.0.2 -> 10.0.0.3"
	// Restarts names the stations that restart with it, because they depend on
	// it with restart: true.
	Restarts []string `json:"restarts,omitempty"`
	// Neighbours names all stations that notice: those of Restarts, those whose
	// default route goes through it, those with an interface in the cluster.
	Neighbours []string `json:"neighbours,omitempty"`
}

// compare tells what `up` would do to make new of old: nothing for what is the
// same, the rest in the order of new, and removals last. A nil topology has
// nothing.
func compare(old, new *topology.Topology) []Change {
	was, is := survey(old), survey(new)
	var changes []Change
	fresh := func(id string) bool { return was.stations[id] == nil } // it does not run yet, so it notices nothing
	add := func(c *Change) {
		if c != nil {
			c.Restarts = slices.DeleteFunc(c.Restarts, fresh)
			c.Neighbours = slices.DeleteFunc(c.Neighbours, fresh)
			changes = append(changes, *c)
		}
	}
	switch {
	case old == nil && new != nil:
		add(&Change{Object: "backbone", Action: ActionCreate})
	case old != nil && new != nil:
		add(compareBackbone(&old.Backbone, &new.Backbone))
	}
	for _, id := range is.clusterOrder {
		add(is.compareCluster(was.clusters[id], is.clusters[id]))
		for i := range is.clusters[id].Stations {
			s := &is.clusters[id].Stations[i]
			add(is.compareStation(was.stations[s.ID()], s))
		}
	}
	for _, c := range compareLinks(linksOf(old), linksOf(new)) {
		add(&c)
	}
	for _, id := range was.clusterOrder {
		for i := range was.clusters[id].Stations {
			if s := &was.clusters[id].Stations[i]; is.stations[s.ID()] == nil {
				add(&Change{Object: "station", Name: s.ID(), Action: ActionRemove})
			}
		}
		if is.clusters[id] == nil {
			add(&Change{Object: "cluster", Name: id, Action: ActionRemove})
		}
	}
	if old != nil && new == nil {
		add(&Change{Object: "backbone", Action: ActionRemove})
	}
	return changes
}

func linksOf(t *topology.Topology) []topology.Link {
	if t == nil {
		return nil
	}
	return t.Links
}

func compareBackbone(old, new *topology.Backbone) *Change {
	reasons, _ := differences(backboneFields(), old, new)
	if len(reasons) == 0 {
		return nil
	}
	return &Change{Object: "backbone", Action: ActionChange, Reasons: reasons}
}

func (o *objects) compareCluster(old, new *topology.Cluster) *Change {
	c := &Change{Object: "cluster", Name: new.Name, Action: ActionCreate}
	if old == nil {
		return c
	}
	if c.Reasons, _ = differences(clusterFields(), old, new); len(c.Reasons) == 0 {
		return nil
	}
	c.Action = ActionChange
	c.Neighbours = o.members(new.Name)
	return c
}

// layerLost is a reason that is told before it happens.
const layerLost = "it gets another root: what it wrote is thrown away"

func (o *objects) compareStation(old, new *topology.Station) *Change {
	c := &Change{Object: "station", Name: new.ID(), Action: ActionCreate}
	if old == nil {
		return c
	}
	var replaced bool
	if c.Reasons, replaced = differences(stationFields(), old, new); len(c.Reasons) == 0 {
		return nil
	}
	c.Action = ActionChange
	if replaced {
		c.Action = ActionRecreate
		c.Restarts = o.dependents(new.ID())
	}
	if old.Digest != "" && new.Image != "" && new.Digest == "" {
		c.Reasons = withoutImage(c.Reasons)
	} else if rootOf(old) != rootOf(new) {
		c.Reasons = append(c.Reasons, layerLost)
	}
	moved := !slices.Equal(addresses(old), addresses(new))
	c.Neighbours = o.choose(func(s *topology.Station) bool {
		return s != new && (slices.Contains(c.Restarts, s.ID()) || (replaced || moved) && o.leavesThrough(s, new))
	})
	return c
}

// withoutImage leaves out what an image says that isn't here, so that it is not
// known yet.
func withoutImage(reasons []string) []string {
	reasons = slices.DeleteFunc(reasons, func(r string) bool {
		field, _, _ := strings.Cut(r, ":")
		return slices.Contains([]string{"image's digest", "entrypoint", "command", "environment", "user", "working_dir", "stop_signal", "healthcheck", "labels", "volumes"}, field)
	})
	return append(reasons, "its image is not here: what it says is known when up has it; another digest means another root, without what it wrote")
}

// madeFrom is a hash over what a station's process is made of: 16 hexadecimal
// digits, kept with a running station. When it differs, the station must be
// recreated.
func madeFrom(s *topology.Station) string {
	h := sha256.New()
	for _, f := range stationFields() {
		parts := f.parts(s)
		if !f.replaces || len(parts) == 0 {
			continue // a field that comes later must not recreate stations without it
		}
		fmt.Fprintf(h, "%s %d\n", f.name, len(parts))
		for _, p := range parts {
			fmt.Fprintf(h, "%q %q\n", p.key, p.value)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// objects are a topology's, by name.
type objects struct {
	clusterOrder []string
	clusters     map[string]*topology.Cluster
	stations     map[string]*topology.Station
}

func survey(t *topology.Topology) *objects {
	o := &objects{clusters: map[string]*topology.Cluster{}, stations: map[string]*topology.Station{}}
	if t == nil {
		return o
	}
	for i := range t.Clusters {
		c := &t.Clusters[i]
		o.clusterOrder = append(o.clusterOrder, c.Name)
		o.clusters[c.Name] = c
		for j := range c.Stations {
			o.stations[c.Stations[j].ID()] = &c.Stations[j]
		}
	}
	return o
}

// choose lists the stations that want says, in the order of the file.
func (o *objects) choose(want func(*topology.Station) bool) []string {
	var ids []string
	for _, name := range o.clusterOrder {
		for i := range o.clusters[name].Stations {
			if s := &o.clusters[name].Stations[i]; want(s) {
				ids = append(ids, s.ID())
			}
		}
	}
	return ids
}

// members are the stations with an interface in a cluster.
func (o *objects) members(cluster string) []string {
	return o.choose(func(s *topology.Station) bool {
		return slices.ContainsFunc(interfaces(s), func(i topology.Interface) bool { return i.Cluster == cluster })
	})
}

// dependents are the stations that restart with one, and with those.
func (o *objects) dependents(id string) []string {
	restarts := map[string]bool{id: true}
	for grew := true; grew; {
		grew = false
		for _, s := range o.stations {
			if restarts[s.ID()] {
				continue
			}
			if slices.ContainsFunc(s.DependsOn, func(d topology.Dependency) bool { return d.Restart && restarts[d.Station] }) {
				restarts[s.ID()], grew = true, true
			}
		}
	}
	return o.choose(func(s *topology.Station) bool { return s.ID() != id && restarts[s.ID()] })
}

// leavesThrough tells whether a default route of s goes through gateway. It
// follows the plan: the file's own default route comes first, then the first
// interface with an address of the family.
func (o *objects) leavesThrough(s, gateway *topology.Station) bool {
	for _, is4 := range []bool{true, false} {
		own := slices.IndexFunc(s.Routes, func(r topology.Route) bool { return r.To.Bits() == 0 && r.To.Addr().Is4() == is4 })
		if own >= 0 {
			if slices.Contains(addresses(gateway), s.Routes[own].Via) {
				return true
			}
			continue
		}
		all := interfaces(s)
		first := slices.IndexFunc(all, func(i topology.Interface) bool {
			return slices.ContainsFunc(i.Addresses, func(a netip.Addr) bool { return a.Is4() == is4 })
		})
		if first < 0 {
			continue
		}
		if c := o.clusters[all[first].Cluster]; c != nil && c.Gateway != "" && c.Name+"/"+c.Gateway == gateway.ID() {
			return true
		}
	}
	return false
}

// interfaces are all of a station's, eth0 first.
func interfaces(s *topology.Station) []topology.Interface {
	return append([]topology.Interface{{Cluster: s.Cluster, Addresses: s.Addresses}}, s.Interfaces...)
}

// String is the change in one line for people.
func (c Change) String() string {
	s := c.title() + "  " + string(c.Action)
	if why := c.why(); len(why) > 0 {
		s += "  " + strings.Join(why, "; ")
	}
	return s
}

// WriteChanges writes changes for people, in columns, each reason in a line of
// its own.
func WriteChanges(w io.Writer, changes []Change) {
	width := 0
	for _, c := range changes {
		width = max(width, len(c.title()))
	}
	for _, c := range changes {
		why := c.why()
		if len(why) == 0 {
			fmt.Fprintf(w, "%-*s  %s\n", width, c.title(), c.Action)
			continue
		}
		fmt.Fprintf(w, "%-*s  %-*s  %s\n", width, c.title(), len(ActionRecreate), c.Action, why[0])
		for _, more := range why[1:] {
			fmt.Fprintf(w, "%*s  %s\n", width+2+len(ActionRecreate), "", more)
		}
	}
}

func (c Change) title() string {
	mark := "~"
	switch c.Action {
	case ActionCreate:
		mark = "+"
	case ActionRecreate:
		mark = "!"
	case ActionStart:
		mark = ">"
	case ActionRemove:
		mark = "-"
	}
	return strings.TrimRight(mark+" "+c.Object+" "+c.Name, " ")
}

// why is the reasons, and who else is concerned.
func (c Change) why() []string {
	why := slices.Clone(c.Reasons)
	if len(c.Restarts) > 0 {
		why = append(why, "restarts also: "+firstOf(c.Restarts))
	}
	notice := slices.DeleteFunc(slices.Clone(c.Neighbours), func(id string) bool { return slices.Contains(c.Restarts, id) })
	if len(notice) > 0 {
		why = append(why, "noticed by: "+firstOf(notice))
	}
	return why
}

// firstOf keeps a list short enough for a line.
func firstOf(ids []string) string {
	const few = 6
	if len(ids) <= few+1 {
		return strings.Join(ids, ", ")
	}
	return strings.Join(ids[:few], ", ") + " and " + strconv.Itoa(len(ids)-few) + " more"
}
