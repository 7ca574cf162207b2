package kernel

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"platelayer/netplan"
	"platelayer/topology"
)

// change brings l from its plan to that of top, as `up` does.
func (l *lab) change(top *topology.Topology) {
	l.Helper()
	p, err := netplan.Build(top)
	if err != nil {
		l.Fatal(err)
	}
	l.changeTo(p)
}

func (l *lab) changeTo(p *netplan.Plan) {
	l.Helper()
	var names []string
	for _, c := range netplan.Diff(l.plan, p) {
		if c.Verb == netplan.VerbChange && !slices.Contains(names, c.NetNS) {
			names = append(names, c.NetNS)
		}
	}
	was := l.plan
	l.plan = p
	l.extend()
	if err := Converge(context.Background(), was, p, l.options, names); err != nil {
		l.Fatal(err)
	}
	if err := Prune(p, l.options); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) extend() {
	l.Helper()
	if err := Extend(context.Background(), l.plan, l.options); err != nil {
		l.Fatal(err)
	}
}

// converge returns how much was sent.
func (l *lab) converge(netns ...string) int {
	l.Helper()
	all, err := converge(context.Background(), nil, l.plan, l.options, netns)
	sent := 0
	for _, n := range all {
		sent += n
	}
	if err != nil {
		l.Fatal(err)
	}
	return sent
}

// repair does for the whole plan what `up` does after a killed one.
func (l *lab) repair() {
	l.Helper()
	l.extend()
	l.converge(l.plan.NetNSNames()...)
	if err := Prune(l.plan, l.options); err != nil {
		l.Fatal(err)
	}
}

// fresh applies l's plan from nothing under another name.
func (l *lab) fresh(top func(name string) *topology.Topology) *lab {
	l.Helper()
	name := l.plan.Topology + "-fresh"
	p, err := netplan.Build(top(name))
	if err != nil {
		l.Fatal(err)
	}
	other := &lab{T: l.T, plan: p, options: optionsFor(name)}
	l.Cleanup(func() { _ = Remove(other.options) })
	if err := Apply(context.Background(), p, other.options); err != nil {
		l.Fatal(err)
	}
	return other
}

// volatile is what differs between two of the same: indexes, identifiers,
// timers, and the numbers a bridge gives its ports.
var volatile = regexp.MustCompile(`^\d+: |@if\d+|link-netnsid \d+|\b\w+_timer +[\d.]+|\b(port_no|port_id|designated_port|brd_?port_id) \S+|new_ifindex \d+|ifindex \d+`)

// shown is all that iproute2 and /proc/sys tell of each namespace.
func (l *lab) shown() map[string][]string {
	l.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		l.Skip("needs iproute2: ", err)
	}
	ip := func(netns, commands string, options ...string) string {
		cmd := exec.Command("ip", append(options, "-n", netns, "-d", "-o", "-batch", "-")...)
		cmd.Stdin = strings.NewReader(commands)
		var failed strings.Builder
		cmd.Stderr = &failed
		out, err := cmd.Output()
		if err != nil {
			l.Fatalf("ip in %s: %v: %s", netns, err, failed.String())
		}
		return string(out)
	}
	all := map[string][]string{"machine": l.onMachine()}
	for _, name := range l.plan.NetNSNames() {
		node := strings.TrimPrefix(name, l.plan.Topology+".")
		// The kernel takes an address of its own up a moment after the interface.
		for deadline := time.Now().Add(5 * time.Second); strings.Contains(ip(name, "addr show\n"), " tentative") && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		// The first IPv6 address of a subnet is the source of what the kernel sends.
		first := map[string]bool{}
		for line := range strings.Lines(ip(name, "addr show scope global\n", "-6")) {
			words := strings.Fields(line)
			if subnet := words[1] + " " + netip.MustParsePrefix(words[3]).Masked().String(); !first[subnet] {
				first[subnet] = true
				all[node] = append(all[node], "first of "+subnet+": "+words[3])
			}
		}
		out := ip(name, "link show\naddr show\nroute show table all\nrule show\n") + ip(name, "rule show\n", "-6")
		for line := range strings.Lines(out) {
			line = strings.ReplaceAll(volatile.ReplaceAllString(line, ""), l.plan.Topology, "NAME")
			all[node] = append(all[node], strings.Join(strings.Fields(line), " "))
		}
		if rules, err := exec.Command("nsenter", "--net="+filepath.Join(l.options.NetNSDir, name), "nft", "list", "ruleset").Output(); err == nil {
			all[node] = append(all[node], strings.Split(sortRuleset(string(rules)), "\n")...)
		}
		l.in(node, func() error {
			s, err := openSocket()
			if err != nil {
				return err
			}
			defer s.close()
			links, err := s.links()
			if err != nil {
				return err
			}
			ports, err := s.portVLANs()
			if err != nil {
				return err
			}
			for _, l := range links {
				if v, ok := ports[l.index]; ok {
					all[node] = append(all[node], fmt.Sprintf("VLANs of %s: %v", l.name, v))
				}
			}
			for _, key := range []string{"ip_forward", "ip_unprivileged_port_start", "ping_group_range", "conf/*/accept_redirects", "conf/*/send_redirects",
				"conf/*/rp_filter", "conf/*/forwarding", "conf/*/disable_ipv6", "conf/*/accept_ra", "conf/*/accept_dad",
				"conf/*/arp_notify", "conf/*/ndisc_notify", "conf/*/promote_secondaries"} {
				files, err := filepath.Glob("/proc/sys/net/ipv[46]/" + key)
				if err != nil {
					return err
				}
				for _, file := range files {
					raw, err := os.ReadFile(file)
					if err != nil {
						return err
					}
					all[node] = append(all[node], file+" "+strings.TrimSpace(string(raw)))
				}
			}
			return nil
		})
		slices.Sort(all[node])
	}
	return all
}

// onMachine is what the machine itself has of the topology.
func (l *lab) onMachine() []string {
	l.Helper()
	out, err := exec.Command("ip", "-d", "-o", "link", "show").Output()
	if err != nil {
		l.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "alias "+l.options.mark()) {
			continue
		}
		name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
		name = strings.TrimSuffix(name, ":")
		line = volatile.ReplaceAllString(line, "")
		line = strings.ReplaceAll(line, l.options.mark(), "MARK")
		line = regexp.MustCompile(`plw?-[^@ :]+|link-netns \S+`).ReplaceAllString(line, "X")
		line = regexp.MustCompile(`MARK( [-+]\d+)*`).ReplaceAllString(line, "MARK") // what is attached is the machine's
		told := strings.Fields(line)
		for _, key := range []string{"ipv4/conf/%s/arp_ignore", "ipv4/conf/%s/rp_filter", "ipv6/conf/%s/disable_ipv6"} {
			value, err := os.ReadFile("/proc/sys/net/" + fmt.Sprintf(key, name))
			if err != nil {
				l.Fatal(err)
			}
			told = append(told, key, strings.TrimSpace(string(value)))
		}
		all = append(all, strings.Join(told, " "))
	}
	slices.Sort(all) // not as they were made
	return all
}

// wantFresh compares l with its plan applied from nothing.
func (l *lab) wantFresh(top func(name string) *topology.Topology) {
	l.Helper()
	other := l.fresh(top)
	// A carrier's coming is noticed by a work queue of the kernel's (linkwatch),
	// at most once a second.
	diff := ""
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if diff = cmp.Diff(other.shown(), l.shown()); diff == "" || time.Now().After(end) {
			break
		}
	}
	if diff != "" {
		l.Errorf("applied from nothing (-) and changed (+) differ:\n%s", diff)
	}
	if names := l.names(); !slices.Equal(names, other.names()) {
		l.Errorf("namespaces are %q, from nothing %q", names, other.names())
	}
	if err := Remove(other.options); err != nil {
		l.Error(err)
	}
}

// names are the namespaces that have one, without the topology's name.
func (l *lab) names() []string {
	l.Helper()
	found, err := filepath.Glob(filepath.Join(l.options.NetNSDir, l.plan.Topology+".*"))
	if err != nil {
		l.Fatal(err)
	}
	for i, name := range found {
		found[i] = strings.TrimPrefix(filepath.Base(name), l.plan.Topology+".")
	}
	return found
}

// edits are changes of the sample.
func edits() map[string]func(t *topology.Topology) {
	return map[string]func(t *topology.Topology){
		"nothing": func(t *topology.Topology) {},
		"station more": func(t *topology.Topology) {
			t.Clusters[1].Stations = append(t.Clusters[1].Stations, topology.Station{Name: "d", Cluster: "app", Addresses: addrs("10.20.0.13")})
		},
		"cluster more": func(t *topology.Topology) {
			t.Clusters = append(t.Clusters, topology.Cluster{Name: "new", Domain: "new.test", MTU: 1500,
				Subnets: prefixes("10.40.0.0/24"), BackboneAddresses: addrs("10.40.0.1"),
				Stations: []topology.Station{{Name: "n", Cluster: "new", Addresses: addrs("10.40.0.11")}}})
		},
		"station less":   func(t *topology.Topology) { t.Clusters[1].Stations = t.Clusters[1].Stations[1:] },
		"cluster less":   func(t *topology.Topology) { t.Clusters = t.Clusters[:2]; strip(t, "plain") },
		"address":        func(t *topology.Topology) { t.Clusters[2].Stations[0].Addresses = addrs("10.30.0.77") },
		"address more":   func(t *topology.Topology) { t.Clusters[2].Stations[0].Addresses = addrs("10.30.0.11", "10.30.0.77") },
		"address before": func(t *topology.Topology) { t.Clusters[2].Stations[0].Addresses = addrs("10.30.0.77", "10.30.0.11") },
		"IPv6 address more": func(t *topology.Topology) {
			t.Clusters[1].Stations[0].Addresses = append(addrs("fd00:20::7"), t.Clusters[1].Stations[0].Addresses...)
		},
		"IPv6 address behind": func(t *topology.Topology) {
			t.Clusters[1].Stations[0].Addresses = append(t.Clusters[1].Stations[0].Addresses, addrs("fd00:20::7", "fd00:20::8")...)
		},
		"addresses moved": func(t *topology.Topology) { swap(&t.Clusters[1].Stations[0], &t.Clusters[1].Stations[1]) },
		"route": func(t *topology.Topology) {
			t.Clusters[2].Stations[0].Routes = []topology.Route{{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("10.30.0.99")}}
		},
		"MTU":              func(t *topology.Topology) { t.Clusters[0].MTU, t.Clusters[2].MTU = 1300, 1500 },
		"no gateway":       func(t *topology.Topology) { t.Clusters[0].Gateway = "" },
		"other gateway":    func(t *topology.Topology) { t.Clusters[0].Gateway = "a" },
		"gateway":          func(t *topology.Topology) { t.Clusters[1].Gateway = "b" },
		"gateways":         func(t *topology.Topology) { t.Clusters[0].Gateway, t.Clusters[1].Gateway = "", "multi" },
		"interface less":   func(t *topology.Topology) { t.Clusters[1].Stations[1].Interfaces = nil },
		"interface more":   func(t *topology.Topology) { visit(&t.Clusters[1].Stations[0], "plain", "10.30.0.13") },
		"interface moved":  func(t *topology.Topology) { visit(&t.Clusters[1].Stations[1], "web", "203.0.113.12") },
		"backbone":         func(t *topology.Topology) { t.Clusters[1].BackboneAddresses = addrs("10.20.0.254", "fd00:20::fe") },
		"subnet":           func(t *topology.Topology) { renumber(&t.Clusters[2]) },
		"IPv6 less":        func(t *topology.Topology) { onlyIPv4(&t.Clusters[0]); onlyIPv4(&t.Clusters[1]) },
		"IPv6 less in app": func(t *topology.Topology) { onlyIPv4(&t.Clusters[1]) },
		"link": func(t *topology.Topology) {
			t.Links = []topology.Link{linkOf(&t.Clusters[1].Stations[0], &t.Clusters[2].Stations[0], "10.98.0.0/31", "fd98::/127")}
		},
		"links without addresses": func(t *topology.Topology) {
			a, c := &t.Clusters[1].Stations[0], &t.Clusters[2].Stations[0]
			t.Links = []topology.Link{linkOf(a, c), linkOf(c, a)}
			t.Links[1].Ends[0].Name, t.Links[1].Ends[1].Name, t.Links[1].MTU = "wan0", "wan0", 9000
		},
		"inline gateway": func(t *topology.Topology) { inline(&t.Clusters[0]) },
		"isolated":       func(t *topology.Topology) { t.Clusters[0].Isolated, t.Clusters[1].Allow = true, []string{"plain"} },
		"no leg":         func(t *topology.Topology) { t.Clusters[2].BackboneAddresses = nil },
		"no legs": func(t *topology.Topology) {
			for i := range t.Clusters {
				t.Clusters[i].BackboneAddresses = nil
			}
		},
		"loopback": func(t *topology.Topology) { t.Clusters[2].Stations[0].Loopback = addrs("10.255.0.1", "fdff::1") },
		"routes to nowhere": func(t *topology.Topology) {
			t.Clusters[2].Stations[0].Routes = []topology.Route{
				{To: netip.MustParsePrefix("198.51.100.0/24"), Type: topology.RouteBlackhole},
				{To: netip.MustParsePrefix("fd77::/64"), Type: topology.RouteUnreachable},
				{To: netip.MustParsePrefix("198.51.100.0/24"), Type: topology.RouteProhibit, Metric: 50},
				{To: netip.MustParsePrefix("203.0.113.0/24"), Dev: "eth0", Metric: 9},
			}
		},
		"backbone's routes": func(t *topology.Topology) {
			t.Backbone.Routes = []topology.Route{{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("10.30.0.11")},
				{To: netip.MustParsePrefix("198.51.101.0/24"), Type: topology.RouteBlackhole}}
		},
		"bridge on the machine":         func(t *topology.Topology) { t.Clusters[1].Switch = topology.SwitchHost },
		"bridge on the machine and MTU": func(t *topology.Topology) { t.Clusters[2].Switch, t.Clusters[2].MTU = topology.SwitchHost, 1400 },
		"VLANs and a bridge on the machine": func(t *topology.Topology) {
			t.Clusters[1].Switch, t.Clusters[1].Stations[0].VLANs = topology.SwitchHost, topology.VLANs{Tagged: []int{7}}
		},
		"VLANs": func(t *topology.Topology) {
			t.Clusters[1].Stations[0].VLANs = topology.VLANs{Untagged: 10, Tagged: []int{20, 30}}
			t.Clusters[1].Stations[1].VLANs = topology.VLANs{Tagged: []int{1, 20}}
			t.Clusters[0].Stations[0].VLANs = topology.VLANs{Untagged: 4094}
		},
		"VLANs and a station more": func(t *topology.Topology) {
			t.Clusters[1].Stations = append(t.Clusters[1].Stations, topology.Station{Name: "d", Cluster: "app", Addresses: addrs("10.20.0.13"), VLANs: topology.VLANs{Untagged: 20}})
		},
		"names and MACs": func(t *topology.Topology) {
			s := &t.Clusters[2].Stations[0]
			s.InterfaceName, s.MAC = "lan0", "02:42:00:00:00:07"
		},
	}
}

// linkOf is one between two stations, whose interfaces have the next numbers.
func linkOf(a, b *topology.Station, subnets ...string) topology.Link {
	k := topology.Link{MTU: 1500}
	for i, s := range []*topology.Station{a, b} {
		k.Ends[i] = topology.LinkEnd{Station: s.ID(), Name: fmt.Sprintf("eth%d", len(s.Interfaces)+1)}
	}
	for _, s := range subnets {
		p := netip.MustParsePrefix(s)
		k.Subnets = append(k.Subnets, p)
		k.Ends[0].Addresses = append(k.Ends[0].Addresses, p.Addr())
		k.Ends[1].Addresses = append(k.Ends[1].Addresses, p.Addr().Next())
	}
	return k
}

// inline puts a cluster's gateway between it and the backbone.
func inline(c *topology.Cluster) {
	c.BackboneAddresses, c.Standby = nil, nil
	for i, s := range c.Subnets {
		transit := fmt.Sprintf("10.99.%d.0/31", c.Subnets[0].Addr().As4()[1])
		if s.Addr().Is6() {
			transit = fmt.Sprintf("fd99:%d::/127", c.Subnets[0].Addr().As4()[1])
		}
		if i < 2 {
			c.Transit = append(c.Transit, netip.MustParsePrefix(transit))
		}
	}
}

func strip(t *topology.Topology, cluster string) {
	for i := range t.Clusters {
		for j := range t.Clusters[i].Stations {
			s := &t.Clusters[i].Stations[j]
			s.Interfaces = slices.DeleteFunc(s.Interfaces, func(f topology.Interface) bool { return f.Cluster == cluster })
		}
	}
}

func swap(a, b *topology.Station) { a.Addresses, b.Addresses = b.Addresses, a.Addresses }

func visit(s *topology.Station, cluster, addr string) {
	s.Interfaces = []topology.Interface{{Cluster: cluster, Addresses: addrs(addr)}}
}

// renumber gives the cluster plain, and the visitors' interfaces, 10.31.0.0/24;
// visitors keep theirs, which therefore go.
func renumber(c *topology.Cluster) {
	c.Subnets, c.BackboneAddresses = prefixes("10.31.0.0/16"), addrs("10.31.0.1")
	c.Stations[0].Addresses = addrs("10.31.0.11")
}

func onlyIPv4(c *topology.Cluster) {
	six := func(a netip.Addr) bool { return a.Is6() }
	c.Subnets = c.Subnets[:1]
	c.BackboneAddresses = slices.DeleteFunc(c.BackboneAddresses, six)
	for i := range c.Stations {
		c.Stations[i].Addresses = slices.DeleteFunc(c.Stations[i].Addresses, six)
	}
}

// edited is the sample after an edit.
func edited(edit string) func(name string) *topology.Topology {
	return func(name string) *topology.Topology {
		t := sample(name)
		edits()[edit](t)
		if edit == "subnet" {
			strip(t, "plain")
		}
		return t
	}
}

// TestChangeIsLikeFromNothing goes to each edit and back.
func TestChangeIsLikeFromNothing(t *testing.T) {
	l := up(t, "edit")
	name := l.plan.Topology
	for edit := range edits() {
		l.T = t
		ok := t.Run(edit, func(t *testing.T) {
			l.T = t
			if strings.HasPrefix(edit, "VLANs") {
				needsVLANs(t)
			}
			l.change(edited(edit)(name))
			l.wantFresh(edited(edit))
			if sent := l.converge(l.plan.NetNSNames()...); sent != 0 {
				t.Errorf("%d requests after the change", sent)
			}
			l.change(sample(name))
			l.wantFresh(sample)
		})
		l.T = t
		if !ok {
			l.repair()
		}
	}
}

func TestRandomChangesAreLikeFromNothing(t *testing.T) {
	l := up(t, "random")
	name := l.plan.Topology
	pairs := 100
	if testing.Short() {
		pairs = 10
	}
	for seed := range pairs {
		top := func(name string) *topology.Topology { return random(name, uint64(seed)) }
		l.change(top(name))
		l.wantFresh(top)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// random is a topology of up to four clusters, out of few names and addresses,
// so that two have much in common.
func random(name string, seed uint64) *topology.Topology {
	r := rand.New(rand.NewPCG(seed, 1))
	top := &topology.Topology{Name: name}
	for c := range 4 {
		if r.IntN(4) == 0 && (c > 0 || len(top.Clusters) > 0) {
			continue
		}
		top.Clusters = append(top.Clusters, randomCluster(r, c))
	}
	for i := range top.Clusters {
		for j := range top.Clusters[i].Stations {
			s := &top.Clusters[i].Stations[j]
			for k := range top.Clusters {
				if to := &top.Clusters[k]; k != i && r.IntN(4) == 0 {
					host := 100 + 10*i + j
					s.Interfaces = append(s.Interfaces, topology.Interface{Cluster: to.Name, Addresses: hosts(to, host)})
				}
			}
		}
	}
	all := top.Stations()
	for k := range 6 {
		if len(all) < 2 || r.IntN(3) > 0 {
			continue
		}
		pair := r.Perm(len(all))[:2]
		var subnets []string
		if r.IntN(3) > 0 {
			subnets = append(subnets, fmt.Sprintf("10.98.%d.0/31", k))
		}
		if r.IntN(3) == 0 {
			subnets = append(subnets, fmt.Sprintf("fd98:%d::/127", k))
		}
		l := linkOf(all[pair[0]], all[pair[1]], subnets...)
		l.Ends[0].Name, l.Ends[1].Name = fmt.Sprintf("l%d", k), fmt.Sprintf("l%d%s", k, []string{"", "b"}[r.IntN(2)])
		top.Links = append(top.Links, l)
	}
	return top
}

func randomCluster(r *rand.Rand, c int) topology.Cluster {
	cluster := topology.Cluster{Name: "c" + string(rune('0'+c)), Domain: "test", MTU: []int{1500, 1500, 1400}[r.IntN(3)]}
	v4 := netip.AddrFrom4([4]byte{10, byte(c), byte(r.IntN(2)), 0})
	cluster.Subnets = []netip.Prefix{netip.PrefixFrom(v4, 24)}
	if r.IntN(2) == 0 {
		six := netip.MustParseAddr("fd00::").As16()
		six[3] = byte(c)
		cluster.Subnets = append(cluster.Subnets, netip.PrefixFrom(netip.AddrFrom16(six), 64))
	}
	cluster.BackboneAddresses = hosts(&cluster, []int{1, 254}[r.IntN(2)])
	for _, s := range r.Perm(4)[:r.IntN(4)] {
		st := topology.Station{Name: "s" + string(rune('0'+s)), Cluster: cluster.Name, Addresses: hosts(&cluster, 10+s)}
		if r.IntN(3) == 0 {
			st.Addresses = append(st.Addresses, hosts(&cluster, 20+s)[0])
		}
		if r.IntN(4) == 0 {
			slices.Reverse(st.Addresses)
		}
		if r.IntN(5) == 0 {
			st.Loopback = addrs("10.255.0.1", "fdff::1")[r.IntN(2):]
		}
		if r.IntN(5) == 0 {
			st.InterfaceName = "lan0"
		}
		if r.IntN(5) == 0 {
			st.MAC = fmt.Sprintf("02:42:00:00:%02x:%02x", c, s)
		}
		if r.IntN(3) == 0 {
			st.Routes = append(st.Routes, topology.Route{To: netip.MustParsePrefix("198.51.100.0/24"), Metric: 7,
				Type: []string{topology.RouteBlackhole, topology.RouteProhibit}[r.IntN(2)]})
		}
		if r.IntN(3) == 0 {
			st.Routes = append(st.Routes, topology.Route{To: netip.MustParsePrefix("198.51.100.0/24"), Via: hosts(&cluster, 90+r.IntN(2))[0]})
		}
		cluster.Stations = append(cluster.Stations, st)
	}
	if len(cluster.Stations) > 0 && r.IntN(2) == 0 {
		cluster.Gateway = cluster.Stations[r.IntN(len(cluster.Stations))].Name
		for _, s := range cluster.Stations {
			if s.Name != cluster.Gateway && r.IntN(3) == 0 {
				cluster.Standby = []topology.Gateway{{Station: s.Name, Metric: 100}}
			}
		}
		if r.IntN(3) == 0 {
			inline(&cluster)
		}
	}
	cluster.Isolated = r.IntN(5) == 0
	if r.IntN(5) == 0 {
		cluster.Switch = topology.SwitchHost
	}
	if r.IntN(6) == 0 && cluster.Transit == nil && len(cluster.Stations) > 0 { // a bridge that has lost all ports differs
		cluster.BackboneAddresses = nil
	}
	return cluster
}

// hosts is the host's address in each subnet of c.
func hosts(c *topology.Cluster, host int) []netip.Addr {
	var as []netip.Addr
	for _, s := range c.Subnets {
		raw := s.Addr().AsSlice()
		raw[len(raw)-1] = byte(host)
		a, _ := netip.AddrFromSlice(raw)
		as = append(as, a)
	}
	return as
}
