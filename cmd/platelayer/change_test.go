package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestChangeLosesNothing edits a running topology again and again. Between its
// stations, in one network, across the backbone and through a gateway, a
// datagram goes out and comes back each millisecond: none is lost, and no
// station gets another process.
func TestChangeLosesNothing(t *testing.T) {
	needsRoot(t)
	program, root, dir := build(t), t.TempDir(), t.TempDir()
	name := fmt.Sprintf("t%d-change", os.Getpid())
	t.Cleanup(func() { downAll(t, program, root) })
	run := func(args ...string) string {
		t.Helper()
		text, err := exec.Command(program, append([]string{"--root", root, "-n", name}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, text)
		}
		return string(text)
	}
	file := filepath.Join(dir, "platelayer.yaml")
	up := func(text string) string {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return run("up", file)
	}
	pids := func() map[string]int {
		t.Helper()
		var list []struct {
			Container string
			Pid       int
		}
		if err := json.Unmarshal([]byte(run("ps", "--json")), &list); err != nil {
			t.Fatal(err)
		}
		all := map[string]int{}
		for _, s := range list {
			all[s.Container] = s.Pid
		}
		return all
	}
	up(changeBase)
	before := pids()
	open := func(t *testing.T) (all []*stream) {
		t.Helper()
		for _, path := range []struct{ from, to, address string }{
			{"lan.a", "lan.b", "203.0.113.12"}, {"lan.a", "far.c", "10.30.0.11"},
			{"lan.a", "edge.d", "198.51.100.11"}, {"edge.d", "far.c", "10.30.0.11"},
			{"lan.a", "far.c", "fd00:30::11"}, {"lan.b", "far.c", "10.250.0.1"},
		} {
			s, err := openStream(name+"."+path.from, name+"."+path.to, path.address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.close)
			all = append(all, s)
		}
		return all
	}

	for _, edit := range []struct{ what, text, told string }{
		{"a station more, a route, a limit", changeMore, "1 created, 2 changed in place"},
		{"another route, a name, a gateway's second interface", changeGateway, "3 changed in place"},
		{"a cluster more, a station less", changeCluster, "2 created, 1 removed"},
		{"clusters apart, routes that take others in, a gateway", changeApart, "4 changed in place"},
		{"all as it was", changeBase, "5 changed in place, 2 removed"},
	} {
		t.Run(edit.what, func(t *testing.T) {
			streams := open(t)
			told := up(edit.text)
			if !strings.Contains(told, edit.told) {
				t.Errorf("up says %q, want %q", told, edit.told)
			}
			for _, s := range streams {
				if sent, lost := s.end(); lost > 0 {
					t.Errorf("%s lost %d of %d:\n%s", s, lost, sent, s.losses())
				} else {
					t.Logf("%s lost none of %d", s, sent)
				}
			}
			now := pids()
			maps.DeleteFunc(now, func(station string, _ int) bool { return before[station] == 0 })
			if !maps.Equal(before, now) {
				t.Errorf("pids were %v and are %v", before, now)
			}
		})
	}

	// What is cut for a moment is seen.
	cut := open(t)[2]
	for _, verb := range []string{"add", "del"} {
		text, err := exec.Command("ip", "-n", name+".edge.gw", "route", verb, "blackhole", "198.51.100.11").CombinedOutput()
		if err != nil {
			t.Fatalf("cannot cut the gateway's path: %v\n%s", err, text)
		}
		cut.awaitSent(20)
	}
	if cut.overtaken() == 0 {
		t.Errorf("%s lost nothing though its path was cut", cut)
	}
}

const changeBase = `
backbone: {egress: none, routes: [{to: 10.250.0.1, via: 10.30.0.11}]}
clusters:
  lan:
    subnets: [203.0.113.0/24, "fd00:203::/64"]
    stations:
      a: {address: 203.0.113.11}
      b: {address: 203.0.113.12}
  far:
    subnets: [10.30.0.0/24, "fd00:30::/64"]
    stations:
      c: {addresses: [10.30.0.11, "fd00:30::11"], loopback: [10.250.0.1]}
  edge:
    subnet: 198.51.100.0/24
    gateway: gw
    stations:
      gw: {address: 198.51.100.1}
      d: {address: 198.51.100.11}
`

const changeMore = `
backbone: {egress: none, routes: [{to: 10.250.0.1, via: 10.30.0.11}]}
clusters:
  lan:
    subnets: [203.0.113.0/24, "fd00:203::/64"]
    stations:
      a: {address: 203.0.113.11}
      b: {address: 203.0.113.12, routes: [{to: 10.99.0.0/16, via: 203.0.113.11}]}
      e:
  far:
    subnets: [10.30.0.0/24, "fd00:30::/64"]
    stations:
      c: {addresses: [10.30.0.11, "fd00:30::11"], loopback: [10.250.0.1], mem_limit: 200m}
  edge:
    subnet: 198.51.100.0/24
    gateway: gw
    stations:
      gw: {address: 198.51.100.1}
      d: {address: 198.51.100.11}
`

const changeGateway = `
backbone: {egress: none, routes: [{to: 10.250.0.1, via: 10.30.0.11}]}
clusters:
  lan:
    subnets: [203.0.113.0/24, "fd00:203::/64"]
    stations:
      a: {address: 203.0.113.11}
      b: {address: 203.0.113.12, routes: [{to: 10.98.0.0/16, via: 203.0.113.11}]}
      e:
  far:
    subnets: [10.30.0.0/24, "fd00:30::/64"]
    stations:
      c: {addresses: [10.30.0.11, "fd00:30::11"], loopback: [10.250.0.1], mem_limit: 200m, aliases: [other]}
  edge:
    subnet: 198.51.100.0/24
    gateway: gw
    stations:
      gw: {address: 198.51.100.1, interfaces: [{cluster: lan, address: 203.0.113.99}]}
      d: {address: 198.51.100.11}
`

const changeCluster = `
backbone: {egress: none, routes: [{to: 10.250.0.1, via: 10.30.0.11}]}
clusters:
  lan:
    subnets: [203.0.113.0/24, "fd00:203::/64"]
    stations:
      a: {address: 203.0.113.11}
      b: {address: 203.0.113.12, routes: [{to: 10.98.0.0/16, via: 203.0.113.11}]}
  far:
    subnets: [10.30.0.0/24, "fd00:30::/64"]
    stations:
      c: {addresses: [10.30.0.11, "fd00:30::11"], loopback: [10.250.0.1], mem_limit: 200m, aliases: [other]}
  edge:
    subnet: 198.51.100.0/24
    gateway: gw
    stations:
      gw: {address: 198.51.100.1, interfaces: [{cluster: lan, address: 203.0.113.99}]}
      d: {address: 198.51.100.11}
  next:
    subnet: 10.31.0.0/24
    stations: {f: }
`

const changeApart = `
backbone:
  egress: none
  routes: [{to: 10.250.0.1, via: 10.30.0.11}, {to: 10.0.0.0/8, via: 10.30.0.11}, {to: "fd00::/16", via: "fd00:30::11"}]
clusters:
  lan:
    subnets: [203.0.113.0/24, "fd00:203::/64"]
    allow: [far, edge]
    stations:
      a: {address: 203.0.113.11}
      b: {address: 203.0.113.12, routes: [{to: 10.98.0.0/16, via: 203.0.113.11}]}
  far:
    subnets: [10.30.0.0/24, "fd00:30::/64"]
    stations:
      c: {addresses: [10.30.0.11, "fd00:30::11"], loopback: [10.250.0.1], mem_limit: 200m, aliases: [other]}
  edge:
    subnet: 198.51.100.0/24
    gateway: gw
    stations:
      gw: {address: 198.51.100.1, interfaces: [{cluster: lan, address: 203.0.113.99}]}
      d: {address: 198.51.100.11}
  next:
    subnets: [10.31.0.0/24, "fd00:31::/64"]
    isolated: true
    gateway: f
    stations: {f: }
`
