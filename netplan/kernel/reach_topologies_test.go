package kernel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// sketch is a random topology on its way to being a file.
type sketch struct {
	*rand.Rand
	clusters []*sketchCluster
	stations []*sketchStation
	links    []string
}

type sketchCluster struct {
	name    string
	number  int
	v4, v6  bool
	keys    []string
	next    int // of an address
	members []sketchHop
	leg     bool // of the backbone, with addresses in the cluster
}

// sketchHop is a station on a wire, as others on it see it.
type sketchHop struct {
	station *sketchStation
	v4, v6  string
}

type sketchStation struct {
	name       string
	home       *sketchCluster
	addresses  []string
	interfaces []string
	in         []*sketchCluster
	wires      [][]sketchHop // the others on each of its wires
	devs       []string      // the wires' interfaces
	loopback   []string
	routes     []string
	forwards   bool
	ends       int
}

// sketchTopology writes a topology of up to 60 stations and 12 clusters, the
// same one for a seed.
func sketchTopology(name string, seed uint64) string {
	k := &sketch{Rand: rand.New(rand.NewPCG(seed, 7))}
	k.addClusters()
	k.addStations()
	k.addInterfaces()
	k.addLinks()
	k.addGateways()
	k.addRoutes()
	return k.text(name)
}

func (k *sketch) chance(percent int) bool { return k.IntN(100) < percent }

func (k *sketch) addClusters() {
	for i := range 2 + k.IntN(11) {
		c := &sketchCluster{name: fmt.Sprintf("c%d", i), number: i, next: 10, v4: true, v6: k.chance(40), leg: true}
		switch {
		case k.chance(5):
			c.v4, c.v6, c.leg = false, false, false
			c.keys = append(c.keys, "subnet: none")
		case k.chance(8):
			c.v4, c.v6 = false, true
			c.keys = append(c.keys, fmt.Sprintf("subnet: fd20:%x::/64", i))
		case c.v6:
			c.keys = append(c.keys, fmt.Sprintf(`subnets: [10.%d.0.0/24, "fd20:%x::/64"]`, 20+i, i))
		default:
			c.keys = append(c.keys, fmt.Sprintf("subnet: 10.%d.0.0/24", 20+i))
		}
		k.clusters = append(k.clusters, c)
	}
}

func (k *sketch) addStations() {
	for range len(k.clusters) + k.IntN(61-len(k.clusters)) {
		c := k.clusters[k.IntN(len(k.clusters))]
		s := &sketchStation{name: fmt.Sprintf("s%d", len(k.stations)), home: c, forwards: k.chance(15)}
		s.addresses = k.join(c, s)
		s.devs = append(s.devs, "eth0")
		if k.chance(25) {
			s.loopback = append(s.loopback, fmt.Sprintf("10.255.1.%d", len(k.stations)+1))
			if k.chance(50) {
				s.loopback = append(s.loopback, fmt.Sprintf("fd66::%x", len(k.stations)+1))
			}
		}
		k.stations = append(k.stations, s)
	}
}

// join puts a station into a cluster and gives it addresses there.
func (k *sketch) join(c *sketchCluster, s *sketchStation) []string {
	hop := sketchHop{station: s}
	var addresses []string
	if c.v4 {
		hop.v4 = fmt.Sprintf("10.%d.0.%d", 20+c.number, c.next)
		addresses = append(addresses, hop.v4)
	}
	if c.v6 {
		hop.v6 = fmt.Sprintf("fd20:%x::%x", c.number, c.next)
		addresses = append(addresses, hop.v6)
	}
	c.next++
	c.members = append(c.members, hop)
	s.in = append(s.in, c)
	return addresses
}

func (k *sketch) addInterfaces() {
	for _, s := range k.stations {
		for range k.IntN(3) {
			c := k.clusters[k.IntN(len(k.clusters))]
			if k.chance(50) || slices.Contains(s.in, c) {
				continue
			}
			addresses := k.join(c, s)
			s.devs = append(s.devs, fmt.Sprintf("eth%d", len(s.in)-1))
			s.interfaces = append(s.interfaces, "{cluster: "+c.name+quotedList(", addresses", addresses)+"}")
		}
	}
	for _, s := range k.stations {
		for _, c := range s.in {
			var others []sketchHop
			for _, m := range c.members {
				if m.station != s {
					others = append(others, m)
				}
			}
			s.wires = append(s.wires, others)
		}
	}
}

func (k *sketch) addLinks() {
	for i := range k.IntN(1 + len(k.stations)/3) {
		a, b := k.stations[k.IntN(len(k.stations))], k.stations[k.IntN(len(k.stations))]
		if a == b {
			continue
		}
		one, other := sketchHop{station: a}, sketchHop{station: b}
		subnets := ""
		if !k.chance(15) {
			one.v4, other.v4 = fmt.Sprintf("10.200.%d.0", i), fmt.Sprintf("10.200.%d.1", i)
			subnets = fmt.Sprintf(", subnet: 10.200.%d.0/31", i)
			if k.chance(40) {
				one.v6, other.v6 = fmt.Sprintf("fd98:%x::", i), fmt.Sprintf("fd98:%x::1", i)
				subnets = fmt.Sprintf(`, subnets: [10.200.%d.0/31, "fd98:%x::/127"]`, i, i)
			}
		}
		for _, end := range []struct {
			s      *sketchStation
			remote sketchHop
		}{{a, other}, {b, one}} {
			end.s.wires = append(end.s.wires, []sketchHop{end.remote})
			end.s.devs = append(end.s.devs, fmt.Sprintf("eth%d", len(end.s.in)+end.s.ends))
			end.s.ends++
		}
		k.links = append(k.links, fmt.Sprintf("{endpoints: [%s/%s, %s/%s]%s}", a.home.name, a.name, b.home.name, b.name, subnets))
	}
}

func (k *sketch) addGateways() {
	for _, c := range k.clusters {
		var own []string
		for _, m := range c.members {
			if m.station.home == c {
				own = append(own, m.station.name)
			}
		}
		if !c.v4 && !c.v6 {
			continue
		}
		inline := false
		if len(own) > 0 {
			k.Shuffle(len(own), func(i, j int) { own[i], own[j] = own[j], own[i] })
			switch n := k.IntN(100); {
			case n < 25:
				c.keys = append(c.keys, "gateway: "+own[0])
			case n < 40:
				inline = true
				c.leg = false
				c.keys = append(c.keys, "gateway: {station: "+own[0]+", inline: true}")
			case n < 52 && len(own) > 1:
				c.keys = append(c.keys, "gateway: ["+own[0]+", {station: "+own[1]+", metric: 50}]")
			}
		}
		if !inline && k.chance(10) {
			c.leg = false
			c.keys = append(c.keys, "backbone: none")
			continue
		}
		switch {
		case k.chance(12):
			c.keys = append(c.keys, "isolated: true")
		case k.chance(15):
			var allowed []string
			for _, o := range k.clusters {
				if k.chance(50) {
					allowed = append(allowed, o.name)
				}
			}
			c.keys = append(c.keys, "allow: ["+strings.Join(allowed, ", ")+"]")
		}
	}
}

// addRoutes writes routes to places of the topology, through neighbours or to
// nowhere.
func (k *sketch) addRoutes() {
	for _, s := range k.stations {
		seen := map[string]bool{}
		for range k.IntN(4) {
			i := k.IntN(len(s.wires))
			hops := s.wires[i]
			if r := k.route(hops, s.devs[i], s.in, seen); r != "" {
				s.routes = append(s.routes, r)
			}
		}
	}
	for _, c := range k.clusters {
		seen := map[string]bool{}
		if k.chance(25) {
			// Every station of the cluster gets it: it must be to none's own subnet.
			var near []*sketchCluster
			for _, m := range c.members {
				near = append(near, m.station.in...)
			}
			if r := k.route(c.members, "", near, seen); r != "" {
				c.keys = append(c.keys, "routes: ["+r+"]")
			}
		}
	}
}

// route writes a route through one of hops, or "" where chance gives none that
// may be there. near are the clusters whose subnets it must not be to.
func (k *sketch) route(hops []sketchHop, dev string, near []*sketchCluster, seen map[string]bool) string {
	six := k.chance(30)
	to := k.destination(six, near)
	if to == "" {
		return ""
	}
	metric := []string{"", "", ", metric: 40", ", metric: 300"}[k.IntN(4)]
	if seen[to+metric] {
		return ""
	}
	how := ""
	switch {
	case k.chance(15):
		how = "type: " + []string{"blackhole", "unreachable", "prohibit"}[k.IntN(3)]
	case len(hops) == 0:
		return ""
	case dev != "" && !six && k.chance(15):
		how = "dev: " + dev
	default:
		h := hops[k.IntN(len(hops))]
		via := h.v4
		if six {
			via = h.v6
		}
		if via == "" {
			return ""
		}
		how = fmt.Sprintf("via: %q", via)
	}
	seen[to+metric] = true
	return fmt.Sprintf("{to: %q, %s%s}", to, how, metric)
}

func (k *sketch) destination(six bool, near []*sketchCluster) string {
	c, s := k.clusters[k.IntN(len(k.clusters))], k.stations[k.IntN(len(k.stations))]
	switch n := k.IntN(100); {
	case n < 35 && !slices.Contains(near, c):
		if six && c.v6 {
			return fmt.Sprintf("fd20:%x::/64", c.number)
		} else if !six && c.v4 {
			return fmt.Sprintf("10.%d.0.0/24", 20+c.number)
		}
	case n < 60 && len(s.addresses) > 0:
		for _, a := range s.addresses {
			if strings.Contains(a, ":") == six {
				return a
			}
		}
	case n < 85 && len(s.loopback) > 0:
		for _, a := range s.loopback {
			if strings.Contains(a, ":") == six {
				return a
			}
		}
	case n < 90 && six:
		return "::/0"
	case n < 90:
		return "0.0.0.0/0"
	case six:
		return "fd66::/64"
	}
	if six {
		return ""
	}
	return "10.255.1.0/24"
}

// backboneRoutes lead to stations' loopbacks, through stations of clusters
// that the backbone has a leg in.
func (k *sketch) backboneRoutes() string {
	var routes []string
	for _, s := range k.stations {
		for _, lo := range s.loopback {
			hop := ""
			for _, m := range s.home.members {
				switch six := strings.Contains(lo, ":"); {
				case m.station != s:
				case six:
					hop = m.v6
				default:
					hop = m.v4
				}
			}
			switch {
			case k.chance(10):
				routes = append(routes, fmt.Sprintf("{to: %q, type: blackhole}", lo))
			case s.home.leg && hop != "" && k.chance(60):
				routes = append(routes, fmt.Sprintf("{to: %q, via: %q}", lo, hop))
			}
		}
	}
	return strings.Join(routes, ", ")
}

func (k *sketch) text(name string) string {
	var w strings.Builder
	fmt.Fprintf(&w, "name: %s\nbackbone: {egress: none, routes: [%s]}\nclusters:\n", name, k.backboneRoutes())
	for _, c := range k.clusters {
		fmt.Fprintf(&w, "  %s:\n    %s\n", c.name, strings.Join(c.keys, "\n    "))
		first := true
		for _, s := range k.stations {
			if s.home != c {
				continue
			}
			if first {
				fmt.Fprintln(&w, "    stations:")
				first = false
			}
			keys := quotedList("addresses", s.addresses)
			add := func(key string, list []string) {
				if len(list) > 0 {
					keys += ", " + key + ": [" + strings.Join(list, ", ") + "]"
				}
			}
			add("interfaces", s.interfaces)
			add("routes", s.routes)
			if len(s.loopback) > 0 {
				keys += quotedList(", loopback", s.loopback)
			}
			if s.forwards {
				keys += `, sysctls: {net.ipv4.ip_forward: "1", net.ipv6.conf.all.forwarding: "1"}`
			}
			fmt.Fprintf(&w, "      %s: {%s}\n", s.name, strings.TrimPrefix(keys, ", "))
		}
	}
	if len(k.links) > 0 {
		fmt.Fprintf(&w, "links:\n  - %s\n", strings.Join(k.links, "\n  - "))
	}
	return w.String()
}

func quotedList(key string, list []string) string {
	if len(list) == 0 {
		return ""
	}
	return key + `: ["` + strings.Join(list, `", "`) + `"]`
}
