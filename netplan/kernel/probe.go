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

// probeHere tries everything in a new namespace of the calling thread.
func probeHere() []Feature {
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
	try("bridge", "load the module: modprobe bridge (CONFIG_BRIDGE)", true, func(b *batch) error {
		return b.addBridge(netplan.Bridge{Name: "br-probe", MAC: "02:00:00:00:00:01", MTU: 1500}, firstBridge, "probe")
	})
	try("veth", "load the module: modprobe veth (CONFIG_VETH)", true, func(b *batch) error {
		return b.addVeth(netplan.Interface{Name: "eth0", MAC: "02:00:00:00:00:02", Peer: "probe", PeerMAC: "02:00:00:00:00:03", MTU: 1500},
			veth{netns: "probe", netnsFD: int(ns.Fd()), inside: firstInside, port: firstPort, bridge: firstBridge})
	})
	try("policy routing", "use a kernel with CONFIG_IP_MULTIPLE_TABLES", true, func(b *batch) error {
		b.addRule(netplan.Rule{Priority: 1000, From: netip.MustParsePrefix("198.51.100.1/32"), Table: 1000}, "probe")
		return nil
	})
	return append(found, probeIPv6(), probeDivert())
}

// probeDivert tries what takes outside connections and published ports.
func probeDivert() Feature {
	f := Feature{Name: "transparent proxying", OK: true, Detail: "works",
		Remedy: "load the modules: modprobe -a nft_tproxy nft_socket (CONFIG_NFT_TPROXY, CONFIG_NFT_SOCKET); topologies with egress: none and no published ports work"}
	n := netplan.Node{NetNS: "probe", Divert: &netplan.Divert{Mark: netplan.DivertMark, Port: netplan.DivertPort}}
	if _, err := settleFilter(&n); err != nil {
		f.OK, f.Detail = false, err.Error()
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
	if err != nil {
		return Feature{Name: name, Required: required, Detail: err.Error(), Remedy: remedy}
	}
	return Feature{Name: name, OK: true, Required: required, Detail: "works"}
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
