package topology

import (
	"fmt"
	"strings"
)

// network prints a cluster's addresses and ways out.
func (w *writer) network(c *Cluster) {
	if len(c.Subnets) == 0 {
		w.line(2, "subnet", "none")
	} else {
		w.list(2, "subnets", texts(c.Subnets))
	}
	w.gateway(c)
	switch {
	case len(c.BackboneAddresses) > 0:
		w.list(2, "backbone_addresses", texts(c.BackboneAddresses))
	case len(c.Subnets) > 0 && len(c.Transit) == 0:
		w.line(2, "backbone", "none")
	}
	if c.Isolated {
		w.line(2, "isolated", "true")
	}
	w.someOf(2, "allow", c.Allow)
	w.egress(2, c.Egress)
}

func (w *writer) egress(depth int, egress string) {
	switch egress {
	case "", EgressAllow, EgressNone:
		w.text(depth, "egress", egress)
	default:
		w.list(depth, "egress", strings.Fields(egress))
	}
}

func (w *writer) gateway(c *Cluster) {
	switch {
	case c.Gateway == "":
	case len(c.Transit) > 0:
		w.open(2, "gateway")
		w.line(3, "station", scalarText(c.Gateway))
		w.line(3, "inline", "true")
		w.list(3, "transit", texts(c.Transit))
		if c.Metric != 0 {
			w.line(3, "metric", fmt.Sprint(c.Metric))
		}
	case len(c.Standby) == 0 && c.Metric == 0:
		w.text(2, "gateway", c.Gateway)
	default:
		w.open(2, "gateway")
		for _, g := range append([]Gateway{{c.Gateway, c.Metric}}, c.Standby...) {
			w.line(3, "- station", scalarText(g.Station))
			w.line(4, "metric", fmt.Sprint(g.Metric))
		}
	}
}

func (w *writer) interfaces(depth int, s *Station) {
	w.someOf(depth, "addresses", texts(s.Addresses))
	w.text(depth, "interface_name", s.InterfaceName)
	w.text(depth, "mac_address", s.MAC)
	w.someOf(depth, "loopback", texts(s.Loopback))
	w.egress(depth, s.Egress)
	if len(s.Interfaces) == 0 {
		return
	}
	w.open(depth, "interfaces")
	for _, i := range s.Interfaces {
		w.line(depth+1, "- cluster", scalarText(i.Cluster))
		w.someOf(depth+2, "addresses", texts(i.Addresses))
		w.text(depth+2, "name", i.Name)
		w.text(depth+2, "mac_address", i.MAC)
		if i.MTU != 0 {
			w.line(depth+2, "mtu", fmt.Sprint(i.MTU))
		}
	}
}

func (w *writer) routes(depth int, all []Route) {
	if len(all) == 0 {
		return
	}
	w.open(depth, "routes")
	for _, r := range all {
		w.line(depth+1, "- to", scalarText(r.To.String()))
		if r.Via.IsValid() {
			w.line(depth+2, "via", scalarText(r.Via.String()))
		}
		w.text(depth+2, "dev", r.Dev)
		w.text(depth+2, "type", r.Type)
		if r.Metric != 0 {
			w.line(depth+2, "metric", fmt.Sprint(r.Metric))
		}
	}
}

func (w *writer) links(all []Link) {
	if len(all) == 0 {
		return
	}
	w.open(0, "links")
	for _, k := range all {
		w.line(1, "- mtu", fmt.Sprint(k.MTU))
		w.someOf(2, "subnets", texts(k.Subnets))
		w.open(2, "endpoints")
		for _, e := range k.Ends {
			parts := []string{"station: " + scalarText(e.Station), "name: " + scalarText(e.Name)}
			if e.MAC != "" {
				parts = append(parts, "mac_address: "+scalarText(e.MAC))
			}
			if len(e.Addresses) > 0 {
				var quoted []string
				for _, a := range texts(e.Addresses) {
					quoted = append(quoted, scalarText(a))
				}
				parts = append(parts, "addresses: ["+strings.Join(quoted, ", ")+"]")
			}
			w.indent(3)
			w.b.WriteString("- {" + strings.Join(parts, ", ") + "}\n")
		}
	}
}
