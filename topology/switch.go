package topology

import (
	"fmt"
	"regexp"
)

// SwitchHost is the Switch of a cluster that the machine has a bridge into.
const SwitchHost = "host"

// maxAttach is how many interfaces a cluster takes from the machine: what they
// were is kept on the bridge itself, which has little room.
const maxAttach = 8

// maxBridgePorts is how many interfaces a switch takes: BR_MAX_PORTS of the kernel's
// net/bridge/br_private.h, of which it uses no number 0.
const maxBridgePorts = 1023

// checkSwitches reports a switch with more interfaces than Linux has ports for,
// and one MAC address of two interfaces on a switch or link.
func (l *loader) checkSwitches() {
	for _, c := range l.clusters {
		ports, macs := 0, map[string]*leg{}
		if !c.noLeg && !c.inline {
			ports++
		}
		if c.out.Switch == SwitchHost {
			ports++
		}
		for _, g := range c.legs {
			if g.station.ghost {
				continue
			}
			ports++
			if other := macs[g.mac]; g.mac != "" && other != nil {
				at := other.body.get("mac_address")
				l.report(g.body.get("mac_address").position, fmt.Sprintf("%s has the MAC address of %s in cluster %s", g, other, c.out.Name),
					fmt.Sprintf("that one is given in line %d: a switch knows an interface by its address", at.line))
			}
			macs[g.mac] = g
		}
		if ports > maxBridgePorts {
			l.report(c.at, fmt.Sprintf("cluster %s has %d interfaces, with the backbone's", c.out.Name, ports),
				fmt.Sprintf("Linux has %d ports for a switch: divide it into several clusters", maxBridgePorts))
		}
	}
	for _, d := range l.links {
		if ends := &d.out.Ends; ends[0].MAC != "" && ends[0].MAC == ends[1].MAC {
			l.report(d.bodies[1].get("mac_address").position, "both ends of the link have one MAC address", "leave one out for one that follows from the station's name")
		}
	}
}

// attach reads which of the machine's interfaces belong to the cluster.
func (l *loader) attach(c *clusterDraft) {
	if textOf(c.body.get("switch")) == SwitchHost {
		c.out.Switch = SwitchHost
	}
	n := c.body.get("attach")
	switch {
	case n == nil:
		return
	case c.out.Switch == "" && !c.body.spoiled("switch"):
		l.spoil(n, "attach is set although the machine has no bridge into the cluster", "add switch: host")
		return
	case len(n.items) > maxAttach:
		l.spoil(n, fmt.Sprintf("%d interfaces are attached", len(n.items)), fmt.Sprintf("at most %d; put more into a bridge of your own", maxAttach))
		return
	}
	for _, item := range n.good() {
		if !regexp.MustCompile(hostInterfacePattern).MatchString(item.text) || item.text == "." || item.text == ".." {
			l.spoil(item, fmt.Sprintf("%s is not an interface's name", quoted(item.text)), "one of those that ip link shows, at most 15 characters")
			continue
		}
		if item.text == "lo" {
			l.spoil(item, "lo cannot be attached", "it is the machine's loopback interface")
			continue
		}
		if first, twice := l.attached[item.text]; twice {
			l.spoil(item, fmt.Sprintf("%s is attached twice", item.text), fmt.Sprintf("it is in line %d already: remove one", first.line))
			continue
		}
		if l.attached == nil {
			l.attached = map[string]position{}
		}
		l.attached[item.text] = item.position
		c.out.Attach = append(c.out.Attach, item.text)
	}
}
