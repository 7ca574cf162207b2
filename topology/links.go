package topology

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
)

// linkDraft is a link on its way.
type linkDraft struct {
	at      position
	out     Link
	ends    [2]*stationDraft
	bodies  [2]*node // nil where the file names a station only
	subnets []subnet
	unsure  bool
}

// resolveLinks reads the links, and finds their stations.
func (l *loader) resolveLinks() {
	for _, n := range l.root.get("links").good() {
		d := &linkDraft{at: n.position}
		l.links = append(l.links, d)
		d.out.MTU = l.mtu(n, defaultMTU)
		d.unsure = n.spoiled("subnet", "subnets")
		for _, item := range l.oneOrMore(n, "subnet", "subnets") {
			if item.text == "none" {
				l.spoil(item, "a link has no subnet none", "leave it out for a link without addresses")
				d.unsure = true
				continue
			}
			if prefix, ok := l.subnet(item); ok {
				d.subnets = append(d.subnets, subnet{Prefix: prefix, at: item.position, link: d})
			} else {
				d.unsure = true
			}
		}
		ends := n.get("endpoints")
		if ends == nil || len(ends.items) != 2 {
			if ends != nil {
				l.spoil(ends, fmt.Sprintf("a link has two endpoints, this one %d", len(ends.items)), "write endpoints: [STATION, STATION]")
			}
			d.unsure = true
			continue
		}
		for i, item := range ends.items {
			l.linkEnd(d, i, item)
		}
		if d.ends[0] != nil && d.ends[0] == d.ends[1] {
			l.spoil(ends, "both ends of the link are station "+d.ends[0].out.ID(), "a link leads to another station")
		}
	}
}

func (l *loader) linkEnd(d *linkDraft, i int, item *node) {
	ref := item
	if item.kind == mapping {
		d.bodies[i], ref = item, item.get("station")
	}
	if ref == nil || ref.bad || item.bad {
		d.unsure = true
		return
	}
	found := l.stationsCalled(ref.text)
	switch {
	case len(found) == 1:
		d.ends[i] = found[0]
		found[0].links = append(found[0].links, linkRef{d, i})
		d.out.Ends[i].Station = found[0].out.ID()
	case len(found) > 1:
		var ids []string
		for _, s := range found {
			ids = append(ids, s.out.ID())
		}
		l.spoil(ref, fmt.Sprintf("station %s is several", quoted(ref.text)), "write "+orList(firstFew(ids)))
	default:
		hint := nearestHint(ref.text, l.stationNames(), "an endpoint is STATION or CLUSTER/STATION")
		l.spoil(ref, fmt.Sprintf("there is no station %s", quoted(ref.text)), hint)
	}
	d.unsure = d.unsure || d.ends[i] == nil
}

// linkRef is one end of a link.
type linkRef struct {
	link *linkDraft
	end  int
}

// stationsCalled finds stations by their name, or cluster and name.
func (l *loader) stationsCalled(ref string) []*stationDraft {
	var found []*stationDraft
	for _, c := range l.clusters {
		for _, s := range c.stations {
			if ref == s.out.ID() {
				return []*stationDraft{s}
			}
			if ref == s.out.Name || s.out.Group != "" && (ref == s.out.Group || ref == c.out.Name+"/"+s.out.Group) {
				found = append(found, s)
			}
		}
	}
	return found
}

func (l *loader) stationNames() []string {
	var names []string
	for _, c := range l.clusters {
		for _, s := range c.stations {
			names = append(names, s.out.Name, s.out.ID())
		}
	}
	return names
}

// nameInterfaces gives every interface of every station its name, and reports
// two of one name.
func (l *loader) nameInterfaces() {
	for _, c := range l.clusters {
		for _, s := range c.stations {
			taken := map[string]position{"lo": {}}
			if c.inline && c.out.Gateway == s.out.Name {
				taken[TransitInterface] = c.body.get("gateway").position
			}
			number := 0
			name := func(n *node, key string, at position) string {
				chosen := fmt.Sprintf("eth%d", number)
				number++
				if n := n.get(key); n != nil {
					if at = n.position; !regexp.MustCompile(interfacePattern).MatchString(n.text) || n.text == "all" || n.text == "default" {
						l.spoil(n, fmt.Sprintf("%s is not an interface's name", quoted(n.text)), "letters, digits, -, _ and dots, at most 15; not all or default")
						return chosen
					}
					chosen = n.text
				}
				if first, twice := taken[chosen]; twice {
					hint := "lo is the loopback interface: choose another name"
					if first.line > 0 {
						hint = fmt.Sprintf("the other stands in line %d: choose another name", first.line)
					}
					l.report(at, fmt.Sprintf("station %s has two interfaces %s", s.out.ID(), chosen), hint)
				}
				taken[chosen] = at
				return chosen
			}
			for i, g := range s.legs {
				key := "name"
				if i == 0 {
					key = "interface_name"
				}
				g.name, g.mac = name(g.body, key, g.at), l.mac(g.body)
				g.vlans = l.vlans(g.body)
				if i > 0 {
					g.mtu = l.mtu(g.body, 0)
				}
			}
			for _, r := range s.links {
				d := r.link
				end := &d.out.Ends[r.end]
				end.Name, end.MAC = name(d.bodies[r.end], "name", d.at), l.mac(d.bodies[r.end])
			}
		}
	}
}

// mac reads a MAC address as the kernel prints it: one station's, not a group's.
func (l *loader) mac(body *node) string {
	n := body.get("mac_address")
	if n == nil {
		return ""
	}
	mac, err := net.ParseMAC(n.text)
	switch {
	case err != nil || len(mac) != 6:
		l.spoil(n, fmt.Sprintf("%s is not a MAC address", quoted(n.text)), "write it like 02:42:0a:14:00:05")
	case mac[0]&1 != 0:
		l.spoil(n, fmt.Sprintf("%s is the MAC address of a group", n.text), "the first byte of a station's is even")
	case mac.String() == "00:00:00:00:00:00":
		l.spoil(n, "a MAC address cannot be zero", "write it like 02:42:0a:14:00:05")
	default:
		return mac.String()
	}
	return ""
}

func (l *loader) mtu(body *node, otherwise int) int {
	n := body.get("mtu")
	if n == nil {
		return otherwise
	}
	mtu, _ := strconv.Atoi(n.text)
	if mtu < 68 || mtu > 65535 {
		l.spoil(n, fmt.Sprintf("mtu %s is out of range", n.text), "from 68 to 65535; 1500 is usual")
	}
	return mtu
}

// placeLinks gives the ends of links their addresses: what the file says, then
// the first ones that are free.
func (l *loader) placeLinks() {
	for _, d := range l.links {
		if d.unsure {
			continue
		}
		taken := map[netip.Addr]int{}
		for i := range d.ends {
			end := &d.out.Ends[i]
			end.Addresses = make([]netip.Addr, len(d.subnets))
			for _, n := range l.oneOrMore(d.bodies[i], "address", "addresses") {
				l.linkAddress(d, i, n, taken)
			}
		}
		for k, s := range d.subnets {
			h := hostsOf(s.Prefix)
			for i := range d.ends {
				addr := &d.out.Ends[i].Addresses[k]
				for a := h.first; !addr.IsValid() && a.IsValid() && !h.last.Less(a); a = a.Next() {
					if _, used := taken[a]; !used {
						*addr, taken[a] = a, i
					}
				}
			}
			d.out.Subnets = append(d.out.Subnets, s.Prefix)
		}
		if d.out.MTU < 1280 && slices.ContainsFunc(d.subnets, func(s subnet) bool { return s.Addr().Is6() }) {
			l.report(d.at, fmt.Sprintf("mtu %d is too small for IPv6", d.out.MTU), "at least 1280, or no IPv6 subnet")
		}
	}
}

func (l *loader) linkAddress(d *linkDraft, i int, n *node, taken map[netip.Addr]int) {
	addr, ok := l.address(n)
	if !ok {
		return
	}
	k := slices.IndexFunc(d.subnets, func(s subnet) bool { return s.Contains(addr) })
	if k < 0 {
		l.spoil(n, fmt.Sprintf("address %s is in no subnet of the link", addr), "give the link a subnet that has it")
		return
	}
	own := &d.out.Ends[i].Addresses
	h := hostsOf(d.subnets[k].Prefix)
	_, used := taken[addr]
	switch {
	case addr.Less(h.first) || h.last.Less(addr):
		l.spoil(n, fmt.Sprintf("%s is the network or broadcast address of %s", addr, d.subnets[k].Prefix), fmt.Sprintf("from %s to %s", h.first, h.last))
	case used:
		l.spoil(n, fmt.Sprintf("address %s is already on the link", addr), "change one of them")
	case (*own)[k].IsValid():
		taken[addr] = i
		*own = append(*own, addr)
	default:
		taken[addr] = i
		(*own)[k] = addr
	}
}

// finishLinks puts the links together once nothing is wrong.
func (l *loader) finishLinks() []Link {
	var all []Link
	for _, d := range l.links {
		all = append(all, d.out)
	}
	return all
}
