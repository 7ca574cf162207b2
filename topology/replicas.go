package topology

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// maxReplicas bounds what one key can ask for.
const maxReplicas = 1000

// stations reads the stations of a cluster, each replica as one.
func (l *loader) stations(c *clusterDraft) {
	seen := map[string]position{}
	add := func(s *stationDraft) {
		if first, twice := seen[s.out.Name]; twice {
			l.report(s.at, fmt.Sprintf("a second station %s", s.out.ID()),
				fmt.Sprintf("replicas are called NAME-1, NAME-2 and so on; the other stands in line %d: rename one", first.line))
			return
		}
		seen[s.out.Name] = s.at
		l.station(s)
		c.stations = append(c.stations, s)
	}
	for _, p := range c.body.get("stations").all() {
		s := &stationDraft{at: p.at, body: p.val}
		s.out.Name, s.out.Cluster = l.name(p, "station"), c.out.Name
		count, several := l.replicas(p.val)
		if g := p.val.get("group"); g != nil {
			s.out.Group = g.text
			switch {
			case several:
				l.spoil(g, "group and replicas are both set", "replicas make a group that is called as the station: remove group")
			case !validName(g.text):
				l.spoil(g, fmt.Sprintf("%s is not a group's name", quoted(g.text)),
					"a name starts and ends with a letter or digit, has lower-case letters, digits, - and _, and at most 63")
			}
		}
		if !several {
			add(s)
			continue
		}
		s.ghost, s.out.Group, s.before, s.replicas = true, p.key, len(c.stations), count
		c.ghosts = append(c.ghosts, s)
		if count == 0 {
			l.station(s) // for its problems
		}
		if last := fmt.Sprintf("%s-%d", p.key, count); count > 0 && validName(p.key) && !validName(last) {
			l.report(p.at, fmt.Sprintf("the replica's name %s is too long", quoted(last)), "at most 63 characters: shorten the station's name")
			continue
		}
		if l.written > maxBytes {
			continue // said already
		}
		if l.written += count * p.val.size(); l.written > maxBytes {
			l.report(p.at, "with its replicas written out the file is larger than 4 MiB", "ask for fewer replicas")
			continue
		}
		if count > 1 {
			l.refuseAddresses(p.val)
		}
		for i := 1; i <= count; i++ {
			r := &stationDraft{at: p.at, body: p.val, replica: i}
			r.out.Name, r.out.Cluster, r.out.Group = fmt.Sprintf("%s-%d", p.key, i), c.out.Name, p.key
			add(r)
		}
	}
}

// replicas tells how many of a station there are, and whether they are
// numbered.
func (l *loader) replicas(body *node) (count int, several bool) {
	var n *node
	for _, other := range []*node{body.get("replicas"), body.get("scale"), body.get("deploy").get("replicas")} {
		switch {
		case other == nil:
		case n != nil:
			l.spoil(other, "the number of replicas is set twice", fmt.Sprintf("it is first set in line %d: keep replicas", n.line))
		default:
			n = other
		}
	}
	if n != nil {
		var err error
		if count, err = strconv.Atoi(n.text); err != nil || count < 0 || count > maxReplicas {
			l.spoil(n, fmt.Sprintf("there cannot be %s replicas", n.text), fmt.Sprintf("from 0 to %d", maxReplicas))
			return 1, false
		}
	}
	if scaled, ok := l.scale[body]; ok {
		return scaled, n != nil || scaled != 1
	}
	return count, n != nil
}

// size is about what a station's body takes in a file, with what Load adds.
func (n *node) size() int {
	const added = 200
	return added + n.textSize()
}

func (n *node) textSize() int {
	const line = 16
	size := line + len(n.text)
	for _, item := range n.items {
		size += item.textSize()
	}
	for _, p := range n.pairs {
		size += len(p.key) + p.val.textSize()
	}
	return size
}

// refuseAddresses reports addresses that several stations would have.
func (l *loader) refuseAddresses(body *node) {
	for _, at := range append([]*node{body}, body.get("interfaces").good()...) {
		for _, key := range []string{"address", "addresses"} {
			if n := at.get(key); n != nil {
				l.spoil(n, "replicas cannot share an address",
					"leave "+key+" out for automatic ones, or write the stations out, each with group: NAME")
			}
		}
	}
}

// readScale finds the stations that Options.Scale means.
func (l *loader) readScale() {
	const from = " (from --scale)"
	l.scale = map[*node]int{}
	at := position{line: 1, column: 1}
	for _, ref := range slices.Sorted(maps.Keys(l.opt.Scale)) {
		count := l.opt.Scale[ref]
		if count < 0 || count > maxReplicas {
			l.report(at, fmt.Sprintf("there cannot be %d of station %s%s", count, quoted(ref), from), fmt.Sprintf("from 0 to %d", maxReplicas))
			continue
		}
		var bodies []*node
		var ids, all []string
		for _, c := range l.root.get("clusters").all() {
			for _, s := range c.val.get("stations").all() {
				id := c.key + "/" + s.key
				all = append(all, s.key, id)
				if ref == s.key || ref == id {
					bodies, ids = append(bodies, s.val), append(ids, id)
				}
			}
		}
		switch {
		case len(bodies) > 1:
			l.report(at, fmt.Sprintf("station %s%s is ambiguous", quoted(ref), from), "write "+orList(firstFew(ids)))
			continue
		case len(bodies) == 0:
			hint := "stations to scale are named as in the file: STATION or CLUSTER/STATION"
			guess := nearest(ref, all)
			if base := ref[:max(strings.LastIndexByte(ref, '-'), 0)]; slices.Contains(all, base) {
				guess = base
			}
			if guess != "" {
				hint = fmt.Sprintf("did you mean %s?", guess)
			}
			l.report(at, fmt.Sprintf("there is no station %s%s", quoted(ref), from), hint)
			continue
		}
		if _, twice := l.scale[bodies[0]]; twice {
			l.report(at, fmt.Sprintf("station %s%s is scaled twice", ids[0], from), "keep one")
			continue
		}
		l.scale[bodies[0]] = count
	}
}

// sameGroup tells whether two stations are of one group.
func (s *stationDraft) sameGroup(o *stationDraft) bool {
	return s.out.Group != "" && s.out.Group == o.out.Group && s.out.Cluster == o.out.Cluster
}

// members lists the stations of a group.
func (c *clusterDraft) members(group string) (names []string) {
	for _, s := range c.stations {
		if s.out.Group == group && group != "" {
			names = append(names, s.out.Name)
		}
	}
	return names
}

// places lists a cluster's stations and ghosts in the order of the file.
func (c *clusterDraft) places() []*stationDraft {
	out := make([]*stationDraft, 0, len(c.stations)+len(c.ghosts))
	ghosts := c.ghosts
	for i, s := range c.stations {
		for len(ghosts) > 0 && ghosts[0].before <= i {
			out, ghosts = append(out, ghosts[0]), ghosts[1:]
		}
		out = append(out, s)
	}
	return append(out, ghosts...)
}
