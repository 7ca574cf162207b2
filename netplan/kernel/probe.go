package kernel

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// Feature is one thing that the network part asks of a machine.
type Feature struct {
	Name     string
	OK       bool
	Detail   string // what was seen
	Remedy   string // what to do where it is missing
	Required bool
}

// Probe tells what of the network part this machine can do, by doing it in a
// namespace that is gone when Probe returns. Without privilege it says so.
func Probe() []Feature {
	if _, err := os.Stat("/proc/self/ns/net"); err != nil {
		return []Feature{{Name: "network namespaces", Required: true, Detail: err.Error(),
			Remedy: "use a kernel with CONFIG_NET_NS and mount /proc"}}
	}
	var found []Feature
	// What fails is told by each feature.
	_ = onOwnThread(func() error {
		found = probeHere()
		return nil
	})
	return found
}

// probeHere tries everything in a new namespace of the calling thread, but for
// what the keeper does in the machine's.
func probeHere() []Feature {
	ping, six := probePing(), machineHasIPv6()
	ns, err := enterNewNetNS("probe", nil)
	if err != nil {
		f := Feature{Name: "network namespaces", Required: true, Detail: err.Error(), Remedy: "use a kernel with CONFIG_NET_NS"}
		if errors.Is(err, unix.EPERM) {
			f.Detail = "not tried, and neither was what needs one: no privilege (CAP_SYS_ADMIN) to make a network namespace"
			f.Remedy = "run it as root"
		}
		return []Feature{f}
	}
	defer ns.Close()
	found := []Feature{{Name: "network namespaces", OK: true, Required: true, Detail: "can be made"}}
	try := func(name, remedy string, required bool, f func(b *batch) error) {
		found = append(found, attempt(name, remedy, required, f))
	}
	found = append(found, outcome(Feature{Name: "network settings", Required: true, Remedy: "mount /proc/sys for writing: a privileged container has it so"},
		setSysctls([]netplan.Sysctl{{Key: "net.ipv4.ip_forward", Value: "1"}})))
	try("bridge", "load the module: modprobe bridge (CONFIG_BRIDGE)", true, func(b *batch) error {
		return b.addBridge(netplan.Bridge{Name: "br-probe", MAC: "02:00:00:00:00:01", MTU: 1500}, firstBridge, "probe")
	})
	try("veth", "load the module: modprobe veth (CONFIG_VETH)", true, func(b *batch) error {
		return b.addVeth(netplan.Interface{Name: "eth0", MAC: "02:00:00:00:00:02", Peer: "probe", PeerMAC: "02:00:00:00:00:03", MTU: 1500},
			veth{netns: "probe", netnsFD: int(ns.Fd()), inside: firstInside, port: firstPort, bridge: firstBridge})
	})
	try("policy routing", "use a kernel with CONFIG_IP_MULTIPLE_TABLES; topologies without a station as gateway and without stations in several clusters work", false, func(b *batch) error {
		b.addRule(netplan.Rule{Priority: 1000, From: netip.MustParsePrefix("198.51.100.1/32"), Table: 1000}, "probe")
		return nil
	})
	try("VLANs", "use a kernel with CONFIG_BRIDGE_VLAN_FILTERING; topologies without vlan and vlans work", false, addProbeVLANs)
	ipv6 := probeIPv6()
	if ipv6.OK && !six {
		ipv6.Detail = "works; it is off on the machine (net.ipv6.conf.default.disable_ipv6), which has no routes to stations' IPv6 addresses"
	}
	filter := netplan.Node{NetNS: "probe", Apart: []netplan.Pair{{In: "a", Out: "b"}}}
	divert := netplan.Node{NetNS: "probe", Divert: &netplan.Divert{Mark: netplan.DivertMark, Port: netplan.DivertPort}}
	call := func(name, remedy string, f func() error) {
		found = append(found, outcome(Feature{Name: name, Remedy: remedy}, f()))
	}
	found = append(found, ipv6)
	call("nftables", "load the module: modprobe nf_tables (CONFIG_NF_TABLES_INET); topologies without isolated and allow work, with what the next three say", func() error {
		_, _, err := settleFilter(&filter)
		return err
	})
	call("connection tracking", "load the module: modprobe nft_ct (CONFIG_NFT_CT); without it the machine has no routes to stations, as with host_routes: false", func() error {
		return guard(&netplan.Uplink{})
	})
	const lessOutside = "; topologies with egress: none and no published ports work"
	call("transparent proxying", "load the modules: modprobe -a nft_tproxy nft_socket nft_reject_inet (CONFIG_NFT_TPROXY, CONFIG_NFT_SOCKET, CONFIG_NFT_REJECT)"+lessOutside, func() error {
		_, _, err := settleFilter(&divert)
		return err
	})
	call("packet sockets", "load the module: modprobe af_packet (CONFIG_PACKET)"+lessOutside, packetSockets)
	return append(found, ping)
}

// probePing tries what the keeper answers stations' pings to the outside with.
func probePing() Feature {
	f := Feature{Name: "ping sockets", Remedy: "sysctl -w net.ipv4.ping_group_range='0 2147483647'; all but ping to the outside works"}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err == nil {
		err = unix.Close(fd)
	}
	return outcome(f, err)
}

func outcome(f Feature, err error) Feature {
	f.OK, f.Detail = err == nil, "works"
	if err != nil {
		f.Detail = err.Error()
	}
	return f
}

func attempt(name, remedy string, required bool, f func(b *batch) error) Feature {
	s, err := openSocket()
	if err == nil {
		defer s.close()
		var b batch
		if err = f(&b); err == nil {
			err = s.send(&b)
		}
	}
	return outcome(Feature{Name: name, Required: required, Remedy: remedy}, err)
}

// probeIPv6 tries an address and a rule: some kernels have IPv6 without
// policy routing.
func probeIPv6() Feature {
	const name, remedy = "IPv6", "boot without ipv6.disable=1, with CONFIG_IPV6 and CONFIG_IPV6_MULTIPLE_TABLES; topologies of IPv4 alone work"
	if err := setSysctls([]netplan.Sysctl{{Key: "net.ipv6.conf.all.disable_ipv6", Value: "0"}}); err != nil {
		return Feature{Name: name, Detail: err.Error(), Remedy: remedy}
	}
	return attempt(name, remedy, false, func(b *batch) error {
		b.up(loopback, "lo", "probe")
		b.addAddress(netip.MustParsePrefix("2001:db8::1/64"), false, loopback, "lo", "probe")
		b.addRule(netplan.Rule{Priority: 1000, From: netip.MustParsePrefix("2001:db8::1/128"), Table: 1000}, "probe")
		return nil
	})
}
