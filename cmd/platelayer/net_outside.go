package main

import (
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"

	"platelayer/netplan"
	"platelayer/topology"
)

// wayOutside is what stations reach that the topology has not.
type wayOutside struct {
	From string `json:"from"` // a cluster, or one of its stations that differs
	// Egress is what holds for them; "" where no packet of theirs gets to the
	// backbone, or none from there to them.
	Egress string      `json:"egress"`
	Why    netplan.Why `json:"why,omitempty"` // for that
}

func waysOutside(t *topology.Topology, network *netplan.Network) []wayOutside {
	all := []wayOutside{}
	for i := range t.Clusters {
		c := &t.Clusters[i]
		counts := map[wayOutside]int{}
		of := make([]wayOutside, len(c.Stations))
		for j := range c.Stations {
			s := &c.Stations[j]
			switch r := network.Elsewhere(t.ContainerName(s)); {
			case r.Leaves():
				of[j].Egress = t.EgressOf(c, s)
			case r.There.Why == netplan.Outside:
				of[j].Why = r.Back.Why
			default:
				of[j].Why = r.There.Why
			}
			counts[of[j]]++
		}
		var most wayOutside
		for _, way := range of {
			if counts[way] > counts[most] {
				most = way
			}
		}
		if len(of) == 0 {
			continue
		}
		most.From = c.Name
		all = append(all, most)
		for j, way := range of {
			if way.Egress != most.Egress || way.Why != most.Why {
				way.From = c.Stations[j].ID()
				all = append(all, way)
			}
		}
	}
	return all
}

func (a *app) printOutside(ways []wayOutside) error {
	if len(ways) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nFROM\tEGRESS")
	for _, way := range ways {
		egress := strings.ReplaceAll(way.Egress, " ", ", ")
		if way.Why != "" {
			egress = "no: " + string(way.Why)
		}
		fmt.Fprintf(w, "%s\t%s\n", way.From, egress)
	}
	return w.Flush()
}

// egressOf words what a station's egress is to an address outside.
func egressOf(s *topology.Station, egress string, to netip.Addr) string {
	var ports []string
	for _, d := range topology.Destinations(egress) {
		switch {
		case !d.Prefix.IsValid() || !d.Prefix.Contains(to):
		case d.Port == 0:
			return fmt.Sprintf("egress of %s lists it", s.ID())
		default:
			ports = append(ports, fmt.Sprint(d.Port))
		}
	}
	switch {
	case egress == topology.EgressAllow:
		return fmt.Sprintf("egress of %s allows it", s.ID())
	case egress == topology.EgressNone:
		return fmt.Sprintf("egress of %s is none", s.ID())
	case len(ports) > 0:
		return fmt.Sprintf("egress of %s lists port %s of it", s.ID(), strings.Join(ports, ", "))
	}
	return fmt.Sprintf("egress of %s does not list it, unless by a name", s.ID())
}
