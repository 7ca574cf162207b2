package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// editor makes random edits of a topology file, each of which leaves it valid.
type editor struct {
	random   *rand.Rand
	clusters []*editedCluster
	named    map[string]bool // every name that a file has given
	made     int             // stations and clusters, ever
	done     []string
}

type editedCluster struct {
	name     string
	number   int // 10.60.NUMBER.0/24
	gateway  string
	domain   string
	mtu      int
	six      bool // it has an IPv6 subnet too
	stations []*editedStation
}

type editedStation struct {
	name, kind string
	keys       map[string]string // of YAML
	interfaces []string          // cluster names
}

// newEditor begins with a file of some stations.
func newEditor(random *rand.Rand, stations int) *editor {
	e := &editor{random: random, named: map[string]bool{}}
	for range 3 {
		e.addCluster()
	}
	hub := &editedStation{name: "hub", kind: "sleeper", keys: map[string]string{
		"rootfs": "./root", "command": `[/bin/busybox, sleep, "100000"]`, "healthcheck": editedCheck,
	}}
	e.clusters[0].stations = append(e.clusters[0].stations, hub)
	for range stations - 1 {
		e.addStation()
	}
	return e
}

const editedCheck = "{test: [CMD, /bin/busybox, 'true'], start_period: 10s, start_interval: 10ms}"

// edit changes the file in one to three ways and tells how.
func (e *editor) edit() string {
	ways := []func() string{
		e.addStation, e.removeStation, e.addStation, e.removeStation, e.addCluster, e.removeCluster, e.changeCluster, e.changeGateway, e.changeInterfaces,
		e.change("address", func(c *editedCluster) string { return fmt.Sprintf("10.60.%d.%d", c.number, e.freeHost(c)) }),
		e.change("routes", func(c *editedCluster) string {
			return fmt.Sprintf("[{to: 198.51.100.%d/30, via: 10.60.%d.250}]", 4*e.random.IntN(60), c.number)
		}),
		e.change("mem_limit", func(*editedCluster) string { return fmt.Sprintf("%dm", 32+e.random.IntN(32)) }),
		e.change("pids_limit", func(*editedCluster) string { return fmt.Sprint(20 + e.random.IntN(30)) }),
		e.change("environment", func(*editedCluster) string { return fmt.Sprintf("{COLOUR: '%d'}", e.random.IntN(1000)) }),
		e.change("aliases", func(*editedCluster) string { e.made++; return fmt.Sprintf("[alias%d]", e.made) }),
		e.change("restart", func(*editedCluster) string { return e.oneOf("always", "on-failure", "unless-stopped") }),
		e.change("labels", func(*editedCluster) string { return fmt.Sprintf("{n: '%d'}", e.random.IntN(1000)) }),
		e.change("writable", func(*editedCluster) string { return e.oneOf("disk", "memory") }),
		e.change("healthcheck", func(*editedCluster) string { return editedCheck }),
		e.change("volumes", func(*editedCluster) string { return e.oneOf(`["./data:/data"]`, `["./conf:/data:ro"]`) }),
		e.change("startup", func(*editedCluster) string { return "[/bin/busybox, touch, /started]" }),
		e.change("depends_on", func(*editedCluster) string { return "{core0/hub: {condition: service_healthy, restart: true}}" }),
		e.change("replicas", func(*editedCluster) string { return fmt.Sprint(e.random.IntN(4)) }),
		e.change("command", func(*editedCluster) string {
			return fmt.Sprintf(`[/bin/busybox, sleep, "%d"]`, 100000+e.random.IntN(1000))
		}),
	}
	var done []string
	for wanted := 1 + e.random.IntN(3); len(done) < wanted; {
		if what := ways[e.random.IntN(len(ways))](); what != "" {
			done = append(done, what)
		}
	}
	what := strings.Join(done, ", ")
	e.done = append(e.done, what)
	return what
}

func (e *editor) oneOf(of ...string) string { return of[e.random.IntN(len(of))] }

func (e *editor) cluster() *editedCluster { return e.clusters[e.random.IntN(len(e.clusters))] }

// station picks one that may be edited; nil is none.
func (e *editor) station() (*editedCluster, *editedStation) {
	c := e.cluster()
	if len(c.stations) == 0 {
		return c, nil
	}
	s := c.stations[e.random.IntN(len(c.stations))]
	if s.name == "hub" {
		return c, nil
	}
	return c, s
}

func (e *editor) count() (n int) {
	for _, c := range e.clusters {
		n += len(c.stations)
	}
	return n
}

// freeHost is a number that no address of the file has. Those above 200 are
// left to routes and the backbone.
func (e *editor) freeHost(c *editedCluster) int {
	for {
		host := 10 + e.random.IntN(190)
		address := fmt.Sprintf("10.60.%d.%d", c.number, host)
		if !slices.ContainsFunc(c.stations, func(s *editedStation) bool { return s.keys["address"] == address }) {
			return host
		}
	}
}

func (e *editor) addCluster() string {
	if len(e.clusters) == 6 {
		return ""
	}
	number := 0
	for slices.ContainsFunc(e.clusters, func(c *editedCluster) bool { return c.number == number }) {
		number++
	}
	c := &editedCluster{name: fmt.Sprintf("core%d", number), number: number, mtu: 1500}
	c.domain = c.name + ".example"
	e.clusters = append(e.clusters, c)
	return "add cluster " + c.name
}

func (e *editor) removeCluster() string {
	i := e.random.IntN(len(e.clusters))
	if i == 0 || len(e.clusters) < 4 { // the hub is in the first
		return ""
	}
	gone := e.clusters[i]
	e.clusters = slices.Delete(e.clusters, i, i+1)
	for _, c := range e.clusters {
		for _, s := range c.stations {
			s.interfaces = slices.DeleteFunc(s.interfaces, func(name string) bool { return name == gone.name })
		}
	}
	return "remove cluster " + gone.name
}

func (e *editor) addStation() string {
	if e.count() > 35 {
		return ""
	}
	c := e.cluster()
	e.made++
	s := &editedStation{name: fmt.Sprintf("s%d", e.made%50), kind: e.oneOf("server", "sleeper", "sleeper", "job"), keys: map[string]string{}}
	if slices.ContainsFunc(c.stations, func(other *editedStation) bool { return other.name == s.name }) {
		return ""
	}
	if s.kind != "server" {
		s.keys["rootfs"], s.keys["command"] = "./root", `[/bin/busybox, sleep, "100000"]`
	}
	if s.kind == "job" {
		s.keys["command"] = "[/bin/busybox, 'true']"
	}
	if e.random.IntN(2) == 0 {
		s.keys["address"] = fmt.Sprintf("10.60.%d.%d", c.number, e.freeHost(c))
	}
	at := e.random.IntN(len(c.stations) + 1)
	c.stations = slices.Insert(c.stations, at, s)
	return "add " + c.name + "/" + s.name
}

func (e *editor) removeStation() string {
	c, s := e.station()
	if s == nil || e.count() < 25 {
		return ""
	}
	c.stations = slices.DeleteFunc(c.stations, func(other *editedStation) bool { return other == s })
	if c.gateway == s.name {
		c.gateway = ""
	}
	return "remove " + c.name + "/" + s.name
}

func (e *editor) changeCluster() string {
	c := e.cluster()
	switch e.random.IntN(3) {
	case 0:
		c.mtu = 1280 + e.random.IntN(220)
	case 1:
		c.six = !c.six
	case 2:
		e.made++
		c.domain = fmt.Sprintf("%s.d%d.example", c.name, e.made)
	}
	return fmt.Sprintf("cluster %s has MTU %d, IPv6 %t, domain %s", c.name, c.mtu, c.six, c.domain)
}

// changeGateway makes a station its cluster's gateway, or the backbone again.
func (e *editor) changeGateway() string {
	c, s := e.station()
	if s == nil || s.kind == "job" || s.keys["replicas"] != "" {
		return ""
	}
	if c.gateway != "" {
		c.gateway = ""
	} else {
		c.gateway = s.name
	}
	return fmt.Sprintf("gateway of %s is %q", c.name, c.gateway)
}

func (e *editor) changeInterfaces() string {
	c, s := e.station()
	if s == nil {
		return ""
	}
	if len(s.interfaces) > 0 && e.random.IntN(2) == 0 {
		at := e.random.IntN(len(s.interfaces))
		s.interfaces = slices.Delete(s.interfaces, at, at+1)
		return c.name + "/" + s.name + " loses an interface"
	}
	to := e.cluster().name
	if to == c.name || slices.Contains(s.interfaces, to) {
		return ""
	}
	s.interfaces = append(s.interfaces, to)
	return c.name + "/" + s.name + " gets an interface in " + to
}

// change sets a key of a station, or takes it away.
func (e *editor) change(key string, value func(*editedCluster) string) func() string {
	return func() string {
		c, s := e.station()
		if s == nil {
			return ""
		}
		switch key {
		case "healthcheck", "startup", "command":
			if s.kind != "sleeper" {
				return ""
			}
		case "restart":
			if s.kind == "job" { // it would run for ever
				return ""
			}
		case "replicas":
			if c.gateway == s.name || s.keys["address"] != "" {
				return ""
			}
		case "address":
			if s.keys["replicas"] != "" {
				return ""
			}
		}
		what := c.name + "/" + s.name + " " + key
		if s.keys[key] != "" && key != "command" && e.random.IntN(2) == 0 {
			delete(s.keys, key)
			return "no " + what
		}
		s.keys[key] = value(c)
		return what + " " + s.keys[key]
	}
}

// yaml is the file.
func (e *editor) yaml() string {
	var f strings.Builder
	f.WriteString("backbone: {egress: none, host_routes: false}\nclusters:\n")
	for _, c := range e.clusters {
		fmt.Fprintf(&f, "  %s:\n    domain: %s\n    mtu: %d\n", c.name, c.domain, c.mtu)
		if c.six {
			fmt.Fprintf(&f, "    subnets: [10.60.%d.0/24, 'fd60:%d::/64']\n", c.number, c.number)
		} else {
			fmt.Fprintf(&f, "    subnet: 10.60.%d.0/24\n", c.number)
		}
		if c.gateway != "" {
			fmt.Fprintf(&f, "    gateway: %s\n", c.gateway)
		}
		if len(c.stations) > 0 {
			f.WriteString("    stations:\n")
		}
		for _, s := range c.stations {
			fmt.Fprintf(&f, "      %s:\n        stop_grace_period: 1s\n", s.name)
			for _, key := range slices.Sorted(maps.Keys(s.keys)) {
				fmt.Fprintf(&f, "        %s: %s\n", key, s.keys[key])
			}
			if len(s.interfaces) > 0 {
				f.WriteString("        interfaces: [{cluster: " + strings.Join(s.interfaces, "}, {cluster: ") + "}]\n")
			}
			for _, host := range []string{s.name, s.name + "-1", s.name + "-3"} {
				e.named[host+"."+c.domain] = true
			}
			if alias := strings.Trim(s.keys["aliases"], "[]"); alias != "" {
				e.named[alias+"."+c.domain] = true
			}
		}
	}
	return f.String()
}

// hosts lists every name that a file has given.
func (e *editor) hosts() []string { return slices.Sorted(maps.Keys(e.named)) }
