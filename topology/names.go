package topology

import (
	"fmt"
	"slices"
	"strings"
)

// validName tells whether s may name a topology, a cluster or a station.
func validName(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		inner := i > 0 && i < len(s)-1
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || inner && (c == '-' || c == '_')) {
			return false
		}
	}
	return true
}

// validDNSName tells whether s is a name by RFC 1123, with underscores
// tolerated because station names may have them.
func validDNSName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || len(part) > 63 || part[0] == '-' || part[len(part)-1] == '-' {
			return false
		}
		for i := range len(part) {
			c := part[i]
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

const aliasName = "DNS name"

// dnsName reads a domain or an alias: lower-case and without trailing dot.
func (l *loader) dnsName(n *node, what string) (string, bool) {
	name := strings.ToLower(strings.TrimSuffix(n.text, "."))
	if !validDNSName(name) {
		hint := "parts of letters, digits and -, at most 63 long, with dots between them"
		if what == aliasName && strings.HasPrefix(name, "*.") {
			hint = fmt.Sprintf("a name for all that there are not is a record of the cluster: records: [\"%s. CNAME STATION\"]", name)
		}
		l.spoil(n, fmt.Sprintf("%s is not a %s", quoted(n.text), what), hint)
		return "", false
	}
	return name, true
}

// checkNames reports stations and aliases that would answer to one DNS name. The
// members of a group may share their aliases.
func (l *loader) checkNames() {
	type owner struct {
		station *stationDraft
		at      position
		alias   bool
	}
	names := map[string]owner{}
	l.dnsNames = map[string]*stationDraft{}
	claim := func(name string, s *stationDraft, at position, alias bool) {
		if !validDNSName(name) {
			l.report(at, fmt.Sprintf("the DNS name %s is too long", quoted(name)), "at most 253 characters: shorten the domain")
			return
		}
		if first, taken := names[name]; taken {
			if alias && first.alias && s != first.station && s.sameGroup(first.station) {
				return
			}
			message := fmt.Sprintf("the DNS name %s is already that of station %s", name, first.station.out.ID())
			hint := fmt.Sprintf("it is given in line %d: rename one, or give the clusters different domains", first.at.line)
			if first.station == s {
				message = fmt.Sprintf("the station already has the DNS name %s", name)
				hint = fmt.Sprintf("it is given in line %d: remove one", first.at.line)
			}
			l.report(at, message, hint)
			return
		}
		names[name] = owner{s, at, alias}
		l.dnsNames[name] = s
	}
	for _, c := range l.clusters {
		if c.out.Domain == "" {
			continue
		}
		for _, s := range c.stations {
			if validName(s.out.Name) { // else it is said already
				claim(s.out.Name+"."+c.out.Domain, s, s.at, false)
			}
		}
	}
	for _, c := range l.clusters {
		for _, s := range c.stations {
			for _, n := range s.body.get("aliases").good() {
				if name, ok := l.dnsName(n, aliasName); ok {
					s.out.Aliases = append(s.out.Aliases, name)
					if name = c.qualified(name); name != "" {
						claim(name, s, n.position, true)
					}
				}
			}
			if group := s.out.Group; validName(group) && !slices.Contains(s.out.Aliases, group) {
				s.out.Aliases = append(s.out.Aliases, group)
				if name := c.qualified(group); name != "" {
					claim(name, s, s.at, true)
				}
			}
		}
	}
}

// qualified adds the cluster's domain to a name without one; "" where the
// domain isn't known.
func (c *clusterDraft) qualified(name string) string {
	switch {
	case strings.Contains(name, "."):
		return name
	case c.out.Domain == "":
		return ""
	}
	return name + "." + c.out.Domain
}
