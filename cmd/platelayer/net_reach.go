package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/netplan"
	"platelayer/topology"
)

// wayBetween is what `net A B --json` prints for each address.
type wayBetween struct {
	From    string     `json:"from"`
	To      string     `json:"to"` // a station, or an address that is none's
	Address netip.Addr `json:"address"`
	OK      bool       `json:"ok"`
	Egress  string     `json:"egress,omitempty"` // where the address is outside: what holds for the station
	netplan.Reach
}

// whoMeetsWhom is what `net --json` prints.
type whoMeetsWhom struct {
	*netplan.Matrix
	Outside []wayOutside `json:"outside"`
}

func (a *app) reachCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "net [FILE|NAME] | net STATION STATION|ADDRESS",
		Short: "Tell who reaches whom, by which path, and why not",
		Long: `Tell who reaches whom, by which path, and why not: all clusters, or one station
and another, there and back. It is worked out from the plan as Linux would route
it, so it needs no privilege for a file and nothing that runs. What programs do on
stations, such as filters, is not in the plan: net check asks with real packets.

Columns are where addresses are: on a cluster's switch, on links, on loopbacks.
A number like 3/4 is how many of all pairs of a station and an address are
connected; - is none to ask. EGRESS is what a cluster's stations, or one that
differs from them, may reach outside of the topology.`,
		Example: `  platelayer net
  platelayer net www1 db
  platelayer net -f edited.yaml www1 198.51.100.7`,
		Args: atMost(2),
		RunE: func(_ *cobra.Command, args []string) error {
			file := args
			if len(args) == 2 {
				file = nil
			}
			t, _, err := a.described(file)
			if err != nil {
				return err
			}
			plan, err := netplan.Build(t)
			if err != nil {
				return err
			}
			network := netplan.NewNetwork(plan)
			if len(args) == 2 {
				return a.printWays(t, network, args[0], args[1])
			}
			m := whoMeetsWhom{network.Matrix(), waysOutside(t, network)}
			if a.json {
				return a.printJSON(m)
			}
			if _, err := a.stdout.WriteString(m.Text()); err != nil {
				return err
			}
			return a.printOutside(m.Outside)
		},
	})
}

func (a *app) printWays(t *topology.Topology, network *netplan.Network, from, to string) error {
	s, err := t.Lookup(from)
	if err != nil {
		return err
	}
	ways := []wayBetween{}
	netns := t.ContainerName(s)
	if address, err := netip.ParseAddr(to); err == nil {
		r := network.Reach(netns, address)
		way := wayBetween{From: s.ID(), To: address.String(), Address: address, OK: r.OK(), Reach: r}
		if r.Leaves() {
			way.Egress = t.EgressOf(t.Cluster(s.Cluster), s)
		}
		ways = append(ways, way)
	} else {
		other, err := t.Lookup(to)
		if err != nil {
			return err
		}
		for _, p := range network.Probes() {
			if p.NetNS == netns && p.Target.NetNS == t.ContainerName(other) {
				r := network.Reach(netns, p.Target.Address)
				ways = append(ways, wayBetween{From: s.ID(), To: other.ID(), Address: p.Target.Address, OK: r.OK(), Reach: r})
			}
		}
		if len(ways) == 0 && !a.json {
			fmt.Fprintf(a.stdout, "%s and %s have no addresses of one IP version\n", s.ID(), other.ID())
		}
	}
	if a.json {
		return a.printJSON(ways)
	}
	for i, w := range ways {
		if i > 0 {
			fmt.Fprintln(a.stdout)
		}
		if _, err := a.stdout.WriteString(w.Text()); err != nil {
			return err
		}
		if w.Egress != "" {
			fmt.Fprintln(a.stdout, egressOf(s, w.Egress, w.Address))
		}
	}
	return nil
}

// described finds the topology that a command is to describe: that of a file,
// or as it was last brought up, with its name, where a name says so or no file
// is here.
func (a *app) described(args []string) (t *topology.Topology, name string, err error) {
	given := a.file
	if len(args) > 0 {
		given = args[0]
	}
	_, missing := os.Stat(a.path(args))
	if missing == nil && (given != "" || a.name == "") || given != "" && strings.ContainsAny(given, "/.") {
		if t, err = a.load(a.path(args)); err == nil {
			t, _, err = a.selected(t, nil)
		}
		return t, "", err
	}
	if given == "" && a.name == "" {
		name, err = a.onlyOne()
	} else {
		name, err = a.target(args)
	}
	if err != nil {
		return nil, "", err
	}
	t, err = lifecycle.Recorded(a.layout(), name)
	return t, name, err
}
