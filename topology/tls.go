package topology

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// TLSDir is where a station has its key, its certificate and the authority's.
const TLSDir = "/etc/platelayer/tls"

// DefaultTLSDays is how long certificates hold: the most that Apple's clients
// take of an authority that users add themselves (support.apple.com/103769).
const DefaultTLSDays = 825

const maxTLSDays = 3650

// tls reads whether the station gets a certificate, and for which names beside
// its own.
func (l *loader) tls(s *stationDraft) {
	n := s.body.get("tls")
	if n == nil || n.kind != mapping && !n.isTrue() {
		return
	}
	c := &TLS{Days: DefaultTLSDays}
	s.out.TLS = c
	if days := n.get("days"); days != nil {
		v, err := strconv.Atoi(days.text)
		if err != nil || v < 1 || v > maxTLSDays {
			l.spoil(days, fmt.Sprintf("days %s is out of range", days.text), fmt.Sprintf("from 1 to %d", maxTLSDays))
		}
		c.Days = v
	}
	for _, item := range n.get("names").good() {
		name := item.text
		if a, err := netip.ParseAddr(name); err == nil && a.Zone() == "" {
			name = a.Unmap().String()
		} else {
			at := &node{position: item.position, text: strings.TrimPrefix(name, "*.")}
			bare, ok := l.dnsName(at, "DNS name or address")
			if item.bad = !ok; !ok {
				continue
			}
			name = strings.TrimSuffix(name, at.text) + bare
		}
		if slices.Contains(c.Names, name) {
			l.spoil(item, fmt.Sprintf("%s is listed twice", name), "remove one")
			continue
		}
		c.Names = append(c.Names, name)
	}
}

// checkTLS has every station trust the authority where one of them has a
// certificate, and keeps what a start makes anew out of seals.
func (l *loader) checkTLS() {
	any := false
	for _, c := range l.clusters {
		any = any || slices.ContainsFunc(c.stations, func(s *stationDraft) bool { return s.out.TLS != nil })
	}
	if !any {
		return
	}
	for _, c := range l.clusters {
		for _, s := range c.stations {
			s.out.Trust = true
			seals := append(slices.Clone(s.body.get("seal").good()), s.body.get("integrity").get("paths").good()...)
			for _, p := range seals {
				if within(TLSDir, p.text) || within(p.text, TLSDir) {
					l.spoil(p, fmt.Sprintf("%s cannot be sealed: the certificates in %s are new at each start", p.text, TLSDir),
						"seal what is beside them, or remove tls from all stations")
				}
			}
			for target := range s.targets {
				if within(target, TLSDir) {
					l.report(s.at, fmt.Sprintf("something is mounted at %s, where the station's certificates are", target), "mount it elsewhere, or remove tls from all stations")
				}
			}
		}
	}
}

// within tells whether a path is a folder or lies below it.
func within(p, dir string) bool {
	p, dir = path.Clean(p), path.Clean(dir)
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// certify completes the names of every certificate.
func (t *Topology) certify() {
	for _, s := range t.Stations() {
		if s.TLS == nil {
			continue
		}
		further := s.TLS.Names
		s.TLS = &TLS{Names: t.ownNames(s), Days: s.TLS.Days} // replicas share one
		for _, name := range further {
			if !slices.Contains(s.TLS.Names, name) {
				s.TLS.Names = append(s.TLS.Names, name)
			}
		}
	}
}

// ownNames are the names and addresses that a station is reached by.
func (t *Topology) ownNames(s *Station) []string {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	qualify := func(name string) {
		if c := t.Cluster(s.Cluster); c != nil && !strings.Contains(name, ".") {
			add(name + "." + c.Domain)
		}
		add(name)
	}
	qualify(s.Name)
	for _, alias := range s.Aliases {
		qualify(alias)
	}
	add("localhost")
	addresses := slices.Concat(s.Addresses, s.Loopback)
	for _, i := range s.Interfaces {
		addresses = append(addresses, i.Addresses...)
	}
	for _, k := range t.Links {
		for _, e := range k.Ends {
			if e.Station == s.ID() {
				addresses = append(addresses, e.Addresses...)
			}
		}
	}
	for _, a := range addresses {
		add(a.String())
	}
	add("127.0.0.1")
	add("::1")
	return names
}

// furtherNames are those of the station's certificate that are not its own.
func (t *Topology) furtherNames(s *Station) []string {
	own := t.ownNames(s)
	return slices.DeleteFunc(slices.Clone(s.TLS.Names), func(name string) bool { return slices.Contains(own, name) })
}
