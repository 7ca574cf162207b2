package kernel

import (
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/topology"
)

// TestRulesComeBeforeAddresses gives a gateway a second interface. Its address
// takes the subnet's traffic there, so what keeps that of the first interface
// where it is must be known to the kernel before.
func TestRulesComeBeforeAddresses(t *testing.T) {
	l := up(t, "steer")
	one := sample(l.plan.Topology)
	one.Clusters[0].Stations[0].Interfaces = nil
	l.change(one)

	var events int
	l.in("web.gw", func() (err error) {
		if events, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE); err != nil {
			return err
		}
		groups := uint32(1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV4_RULE-1))
		return unix.Bind(events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	})
	defer unix.Close(events)
	two := sample(l.plan.Topology)
	two.Clusters[0].Stations[0].Interfaces = []topology.Interface{{Cluster: "plain", Addresses: addrs("10.30.0.2")}}
	l.change(two)

	var told []string
	subnet := netip.MustParsePrefix("10.30.0.0/24")
	buffer := make([]byte, 1<<16)
	timeout := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(events, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	for !slices.Contains(told, "subnet") || !slices.Contains(told, "rule") || !slices.Contains(told, "steered") {
		n, _, err := unix.Recvfrom(events, buffer, 0)
		if err != nil {
			t.Fatalf("told %v, then %v", told, err)
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.RTM_NEWRULE:
				told = append(told, "rule")
			case unix.RTM_NEWROUTE:
				r, ok := readRoute(m.Data)
				switch {
				case !ok || r.to != subnet:
				case r.table == unix.RT_TABLE_MAIN && r.proto == unix.RTPROT_KERNEL:
					told = append(told, "subnet")
				case r.table != unix.RT_TABLE_MAIN && r.table != unix.RT_TABLE_LOCAL:
					told = append(told, "steered")
				}
			}
		}
	}
	at := slices.Index(told, "subnet")
	if slices.Index(told, "rule") > at || slices.Index(told, "steered") > at {
		t.Errorf("the kernel was told in this order: %v", told)
	}
}
