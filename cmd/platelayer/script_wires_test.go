package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// asPlannedCommand: `asplanned [FILE]` compares what `plan --json` says of each
// container of $NAME with what iproute2 tells of its namespace: interfaces and
// their names, MACs, MTUs, addresses in order, loopback addresses, static routes.
func asPlannedCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("asplanned takes no !")
	}
	ts.Check(ts.Exec("platelayer", append([]string{"plan", "--json", "-n", ts.Getenv("NAME")}, args...)...))
	var plan netplan.Plan
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &plan))
	for i := range plan.Nodes {
		n := &plan.Nodes[i]
		if n.Station == "" {
			continue
		}
		if diff := cmp.Diff(wired(n), shown(ts, n.NetNS)); diff != "" {
			ts.Fatalf("%s: the plan (-) and iproute2 (+) differ:\n%s", n.NetNS, diff)
		}
	}
}

// wired is a node of a plan, a line for each thing in it.
func wired(n *netplan.Node) []string {
	var all []string
	for _, f := range n.Interfaces {
		all = append(all, fmt.Sprintf("%s %s mtu %d %s", f.Name, f.MAC, f.MTU, addressesText(f.Addresses)))
	}
	all = append(all, loopbackText(n.Loopback))
	for _, r := range n.Routes {
		if r.To.Addr().Is6() && r.Metric == 0 {
			r.Metric = 1024 // what the kernel takes for none
		}
		all = append(all, r.Text())
	}
	slices.Sort(all)
	return all
}

// addressesText has those of IPv4 first, as `ip address` does.
func addressesText(addresses []netip.Prefix) string {
	var four, six []string
	for _, a := range addresses {
		if a.Addr().Is4() {
			four = append(four, a.String())
		} else {
			six = append(six, a.String())
		}
	}
	return strings.Join(append(four, six...), " ")
}

// loopbackText is in no order: each address is a subnet of its own.
func loopbackText(addresses []netip.Prefix) string {
	sorted := slices.Clone(addresses)
	slices.SortFunc(sorted, netip.Prefix.Compare)
	return "lo " + addressesText(sorted)
}

// shown is what iproute2 tells of a namespace, in wired's words.
func shown(ts *testscript.TestScript, netns string) []string {
	var links []struct {
		Name      string `json:"ifname"`
		MAC       string `json:"address"`
		MTU       int    `json:"mtu"`
		State     string `json:"operstate"`
		Addresses []struct {
			IP    netip.Addr `json:"local"`
			Bits  int        `json:"prefixlen"`
			Scope string     `json:"scope"`
		} `json:"addr_info"`
	}
	ipJSON(ts, &links, "-n", netns, "address")
	var all []string
	for _, l := range links {
		var addresses []netip.Prefix
		for _, a := range l.Addresses {
			if a.Scope == "global" && !a.IP.IsLoopback() {
				addresses = append(addresses, netip.PrefixFrom(a.IP, a.Bits))
			}
		}
		if l.Name == "lo" {
			all = append(all, loopbackText(addresses))
			continue
		}
		if l.State != "UP" {
			ts.Fatalf("%s of %s is %s", l.Name, netns, l.State)
		}
		all = append(all, fmt.Sprintf("%s %s mtu %d %s", l.Name, l.MAC, l.MTU, addressesText(addresses)))
	}
	for _, family := range []string{"-4", "-6"} {
		var routes []struct {
			Type, Dst, Gateway, Dev, Table string
			Metric                         uint32
		}
		ipJSON(ts, &routes, "-n", netns, family, "route", "show", "table", "all", "proto", "static")
		for _, r := range routes {
			to := r.Dst
			switch {
			case to == "default" && family == "-4":
				to = "0.0.0.0/0"
			case to == "default":
				to = "::/0"
			case !strings.Contains(to, "/"):
				to += map[string]string{"-4": "/32", "-6": "/128"}[family]
			}
			route := netplan.Route{Type: r.Type, Dev: r.Dev, Metric: r.Metric}
			var err error
			route.To, err = netip.ParsePrefix(to)
			ts.Check(err)
			if r.Gateway != "" {
				route.Via, err = netip.ParseAddr(r.Gateway)
				ts.Check(err)
			}
			if r.Type != "" {
				route.Dev = ""
			}
			if r.Table != "" {
				_, err = fmt.Sscan(r.Table, &route.Table)
				ts.Check(err)
			}
			all = append(all, route.Text())
		}
	}
	slices.Sort(all)
	return all
}

func ipJSON(ts *testscript.TestScript, into any, args ...string) {
	out, err := exec.Command("ip", append([]string{"-j"}, args...)...).Output()
	if err != nil {
		ts.Fatalf("ip %q: %v", args, err)
	}
	if len(strings.TrimSpace(string(out))) > 0 {
		ts.Check(json.Unmarshal(out, into))
	}
}

// captures are those that are open, sockets by file. Scripts run side by side.
type captures struct {
	mu   sync.Mutex
	open map[string]int
}

func newCaptures() *captures { return &captures{open: map[string]int{}} }

// take ends a capture and gives its socket.
func (all *captures) take(file string) (fd int, there bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	fd, there = all.open[file]
	delete(all.open, file)
	return fd, there
}

// start: `capture FILE NETNS DEV` begins to record what passes an interface.
func (all *captures) start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: capture file netns dev")
	}
	err := inNamespace("/run/netns/"+args[1], func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		key := filepath.Join(ts.Getenv("WORK"), args[0])
		ts.Defer(func() {
			if fd, there := all.take(key); there {
				unix.Close(fd)
			}
		})
		all.mu.Lock()
		all.open[key] = fd
		all.mu.Unlock()
		req, err := unix.NewIfreq(args[2])
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
			return err
		}
		const each = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network byte order
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: each, Ifindex: int(req.Uint32())})
	})
	if err != nil {
		ts.Fatalf("cannot capture: %v", err)
	}
}

// stop: `captured FILE` ends a capture and writes its IP packets there, one a
// line: "in tcp 10.40.0.10 > 10.41.0.10", without those of neighbour discovery.
func (all *captures) stop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: captured file")
	}
	key := filepath.Join(ts.Getenv("WORK"), args[0])
	fd, there := all.take(key)
	if !there {
		ts.Fatalf("no capture %s", args[0])
	}
	defer unix.Close(fd)
	var text strings.Builder
	buf := make([]byte, 64<<10)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			ts.Fatalf("cannot read the capture: %v", err)
		}
		way := "in"
		if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING {
			way = "out"
		}
		if line := packetText(buf[:n]); line != "" {
			fmt.Fprintln(&text, way, line)
		}
	}
	ts.Check(os.WriteFile(key, []byte(text.String()), 0o644))
}

// packetText tells of an IP packet (RFC 791, RFC 8200), "" of others.
func packetText(p []byte) string {
	names := map[byte]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
	addr := func(b []byte) netip.Addr { a, _ := netip.AddrFromSlice(b); return a }
	switch {
	case len(p) >= 20 && p[0]>>4 == 4 && int(binary.BigEndian.Uint16(p[2:])) <= len(p):
		return fmt.Sprintf("%s %s > %s", names[p[9]], addr(p[12:16]), addr(p[16:20]))
	case len(p) > 40 && p[0]>>4 == 6 && p[6] == 58 && p[40] >= 130:
		return "" // multicast listeners, neighbours (RFC 3810, RFC 4861)
	case len(p) > 40 && p[0]>>4 == 6 && names[p[6]] != "":
		return fmt.Sprintf("%s %s > %s", names[p[6]], addr(p[8:24]), addr(p[24:40]))
	}
	return ""
}
