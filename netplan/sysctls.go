package netplan

import (
	"slices"
	"strings"
)

// A new namespace takes its IPv4 settings from the machine's current ones
// (net.core.devconf_inherit_init_net, Documentation/admin-guide/sysctl/net.rst),
// so what matters is set here, before any interface exists: `default` is what
// an interface starts with, and `all` is combined with the interface's own
// (Documentation/networking/ip-sysctl.rst: OR for send_redirects, the larger
// for rp_filter, AND or OR by forwarding for accept_redirects). Every write
// costs microseconds for each station, hence no others.

// fabricSysctls keep the bridges plain switches: no IPv6 addresses of their
// own, and no iptables on what crosses them.
func fabricSysctls() []Sysctl {
	return []Sysctl{
		{Key: "net.ipv6.conf.default.disable_ipv6", Value: "1", Optional: true},
		{Key: "net.bridge.bridge-nf-call-iptables", Value: "0", Optional: true},
		{Key: "net.bridge.bridge-nf-call-ip6tables", Value: "0", Optional: true},
		{Key: "net.bridge.bridge-nf-call-arptables", Value: "0", Optional: true},
	}
}

// nodeSysctls are those of a container's namespace.
func nodeSysctls(forward, ipv6 bool) []Sysctl {
	on := "0"
	if forward {
		on = "1"
	}
	s := []Sysctl{
		{Key: "net.ipv4.ip_unprivileged_port_start", Value: "0"},
		{Key: "net.ipv4.ping_group_range", Value: "0 2147483647"},
		// First, for a change of it resets accept_redirects.
		{Key: "net.ipv4.ip_forward", Value: on},
		{Key: "net.ipv4.conf.all.accept_redirects", Value: "0"},
		{Key: "net.ipv4.conf.default.accept_redirects", Value: "0"},
		{Key: "net.ipv4.conf.all.send_redirects", Value: "0"},
		{Key: "net.ipv4.conf.default.send_redirects", Value: "0"},
		{Key: "net.ipv4.conf.all.rp_filter", Value: "0"},
		{Key: "net.ipv4.conf.default.rp_filter", Value: "0"},
	}
	if !ipv6 {
		// Only interfaces to come: lo keeps ::1.
		return append(s, Sysctl{Key: "net.ipv6.conf.default.disable_ipv6", Value: "1", Optional: true})
	}
	s = append(s, Sysctl{Key: "net.ipv6.conf.all.disable_ipv6", Value: "0"})
	if forward {
		s = append(s, Sysctl{Key: "net.ipv6.conf.all.forwarding", Value: "1"})
	}
	return append(s,
		Sysctl{Key: "net.ipv6.conf.default.accept_ra", Value: "0"},
		Sysctl{Key: "net.ipv6.conf.default.accept_dad", Value: "0"},
		Sysctl{Key: "net.ipv6.conf.default.accept_redirects", Value: "0"},
	)
}

// Settings is n.Sysctls and the kernel's own value of each setting that other
// nodes' plans name and n's leaves out: what a namespace that was made by
// another plan has to be set to. The order matters as in Sysctls.
func (n *Node) Settings() []Sysctl {
	all := slices.Clone(n.Sysctls)
	for _, s := range untouched() {
		named := func(o Sysctl) bool { return o.Key == s.Key }
		if !slices.ContainsFunc(all, named) {
			all = append(all, s)
		}
	}
	return all
}

// untouched are the kernel's own values of what only some nodes' plans set.
func untouched() []Sysctl {
	return []Sysctl{
		{Key: "net.ipv6.conf.all.disable_ipv6", Value: "0", Optional: true},
		{Key: "net.ipv6.conf.all.forwarding", Value: "0", Optional: true},
		{Key: "net.ipv6.conf.default.accept_ra", Value: "1", Optional: true},
		{Key: "net.ipv6.conf.default.accept_dad", Value: "1", Optional: true},
		{Key: "net.ipv6.conf.default.accept_redirects", Value: "1", Optional: true},
		{Key: "net.ipv6.conf.default.disable_ipv6", Value: "0", Optional: true},
	}
}

// InterfaceSettings are those that interface dev took from the namespace's
// defaults when it was made.
func (n *Node) InterfaceSettings(dev string) []Sysctl {
	var all []Sysctl
	for _, s := range n.Settings() {
		family, name, ok := strings.Cut(s.Key, ".conf.default.")
		if ok {
			all = append(all, Sysctl{Key: family + ".conf." + dev + "." + name, Value: s.Value, Optional: s.Optional})
		}
	}
	return all
}
