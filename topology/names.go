package topology

import (
	"fmt"
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

// dnsName reads a domain or an alias: lower-case and without trailing dot.
func (l *loader) dnsName(n *node, what string) (string, bool) {
	name := strings.ToLower(strings.TrimSuffix(n.text, "."))
	if !validDNSName(name) {
		l.spoil(n, fmt.Sprintf("%s is not a %s", quoted(n.text), what),
			"parts of letters, digits and -, at most 63 long, with dots between them")
		return "", false
	}
	return name, true
}

// checkNames reports stations and aliases that would answer to one DNS name.
func (l *loader) checkNames() {
	type owner struct {
		id string
		at position
	}
	names := map[string]owner{}
	claim := func(name string, s *stationDraft, at position) {
		if !validDNSName(name) {
			l.report(at, fmt.Sprintf("the DNS name %s is too long", quoted(name)), "at most 253 characters: shorten the domain")
			return
		}
		if first, taken := names[name]; taken {
			message := fmt.Sprintf("the DNS name %s is already that of station %s", name, first.id)
			hint := fmt.Sprintf("it is given in line %d: rename one, or give the clusters different domains", first.at.line)
			if first.id == s.out.ID() {
				message = fmt.Sprintf("the station already has the DNS name %s", name)
				hint = fmt.Sprintf("it is given in line %d: remove one", first.at.line)
			}
			l.report(at, message, hint)
			return
		}
		names[name] = owner{s.out.ID(), at}
	}
	for _, c := range l.clusters {
		if c.out.Domain == "" {
			continue
		}
		for _, s := range c.stations {
			claim(s.out.Name+"."+c.out.Domain, s, s.at)
		}
	}
	for _, c := range l.clusters {
		for _, s := range c.stations {
			for _, n := range s.body.get("aliases").good() {
				name, ok := l.dnsName(n, "DNS name")
				if !ok {
					continue
				}
				s.out.Aliases = append(s.out.Aliases, name)
				if !strings.Contains(name, ".") {
					if c.out.Domain == "" {
						continue
					}
					name += "." + c.out.Domain
				}
				claim(name, s, n.position)
			}
		}
	}
}
