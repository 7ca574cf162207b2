package topology

import (
	"fmt"
	"slices"
	"strings"
)

// recordDraft is a record with its place in the file.
type recordDraft struct {
	Record
	at *node
}

// resolveRecords reads every cluster's records and holds them against each
// other and against the stations' names.
func (l *loader) resolveRecords() {
	var all []recordDraft
	for _, c := range l.clusters {
		for _, n := range c.body.get("records").good() {
			if c.out.Domain == "" {
				continue // it is wrong, and reported
			}
			r, problem := parseRecord(n.text, c.out.Domain)
			if problem == nil {
				problem = l.taken(r)
			}
			if problem == nil {
				problem = atOdds(r, all)
			}
			if problem != nil {
				l.spoil(n, problem.message, problem.hint)
				continue
			}
			c.out.Records = append(c.out.Records, r)
			all = append(all, recordDraft{r, n})
		}
	}
	l.refuseLoops(all)
}

// taken tells whether the name that a record is about is a station's, the
// backbone's or a domain's, so that it can't be.
func (l *loader) taken(r Record) *valueError {
	if r.Type != "A" && r.Type != "AAAA" && r.Type != "CNAME" {
		return nil
	}
	for _, c := range l.clusters {
		switch {
		case c.out.Domain == "":
			continue
		case r.Name == c.out.Domain && r.Type == "CNAME":
			return &valueError{fmt.Sprintf("%s is a domain, which can't be an alias", r.Name), "a domain has records of its own (SOA, NS); write A or AAAA"}
		case r.Name == "backbone."+c.out.Domain:
			return &valueError{fmt.Sprintf("the DNS name %s is the backbone's", r.Name), "give the record another name"}
		}
	}
	station := l.dnsNames[r.Name]
	for _, c := range l.clusters {
		for _, g := range c.legs {
			if station == nil && c.out.Domain != "" && !g.station.ghost && r.Name == g.station.out.Name+"."+c.out.Domain {
				station = g.station
			}
		}
	}
	if station != nil {
		return &valueError{fmt.Sprintf("the DNS name %s is that of station %s", r.Name, station.out.ID()), "the station's addresses are its A and AAAA records: rename one of them"}
	}
	return nil
}

// atOdds tells whether a record can't stand beside the earlier ones.
func atOdds(r Record, earlier []recordDraft) *valueError {
	for _, e := range earlier {
		if e.Name != r.Name {
			continue
		}
		first := fmt.Sprintf("the other is in line %d: ", e.at.line)
		switch {
		case e.Type == r.Type && e.Data == r.Data:
			return &valueError{fmt.Sprintf("%s %s %s is there twice", r.Name, r.Type, r.Data), first + "remove one"}
		case e.Type == "CNAME" || r.Type == "CNAME":
			return &valueError{fmt.Sprintf("%s is an alias (CNAME) and can have no other record", r.Name), first + "remove one"}
		case e.Type == r.Type && e.TTL != r.TTL:
			return &valueError{fmt.Sprintf("the %s records of %s have different TTLs", r.Type, r.Name), first + "records of one name and type are kept together: give them the same TTL"}
		}
	}
	return nil
}

// refuseLoops reports aliases that lead to themselves.
func (l *loader) refuseLoops(all []recordDraft) {
	alias := map[string]recordDraft{}
	for _, r := range all {
		if r.Type == "CNAME" {
			alias[r.Name] = r
		}
	}
	follow := func(name string) string { return strings.TrimSuffix(alias[name].Data, ".") }
	reported := map[string]bool{}
	for _, r := range all {
		var path []string
		for name := r.Name; alias[name].at != nil && r.Type == "CNAME" && !reported[name]; name = follow(name) {
			if i := slices.Index(path, name); i >= 0 {
				for _, on := range path {
					reported[on] = true
				}
				l.spoil(alias[name].at, fmt.Sprintf("%s leads to itself: %s", name, strings.Join(append(path[i:], name), " -> ")), "let one of them name a station, or an address (A)")
				break
			}
			path = append(path, name)
		}
	}
}
