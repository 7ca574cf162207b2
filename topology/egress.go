package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// What Egress says besides a list.
const (
	EgressAllow = "allow"
	EgressNone  = "none"
)

// Destination is one that egress allows: a subnet or a name, on one port.
type Destination struct {
	Prefix netip.Prefix // invalid with a Name
	Name   string       // lower-case, without a trailing dot
	Port   uint16       // 0 is all
}

func (d Destination) String() string {
	host := d.Name
	if d.Prefix.IsValid() {
		host = d.Prefix.String()
		if d.Prefix.IsSingleIP() {
			host = d.Prefix.Addr().String()
		}
		if d.Port != 0 && d.Prefix.Addr().Is6() {
			host = "[" + host + "]"
		}
	}
	if d.Port != 0 {
		host += fmt.Sprintf(":%d", d.Port)
	}
	return host
}

// Destinations are those of an Egress that is a list, which is their texts with
// spaces between.
func Destinations(egress string) []Destination {
	if egress == EgressAllow || egress == EgressNone {
		return nil
	}
	var all []Destination
	for text := range strings.FieldsSeq(egress) {
		if d, ok := parseDestination(text); ok {
			all = append(all, d)
		}
	}
	return all
}

// EgressOf is what holds for a station: its own, its cluster's, or the
// backbone's. A nil station means any other of the cluster.
func (t *Topology) EgressOf(c *Cluster, s *Station) string {
	switch {
	case s != nil && s.Egress != "":
		return s.Egress
	case c != nil && c.Egress != "":
		return c.Egress
	case t.Backbone.Egress != "":
		return t.Backbone.Egress
	}
	return EgressAllow
}

// LetsOut tells whether anything of the topology may reach the outside.
func (t *Topology) LetsOut() bool {
	if t.EgressOf(nil, nil) != EgressNone {
		return true
	}
	return slices.ContainsFunc(t.Clusters, func(c Cluster) bool {
		return t.EgressOf(&c, nil) != EgressNone ||
			slices.ContainsFunc(c.Stations, func(s Station) bool { return t.EgressOf(&c, &s) != EgressNone })
	})
}

// egress reads the key of any level.
func (l *loader) egress(n *node) string {
	e := n.get("egress")
	if e == nil {
		return ""
	}
	if e.kind == scalar {
		if e.text != EgressAllow && e.text != EgressNone {
			l.spoil(e, fmt.Sprintf("egress cannot be %s", quoted(e.text)), "it is allow, none or a list of destinations: egress: [registry.example:443]")
			return ""
		}
		return e.text
	}
	if len(e.items) == 0 {
		l.spoil(e, "egress lists nothing", "write egress: none")
		return ""
	}
	var all []string
	for _, item := range e.good() {
		d, ok := parseDestination(item.text)
		switch {
		case !ok:
			l.spoil(item, fmt.Sprintf("%s is not a destination", quoted(item.text)), "write an address, a subnet or a DNS name, with or without a port: 203.0.113.9, 198.51.100.0/24:443, \"[2001:db8::9]:443\", registry.example:443")
		case slices.Contains(all, d.String()):
			l.spoil(item, fmt.Sprintf("%s is listed twice", d), "remove one")
		default:
			all = append(all, d.String())
		}
	}
	return strings.Join(all, " ")
}

func parseDestination(text string) (Destination, bool) {
	host, port := text, ""
	if _, err := netip.ParseAddr(text); err != nil {
		if _, err := netip.ParsePrefix(text); err != nil {
			if at := strings.LastIndex(text, ":"); at >= 0 {
				host, port = text[:at], text[at+1:]
			}
		}
	}
	var d Destination
	if port != "" || strings.HasSuffix(text, ":") {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return d, false
		}
		d.Port = uint16(n)
	}
	if strings.HasPrefix(host, "[") != strings.HasSuffix(host, "]") {
		return d, false
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if addr, err := netip.ParseAddr(bare); err == nil && addr.Zone() == "" && !addr.Is4In6() {
		d.Prefix = netip.PrefixFrom(addr, addr.BitLen())
		return d, addr.Is6() || bare == host
	}
	if p, err := netip.ParsePrefix(bare); err == nil && p == p.Masked() && !p.Addr().Is4In6() {
		d.Prefix = p
		return d, true
	}
	d.Name = strings.ToLower(strings.TrimSuffix(host, "."))
	return d, bare == host && validDNSName(d.Name) && strings.Trim(d.Name, "0123456789.") != ""
}

// opened tells whether a cluster or a station has an egress of its own that is
// not none.
func (l *loader) opened() bool {
	opens := func(n *node) bool { e := n.get("egress"); return e != nil && textOf(e) != EgressNone }
	for _, c := range l.root.get("clusters").all() {
		if opens(c.val) || slices.ContainsFunc(c.val.get("stations").all(), func(s pair) bool { return opens(s.val) }) {
			return true
		}
	}
	return false
}
