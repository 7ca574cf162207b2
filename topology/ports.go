package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Port is a port of the machine that leads to one of a station.
type Port struct {
	Target   uint16 `json:"target"`
	Protocol string `json:"protocol"` // tcp or udp
	// HostIP is the machine's address; invalid is all of them.
	HostIP netip.Addr `json:"host_ip,omitzero"`
	// Published is the machine's port, up to Last any free one; 0 is one that
	// the kernel chooses.
	Published   uint16 `json:"published,omitempty"`
	Last        uint16 `json:"last,omitempty"` // 0 is Published
	Name        string `json:"name,omitempty"`
	AppProtocol string `json:"app_protocol,omitempty"`
}

// maxPorts bounds the ports of one station, each of which is a socket.
const maxPorts = 1024

// Text is the port in compose's short syntax.
func (p Port) Text() string {
	s := ""
	if p.HostIP.IsValid() {
		s = p.HostIP.String() + ":"
		if p.HostIP.Is6() {
			s = "[" + p.HostIP.String() + "]:"
		}
	}
	switch {
	case p.Last != 0:
		s += fmt.Sprintf("%d-%d:", p.Published, p.Last)
	case p.Published != 0:
		s += fmt.Sprintf("%d:", p.Published)
	case s != "":
		s += ":"
	}
	return fmt.Sprintf("%s%d/%s", s, p.Target, p.Protocol)
}

const portHint = `write "PUBLISHED:TARGET", like "8080:80", "127.0.0.1:8080:80/udp" or "8000-8010:80"`

// ports reads a station's published ports in both syntaxes.
func (l *loader) ports(s *stationDraft) {
	for _, n := range s.body.get("ports").good() {
		all, wrong := readPorts(n)
		if wrong != "" {
			l.spoil(n, wrong, portHint)
			continue
		}
		for _, p := range all {
			if slices.ContainsFunc(s.out.Ports, p.same) {
				l.spoil(n, fmt.Sprintf("port %s is listed twice", p.Text()), "remove one")
				break
			}
			s.out.Ports = append(s.out.Ports, p)
		}
		if len(s.out.Ports) > maxPorts {
			l.spoil(n, fmt.Sprintf("more than %d published ports", maxPorts), "the machine reaches every port of a station at its own address")
			return
		}
	}
}

func (p Port) same(o Port) bool {
	p.Name, p.AppProtocol = o.Name, o.AppProtocol
	return p == o
}

func readPorts(n *node) ([]Port, string) {
	var p Port
	var target, published, protocol string
	if n.kind == mapping {
		if n.anyBad() {
			return nil, ""
		}
		target, published, protocol = textOf(n.get("target")), textOf(n.get("published")), textOf(n.get("protocol"))
		p.Name, p.AppProtocol = textOf(n.get("name")), textOf(n.get("app_protocol"))
		if ip := textOf(n.get("host_ip")); ip != "" {
			var wrong string
			if p.HostIP, wrong = hostIP(ip); wrong != "" {
				return nil, wrong
			}
		}
		if strings.Contains(target, "-") {
			return nil, fmt.Sprintf("%s is not a port", quoted(target))
		}
	} else {
		rest, proto, given := strings.Cut(n.text, "/")
		if protocol = proto; given && proto == "" {
			return nil, fmt.Sprintf("%s is not a port", quoted(n.text))
		}
		at := strings.LastIndexByte(rest, ':')
		target = rest[at+1:]
		if at >= 0 {
			rest = rest[:at]
			at = strings.LastIndexByte(rest, ':')
			if published = rest[at+1:]; at >= 0 {
				var wrong string
				if p.HostIP, wrong = hostIP(rest[:at]); wrong != "" {
					return nil, wrong
				}
			} else if published == "" {
				return nil, fmt.Sprintf("%s is not a port", quoted(n.text))
			}
		}
	}
	switch p.Protocol = strings.ToLower(protocol); p.Protocol {
	case "":
		p.Protocol = "tcp"
	case "tcp", "udp":
	default:
		return nil, fmt.Sprintf("%s is not a protocol that can be published", quoted(protocol))
	}
	first, last, ok := portRange(target)
	if !ok {
		return nil, fmt.Sprintf("%s is not a port", quoted(target))
	}
	from, to, ok := uint16(0), uint16(0), true
	if published != "" && published != "0" {
		from, to, ok = portRange(published)
	}
	if !ok {
		return nil, fmt.Sprintf("%s is not a port", quoted(published))
	}
	if first == last {
		p.Target, p.Published = first, from
		if to != from {
			p.Last = to
		}
		return []Port{p}, ""
	}
	if from != 0 && to-from != last-first {
		return nil, fmt.Sprintf("the ranges %s and %s are not of one length", quoted(published), quoted(target))
	}
	var all []Port
	for i := 0; i <= int(last-first) && i <= maxPorts; i++ {
		q := p
		q.Target = first + uint16(i)
		if from != 0 {
			q.Published = from + uint16(i)
		}
		all = append(all, q)
	}
	return all, ""
}

// hostIP reads an address of the machine, which IPv6 has in brackets or not;
// all of one IP version is one too.
func hostIP(text string) (netip.Addr, string) {
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	if err != nil || a.Zone() != "" || a.IsMulticast() {
		return a, fmt.Sprintf("%s is not an IP address of the machine", quoted(text))
	}
	return a.Unmap(), ""
}

func portRange(text string) (first, last uint16, ok bool) {
	low, high, ranged := strings.Cut(text, "-")
	one, ok := portNumber(low)
	if !ranged || !ok {
		return one, one, ok
	}
	two, ok := portNumber(high)
	return one, two, ok && two >= one
}

func portNumber(text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil && n > 0 && text[0] != '+'
}

// checkPorts reports ports that two stations would have.
func (l *loader) checkPorts() {
	type slot struct {
		protocol string
		port     uint16
	}
	type holder struct {
		s  *stationDraft
		ip netip.Addr
	}
	taken := map[slot][]holder{}
	for _, c := range l.clusters {
		for _, s := range c.stations {
			for _, p := range s.out.Ports {
				if p.Published == 0 || p.Last != 0 {
					continue
				}
				at := slot{p.Protocol, p.Published}
				for _, h := range taken[at] {
					if Overlap(p.HostIP, h.ip) {
						l.report(l.portAt(s, p), fmt.Sprintf("port %d/%s of the machine is published by station %s already", p.Published, p.Protocol, h.s.out.ID()),
							`give each a port of its own, or write the station's alone ("80") for any free one`)
						break
					}
				}
				taken[at] = append(taken[at], holder{s, p.HostIP})
			}
		}
	}
}

func (l *loader) portAt(s *stationDraft, p Port) position {
	if n := s.body.get("ports").element(strconv.Itoa(int(p.Published))); n != nil {
		return n.position
	}
	return s.at
}

// Overlap tells whether one socket would listen where the other does. All
// addresses are those of both IP versions.
func Overlap(a, b netip.Addr) bool {
	if !a.IsValid() || !b.IsValid() || a == b {
		return true
	}
	return a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified())
}

func portKeys() []key {
	return []key{
		{name: "target", required: true, shape: shape{form: formInteger, is: "a port"}, example: "target: 80", doc: "The station's port."},
		{name: "published", shape: text("a port or a range of them"), example: `published: "8080"`, def: "any free one",
			doc: "The machine's port. Of a range like `8000-8010` the first free one."},
		{name: "host_ip", shape: text("an IP address"), example: "host_ip: 127.0.0.1", def: "all of the machine's addresses",
			doc: "The machine's address that the port is open at."},
		{name: "protocol", shape: oneOf("tcp", "udp"), example: "protocol: udp", def: "`tcp`", doc: "What is carried."},
		{name: "mode", shape: oneOf("host", "ingress"), example: "mode: host", def: "`ingress`", doc: "Taken for compose's sake: there is one machine."},
		{name: "name", shape: text("a name"), example: "name: web", def: "none", doc: "What the port is called."},
		{name: "app_protocol", shape: text("a protocol's name"), example: "app_protocol: http", def: "none", doc: "What is spoken there. Nothing depends on it."},
	}
}

func portsKey() key {
	return key{name: "ports", shape: list("a list of ports", either("PUBLISHED:TARGET or a mapping", text(""), object("", portLevel))),
		example: `ports: ["8080:80"]`, def: "none",
		doc: "Ports of the machine that lead to this station, whatever balances its load; the station sees the client's own address. Compose's syntax: " +
			"`[ADDRESS:][PUBLISHED:]TARGET[/udp]`, with ranges, or a mapping."}
}

func (w *writer) ports(depth int, all []Port) {
	if len(all) > 0 {
		w.open(depth, "ports")
	}
	for _, p := range all {
		w.line(depth+1, "- target", strconv.Itoa(int(p.Target)))
		if p.Published != 0 {
			text := strconv.Itoa(int(p.Published))
			if p.Last != 0 {
				text += "-" + strconv.Itoa(int(p.Last))
			}
			w.line(depth+2, "published", `"`+text+`"`)
		}
		if p.HostIP.IsValid() {
			w.line(depth+2, "host_ip", scalarText(p.HostIP.String()))
		}
		w.line(depth+2, "protocol", p.Protocol)
		w.text(depth+2, "name", p.Name)
		w.text(depth+2, "app_protocol", p.AppProtocol)
	}
}
