package topology

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// dependency is one entry of depends_on, resolved.
type dependency struct {
	on   *stationDraft
	at   position
	from *node
}

// resolveDependencies finds the stations that depends_on names and reports
// cycles.
func (l *loader) resolveDependencies() {
	graph := map[*stationDraft][]dependency{}
	var stations []*stationDraft
	dir := l.directory()
	total := 0
	for _, c := range l.clusters {
		for _, s := range c.places() {
			if s.ghost && s.replicas > 0 {
				continue // its replicas say the same
			}
			stations = append(stations, s)
			seen := map[string]bool{}
			for _, ref := range l.dependencyRefs(s) {
				found := l.findStations(ref, c, dir)
				if ref.into != nil && len(found) > 1 {
					l.report(ref.at, fmt.Sprintf("station %s is several", quoted(ref.text)), "name one of them: "+found[0].out.ID())
					continue
				}
				for _, on := range found {
					d := ref.Dependency
					d.Station = on.out.ID()
					if ref.into != nil {
						*ref.into = d.Station
						l.checkShared(ref, on)
						if seen[d.Station] {
							s.out.restartWith(d.Station)
							continue
						}
					}
					if seen[d.Station] {
						l.report(ref.at, fmt.Sprintf("station %s is listed twice", d.Station), "remove one")
						continue
					}
					if total++; total > maxNodes {
						l.report(ref.at, fmt.Sprintf("the file has more than %d dependencies once its replicas are written out", maxNodes),
							"depend on one replica, or ask for fewer")
						return
					}
					seen[d.Station] = true
					l.checkCondition(ref, on)
					s.out.DependsOn = append(s.out.DependsOn, d)
					graph[s] = append(graph[s], dependency{on, ref.at, ref.from})
				}
			}
		}
	}
	l.closing = map[*node]position{}
	w := walker{loader: l, graph: graph, done: map[*stationDraft]bool{}, depth: map[*stationDraft]int{}, reported: map[position]bool{}}
	for _, s := range stations {
		w.visit(s)
	}
}

// reference is a dependency as the file names it.
type reference struct {
	Dependency
	text      string
	at        position
	from      *node // the entry, whose place may be another's too
	condition *node // nil where it is the default
	// into is where key, pid or ipc, keeps the one station it joins: that one
	// starts first.
	into *string
	key  string
}

func (l *loader) dependencyRefs(s *stationDraft) []reference {
	var refs []reference
	n := s.body.get("depends_on")
	for _, p := range n.all() {
		ref := reference{Dependency{Condition: Started}, p.key, p.at, p.val, p.val.get("condition"), nil, ""}
		if ref.condition != nil {
			ref.Condition = ref.condition.text
		}
		if r := p.val.get("restart"); r != nil {
			ref.Restart = strings.EqualFold(r.text, "true")
		}
		if r := p.val.get("required"); r != nil {
			ref.Optional = !strings.EqualFold(r.text, "true")
		}
		refs = append(refs, ref)
	}
	for _, item := range n.good() {
		if n.kind == sequence {
			refs = append(refs, reference{Dependency{Condition: Started}, item.text, item.position, item, nil, nil, ""})
		}
	}
	if at := l.sharedWith(s, "pid"); at != nil {
		refs = append(refs, reference{Dependency{Condition: Started, Restart: true}, at.text, at.position, at, nil, &s.out.PID, "pid"})
	}
	if at := l.sharedWith(s, "ipc"); at != nil {
		refs = append(refs, reference{Dependency{Condition: Started, Restart: true}, at.text, at.position, at, nil, &s.out.IPC, "ipc"})
	}
	return refs
}

// restartWith has the station restart with one whose namespace it shares, which
// goes with that one.
func (s *Station) restartWith(id string) {
	for i := range s.DependsOn {
		if s.DependsOn[i].Station == id {
			s.DependsOn[i].Restart = true
		}
	}
}

// checkShared reports sharing what the other station keeps to itself.
func (l *loader) checkShared(ref reference, with *stationDraft) {
	if n := with.body.get("ipc"); ref.key == "ipc" && n != nil && n.text == "private" {
		l.report(ref.at, fmt.Sprintf("station %s shares its ipc with nobody", with.out.ID()),
			fmt.Sprintf("its ipc is private (line %d): write shareable there, or remove it", n.line))
	}
}

// checkCondition reports waiting for the health of what is not checked. Whether an
// image has a check shows later (CheckHealth).
func (l *loader) checkCondition(ref reference, on *stationDraft) {
	h := on.out.Healthcheck
	checked := h != nil && !slices.Equal(h.Test, []string{NoHealthcheck}) || h == nil && on.out.Image != ""
	if ref.Condition != Healthy || checked || ref.condition.bad || on.body.spoiled("healthcheck") {
		return
	}
	if check := on.body.get("healthcheck"); check.spoiled("test", "disable") {
		return
	}
	l.spoil(ref.condition, fmt.Sprintf("station %s has no healthcheck, so it never becomes healthy", on.out.ID()),
		"give it a healthcheck, or write condition: "+Started)
}

// findStations finds what a reference in cluster home means: the neighbour
// of that name, otherwise the only one of that name anywhere. A group's name
// means its members.
func (l *loader) findStations(ref reference, home *clusterDraft, dir directory) []*stationDraft {
	cluster, name, full := strings.Cut(ref.text, "/")
	if !full {
		cluster, name = "", ref.text
	}
	var found []*named
	var ids []string
	for _, e := range dir.stations[name] {
		switch {
		case full && e.cluster.out.Name != cluster:
		case !full && e.cluster == home:
			return e.stations
		default:
			found, ids = append(found, e), append(ids, e.cluster.out.Name+"/"+name)
		}
	}
	switch {
	case len(found) == 1:
		return found[0].stations
	case len(found) > 1:
		l.report(ref.at, fmt.Sprintf("station %s is ambiguous", quoted(ref.text)), "write "+orList(firstFew(ids)))
	case !ref.Optional:
		l.noStation(ref, cluster, name, dir)
	}
	return nil
}

// directory finds clusters, stations and groups by name, also in a file of
// very many.
type directory struct {
	clusters map[string]*clusterDraft
	stations map[string][]*named
	// unreadable tells that some cluster's stations have problems of their own.
	unreadable bool
}

// named is what one name means in one cluster: a station, or the stations of
// a group, of which there may be none.
type named struct {
	cluster  *clusterDraft
	stations []*stationDraft
}

func (l *loader) directory() directory {
	dir := directory{clusters: map[string]*clusterDraft{}, stations: map[string][]*named{}}
	for _, c := range l.clusters {
		dir.clusters[c.out.Name] = c
		dir.unreadable = dir.unreadable || c.body.spoiled("stations")
		groups := map[string]*named{}
		for _, s := range c.places() {
			if s.out.Group != "" && groups[s.out.Group] == nil {
				groups[s.out.Group] = &named{cluster: c}
				dir.stations[s.out.Group] = append(dir.stations[s.out.Group], groups[s.out.Group])
			}
			if s.ghost {
				continue
			}
			if g := groups[s.out.Group]; g != nil {
				g.stations = append(g.stations, s)
			}
			dir.stations[s.out.Name] = append(dir.stations[s.out.Name], &named{c, []*stationDraft{s}})
		}
	}
	return dir
}

// noStation reports a reference to nobody, unless stations of where it points
// were not readable.
func (l *loader) noStation(ref reference, cluster, name string, dir directory) {
	hint, guess := "stations are named STATION or CLUSTER/STATION", ""
	c := dir.clusters[cluster]
	switch {
	case cluster == "" && dir.unreadable, c != nil && c.body.spoiled("stations"):
		return
	case cluster == "" && len(dir.stations) <= mostGuesses:
		guess = nearest(name, slices.Sorted(maps.Keys(dir.stations)))
	case cluster == "":
	case c == nil:
		l.report(ref.at, fmt.Sprintf("there is no cluster %s", quoted(cluster)), "a station of another cluster is CLUSTER/STATION")
		return
	case len(c.stations) <= mostGuesses:
		var names []string
		for _, s := range c.places() {
			names = append(names, s.out.Name)
		}
		if guess = nearest(name, names); guess != "" {
			guess = cluster + "/" + guess
		}
	}
	if guess != "" {
		hint = fmt.Sprintf("did you mean %s?", guess)
	}
	l.report(ref.at, fmt.Sprintf("there is no station %s", quoted(ref.text)), hint)
}

// walker follows dependencies depth first.
type walker struct {
	*loader
	graph map[*stationDraft][]dependency
	done  map[*stationDraft]bool
	depth map[*stationDraft]int // place in path, from 1
	path  []*stationDraft
	// reported has the places of cycles: one mistake is one problem, also where
	// replicas repeat it.
	reported map[position]bool
}

func (w *walker) visit(s *stationDraft) {
	if w.done[s] {
		return
	}
	w.path = append(w.path, s)
	w.depth[s] = len(w.path)
	for _, d := range w.graph[s] {
		if i := w.depth[d.on] - 1; i >= 0 {
			w.closing[d.from] = d.at
			if w.reported[d.at] {
				continue
			}
			w.reported[d.at] = true
			var ids []string
			for _, p := range w.path[i:] {
				ids = append(ids, p.out.ID())
			}
			w.report(d.at, fmt.Sprintf("stations wait for each other: %s", strings.Join(append(ids, d.on.out.ID()), " -> ")),
				"remove one of these dependencies")
			continue
		}
		w.visit(d.on)
	}
	w.path = w.path[:len(w.path)-1]
	delete(w.depth, s)
	w.done[s] = true
}
