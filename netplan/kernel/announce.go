package kernel

import (
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// announce tells the neighbours of a node, whose ports forward by now, that
// the addresses of some of its interfaces are here: they may remember another
// MAC. To set an interface's own MAC again makes the kernel send gratuitous
// ARP and unsolicited neighbour advertisements, where arp_notify and
// ndisc_notify are set (Documentation/networking/ip-sysctl.rst).
func (w *wiring) announce(i int, interfaces []string) error {
	if len(interfaces) == 0 {
		return nil
	}
	n := &w.plan.Nodes[i]
	ns, err := openPin(w.options, n.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	s, err := openSocketIn(ns)
	if err != nil {
		return err
	}
	defer s.close()
	var b batch
	var set, reset []netplan.Sysctl
	for _, f := range n.Interfaces {
		if !slices.Contains(interfaces, f.Name) {
			continue
		}
		mac, err := net.ParseMAC(f.MAC)
		if err != nil {
			return fmt.Errorf("cannot announce %s of %s: %w", f.Name, n.NetNS, err)
		}
		for _, key := range []string{"net.ipv4.conf." + f.Name + ".arp_notify", "net.ipv6.conf." + f.Name + ".ndisc_notify"} {
			value, err := getSysctl(key)
			if err != nil {
				continue // no IPv6
			}
			set = append(set, netplan.Sysctl{Key: key, Value: "1", Optional: true})
			reset = append(reset, netplan.Sysctl{Key: key, Value: value, Optional: true})
		}
		// By name: a station may have put another device in the place.
		b.add(unix.RTM_NEWLINK, 0, func() string { return "announce " + f.Name + " of " + n.NetNS },
			nl.NewIfInfomsg(unix.AF_UNSPEC), attr(unix.IFLA_IFNAME, nl.ZeroTerminated(f.Name)), attr(unix.IFLA_ADDRESS, mac))
	}
	if err := setSysctls(set); err != nil {
		return fmt.Errorf("cannot announce the addresses of %s: %w", n.NetNS, err)
	}
	err = s.send(&b)
	if err := setSysctls(reset); err != nil {
		return fmt.Errorf("cannot announce the addresses of %s: %w", n.NetNS, err)
	}
	return err
}
