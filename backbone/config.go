// Package backbone is the DNS server of a topology and what else runs in the
// backbone's container. The container has no way to the outside of its own:
// for a name that is not the topology's it asks the keeper, over a socket
// pair, for a connected socket that was opened in the machine's namespace.
//
// Serve and Keeper are the keeper's side, Run is the container's command.
package backbone

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"platelayer/netplan"
)

// Config is what the server works from.
type Config struct {
	DNS netplan.DNS `json:"dns"`
	// Upstream holds the resolvers for all other names, in order. Empty: such
	// names do not exist.
	Upstream []netip.AddrPort `json:"upstream"`
	// Domains and Askers have resolvers of their own.
	Domains []Domain `json:"domains,omitempty"`
	Askers  []Asker  `json:"askers,omitempty"`
	// Out names the stations ("cluster/station") that leave names which they
	// share with others: they do not run, or are not well.
	Out []string `json:"out,omitempty"`
	// Ports are the machine's that lead to stations.
	Ports []Port `json:"ports,omitempty"`
	// Outside tells who gets answers about such names, whatever Upstream says:
	// the longest prefix with the asker counts, and who is in none gets SERVFAIL.
	// Nil: everybody does.
	Outside map[netip.Prefix]bool `json:"outside,omitempty"`
	// Listed are the names by which stations may reach the outside, lower-case and
	// without a trailing dot.
	Listed []string `json:"listed,omitempty"`
	// Divert is the port of the transparent sockets for what stations send
	// outside; 0 is none.
	Divert uint16 `json:"divert,omitempty"`
	// Own are the destinations that are not outside. Where there are any, the
	// first packet of a connection to another is held (netplan.Divert).
	Own []netip.Prefix `json:"own,omitempty"`
	// Origins are whose packets to the outside come in by an interface.
	Origins []netplan.Origin `json:"origins,omitempty"`
}

// EgressFunc opens a connected socket to the outside for the station that has
// from, or says why not. names are what DNS has called the destination.
// The caller closes the file.
type EgressFunc func(ctx context.Context, network string, from, to netip.AddrPort, names []string) (*os.File, error)

// Asked is a question for an outside name.
type Asked struct {
	From   netip.Addr `json:"from"`
	Name   string     `json:"name"`             // without a trailing dot
	Passed bool       `json:"passed,omitempty"` // on to a resolver, or answered as one did before
	Count  int        `json:"count"`
}

// DialFunc opens a connected socket to an upstream resolver; network is "udp"
// or "tcp". The caller closes the file.
type DialFunc func(ctx context.Context, network string, addr netip.AddrPort) (*os.File, error)

// Dial is a DialFunc that opens the socket in the caller's own namespace.
func Dial(ctx context.Context, network string, addr netip.AddrPort) (*os.File, error) {
	if network == "icmp" {
		return dialPing(addr.Addr())
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	switch c := conn.(type) {
	case *net.UDPConn:
		return c.File()
	case *net.TCPConn:
		return c.File()
	}
	return nil, fmt.Errorf("cannot dial %s: network %q is neither udp nor tcp", addr, network)
}

// Socketpair makes the two ends of the connection between the keeper and the
// backbone.
func Socketpair() (keeper, child *os.File, err error) {
	// A stream: a configuration may be longer than one packet can be.
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "backbone"), os.NewFile(uintptr(fds[1]), "keeper"), nil
}

// HostResolvers reads the nameservers of a resolv.conf(5) text. Loopback ones
// are as good as others, since the sockets to them are opened in the machine's
// namespace. A text without any means the local resolver, as resolv.conf(5)
// says.
func HostResolvers(resolvConf []byte) []netip.AddrPort {
	const port = 53
	var list []netip.AddrPort
	for line := range bytes.Lines(resolvConf) {
		fields := bytes.Fields(line)
		if len(fields) < 2 || string(fields[0]) != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(string(fields[1]))
		if err != nil {
			continue
		}
		list = append(list, netip.AddrPortFrom(addr.Unmap(), port))
	}
	if len(list) == 0 {
		list = append(list, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port))
	}
	return list
}

// hears tells whether an asker gets answers about outside names.
func (c *Config) hears(a netip.Addr) bool {
	if c.Outside == nil {
		return true
	}
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, _ := a.Prefix(bits)
		if allowed, ok := c.Outside[p]; ok {
			return allowed
		}
	}
	return false
}
