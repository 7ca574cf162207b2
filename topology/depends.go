package topology

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// dependency is one entry of depends_on, resolved.
type dependency struct {
	on *stationDraft
	at position
}

// resolveDependencies finds the stations that depends_on names and reports
// cycles.
func (l *loader) resolveDependencies() {
	graph := map[*stationDraft][]dependency{}
	var stations []*stationDraft
	dir := l.directory()
	for _, c := range l.clusters {
		for _, s := range c.stations {
			stations = append(stations, s)
			seen := map[string]bool{}
			for _, ref := range l.dependencyRefs(s) {
				on, ok := l.findStation(ref, c, dir)
				if !ok {
					continue
				}
				id := on.out.ID()
				if seen[id] {
					l.report(ref.at, fmt.Sprintf("station %s is listed twice", id), "remove one")
					continue
				}
				seen[id] = true
				s.out.DependsOn = append(s.out.DependsOn, Dependency{Station: id, Condition: Started})
				graph[s] = append(graph[s], dependency{on, ref.at})
			}
		}
	}
	w := walker{loader: l, graph: graph, done: map[*stationDraft]bool{}, depth: map[*stationDraft]int{}}
	for _, s := range stations {
		w.visit(s)
	}
}

// reference is a station as the file names it.
type reference struct {
	text string
	at   position
}

func (l *loader) dependencyRefs(s *stationDraft) []reference {
	n := s.body.get("depends_on")
	if n == nil {
		return nil
	}
	var refs []reference
	for _, p := range n.pairs {
		if cond := p.val.get("condition"); cond != nil && cond.text != "service_started" {
			l.spoil(cond, fmt.Sprintf("condition cannot be %s", quoted(cond.text)), "only service_started is available in this version")
		}
		refs = append(refs, reference{p.key, p.at})
	}
	for _, item := range n.items {
		if !item.bad {
			refs = append(refs, reference{item.text, item.position})
		}
	}
	return refs
}

// findStation finds the one station that a reference in cluster home means:
// the neighbour of that name, otherwise the only one of that name anywhere.
func (l *loader) findStation(ref reference, home *clusterDraft, dir directory) (*stationDraft, bool) {
	cluster, name, full := strings.Cut(ref.text, "/")
	if !full {
		cluster, name = "", ref.text
	}
	var found []*stationDraft
	var ids []string
	for _, s := range dir.stations[name] {
		switch {
		case full && s.out.Cluster != cluster:
		case !full && s.out.Cluster == home.out.Name:
			return s, true
		default:
			found, ids = append(found, s), append(ids, s.out.ID())
		}
	}
	switch {
	case len(found) == 1:
		return found[0], true
	case len(found) > 1:
		l.report(ref.at, fmt.Sprintf("station %s is ambiguous", quoted(ref.text)), "write "+orList(firstFew(ids)))
	default:
		l.noStation(ref, cluster, name, dir)
	}
	return nil, false
}

// directory finds clusters and stations by name, also in a file of very many.
type directory struct {
	clusters map[string]*clusterDraft
	stations map[string][]*stationDraft
	// unreadable tells that some cluster's stations have problems of their own.
	unreadable bool
}

func (l *loader) directory() directory {
	dir := directory{clusters: map[string]*clusterDraft{}, stations: map[string][]*stationDraft{}}
	for _, c := range l.clusters {
		dir.clusters[c.out.Name] = c
		dir.unreadable = dir.unreadable || c.body.spoiled("stations")
		for _, s := range c.stations {
			dir.stations[s.out.Name] = append(dir.stations[s.out.Name], s)
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
		for _, s := range c.stations {
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
}

func (w *walker) visit(s *stationDraft) {
	if w.done[s] {
		return
	}
	w.path = append(w.path, s)
	w.depth[s] = len(w.path)
	for _, d := range w.graph[s] {
		if i := w.depth[d.on] - 1; i >= 0 {
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
