package netplan

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"platelayer/topology"
)

// UplinkPeer is what the backbone calls its end of the uplink.
const UplinkPeer = "uplink"

// Uplink is the veth between the machine and the backbone. Name and MAC follow
// from the topology's name, so that the machine's end is known as ours.
type Uplink struct {
	Name    string `json:"name"` // in the machine's namespace, at most 15 bytes
	MAC     string `json:"mac"`
	PeerMAC string `json:"peer_mac"`
	// Addresses are the machine's: a /31 and, with IPv6, a /127, of which the
	// backbone has the other address.
	Addresses []netip.Prefix `json:"addresses"`
	// Routes are the subnets that the machine reaches over it.
	Routes []netip.Prefix `json:"routes"`
	// Open lets stations open connections to the machine.
	Open bool `json:"open,omitempty"`
}

// Text is the uplink in iproute2's words: what of it the machine gets, and then
// what the backbone does.
func (u *Uplink) Text(topology string) string {
	var w strings.Builder
	backbone := topology + ".backbone"
	fmt.Fprintf(&w, "\n# machine\nlink add %s address %s type veth peer name %s netns %s address %s\nlink set %s up\n",
		u.Name, u.MAC, UplinkPeer, backbone, u.PeerMAC, u.Name)
	for _, a := range u.Addresses {
		fmt.Fprintln(&w, AddressText(u.Name, a, false))
	}
	for _, to := range u.Routes {
		fmt.Fprintln(&w, Route{To: to, Via: u.Via(to), Dev: u.Name}.Text())
	}
	fmt.Fprintf(&w, "\n# uplink of %s\nlink set %s up\n", backbone, UplinkPeer)
	for _, a := range u.Addresses {
		fmt.Fprintln(&w, AddressText(UplinkPeer, netip.PrefixFrom(Other(a), a.Bits()), false))
	}
	if !u.Open {
		fmt.Fprintf(&w, "nft add rule inet platelayer-uplink uplink oifname %s ct state != { established, related } drop\n", UplinkPeer)
	}
	return w.String()
}

// Via is the backbone's end, as the next hop to a subnet.
func (u *Uplink) Via(to netip.Prefix) netip.Addr {
	for _, a := range u.Addresses {
		if a.Addr().Is4() == to.Addr().Is4() {
			return Other(a)
		}
	}
	return netip.Addr{}
}

// UplinkID gives the name and the MAC of a topology's uplink on the machine.
func UplinkID(topology string) (name, mac string) {
	sum := sha256.Sum256([]byte("uplink/" + topology))
	m := sha256.Sum256([]byte("uplink mac/" + topology))
	return "pl-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:12], macOf(m[:])
}

func macOf(raw []byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", raw[0]&^0x03|0x02, raw[1], raw[2], raw[3], raw[4], raw[5])
}

// Other is the other address of a /31 or /127.
func Other(p netip.Prefix) netip.Addr {
	if p.Masked().Addr() == p.Addr() {
		return p.Addr().Next()
	}
	return p.Addr().Prev()
}

// BuildUplink plans the uplink of a topology on a machine that has networks of
// its own in the prefixes taken. left are the subnets that the machine gets no
// route to because the file does not ask for it in so many words.
func BuildUplink(t *topology.Topology, taken []netip.Prefix) (u Uplink, left []netip.Prefix) {
	u.Name, u.MAC = UplinkID(t.Name)
	peer := sha256.Sum256([]byte("uplink peer/" + t.Name))
	u.PeerMAC = macOf(peer[:])
	u.Open = t.Backbone.HostAccess
	six := false
	taken = slices.Clone(taken)
	for i := range t.Clusters {
		c := &t.Clusters[i]
		taken = append(taken, c.Subnets...)
		if !c.Connected() || t.Backbone.HostRoutes == "false" {
			continue
		}
		for _, s := range c.Subnets {
			if s = s.Masked(); t.Backbone.HostRoutes == "true" || nobodys(s) {
				u.Routes = append(u.Routes, s)
				six = six || s.Addr().Is6()
			} else {
				left = append(left, s)
			}
		}
	}
	for i := range t.Links {
		taken = append(taken, t.Links[i].Subnets...)
	}
	seed := sha256.Sum256([]byte("uplink address/" + t.Name))
	slot := binary.BigEndian.Uint16(seed[:]) &^ 1
	free := func(make func(slot uint16) netip.Prefix) netip.Prefix {
		for try := 0; ; try++ {
			p := make(slot + uint16(2*try))
			if try >= 1<<14 || !slices.ContainsFunc(taken, p.Overlaps) {
				return p
			}
		}
	}
	u.Addresses = append(u.Addresses, free(func(n uint16) netip.Prefix {
		return netip.PrefixFrom(inRange(uplinks4(), n&0x7fff|1), 31)
	}))
	if six {
		u.Addresses = append(u.Addresses, free(func(n uint16) netip.Prefix {
			return netip.PrefixFrom(inRange(uplinks6(), n|1), 127)
		}))
	}
	return u, left
}

// Needed tells whether there is anything for the uplink to do.
func (u *Uplink) Needed() bool { return len(u.Routes) > 0 }

// nobodys tells whether a subnet is of ranges that nobody has on the internet:
// private (RFC 1918), unique local (RFC 4193), shared (RFC 6598),
// documentation (RFC 5737, RFC 3849, RFC 9637) and benchmarking (RFC 2544).
func nobodys(s netip.Prefix) bool {
	for _, text := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "100.64.0.0/10",
		"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20", "198.18.0.0/15"} {
		if p := netip.MustParsePrefix(text); p.Overlaps(s) && p.Bits() <= s.Bits() {
			return true
		}
	}
	return false
}

// uplinks4 and uplinks6 are where uplinks have their addresses.
func uplinks4() netip.Prefix { return netip.MustParsePrefix("10.255.0.0/17") }
func uplinks6() netip.Prefix { return netip.MustParsePrefix("fd70:6c61:7465::/112") }

// inRange is the address of a number in a range, whose last two bytes are 0.
func inRange(r netip.Prefix, n uint16) netip.Addr {
	raw := r.Addr().AsSlice()
	binary.BigEndian.PutUint16(raw[len(raw)-2:], n)
	a, _ := netip.AddrFromSlice(raw)
	return a
}
