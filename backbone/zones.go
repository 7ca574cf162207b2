package backbone

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"

	"platelayer/netplan"
)

// zones is what the server knows, indexed for answering. But for whose turn it
// is, it is never changed after newZones, so that readers need no lock.
//
// Names are canonical: lower case with a final dot.
type zones struct {
	apexes   map[string]bool       // domains of the clusters
	existing map[string]bool       // empty non-terminals inside the apexes
	names    map[string][]*binding // in the order of the file
	pointers map[netip.Addr][]pointer
	clusters []netplan.DNSCluster
	subnets  map[netip.Prefix]int // to the index of its cluster
	bits     []int                // lengths that occur in subnets, longest first
}

// binding is what one cluster has under a name.
type binding struct {
	cluster int
	v4, v6  rotation
}

// rotation is the addresses of one family under a name. Each is the first in
// its turn, since most askers try the first only. Families have turns of
// their own: many askers ask for A and AAAA in pairs, and would get every
// second address only.
type rotation struct {
	addrs []netip.Addr
	turn  atomic.Uint32
}

func (r *rotation) add(addr netip.Addr) {
	if !slices.Contains(r.addrs, addr) {
		r.addrs = append(r.addrs, addr)
	}
}

// next gives the addresses in two parts, the first one first.
func (r *rotation) next() (head, tail []netip.Addr) {
	if len(r.addrs) < 2 {
		return r.addrs, nil
	}
	n := int((r.turn.Add(1) - 1) % uint32(len(r.addrs)))
	return r.addrs[n:], r.addrs[:n]
}

// pointer is the name of an address in one cluster.
type pointer struct {
	cluster int
	name    string
}

// backboneName is the host name of the backbone in every cluster's domain.
const backboneName = "backbone"

// noCluster is the cluster of an asker from elsewhere, such as the machine.
const noCluster = -1

func newZones(d netplan.DNS) *zones {
	z := &zones{
		apexes:   map[string]bool{},
		existing: map[string]bool{},
		names:    map[string][]*binding{},
		pointers: map[netip.Addr][]pointer{},
		clusters: d.Clusters,
		subnets:  map[netip.Prefix]int{},
	}
	index := map[string]int{}
	for i, c := range d.Clusters {
		index[c.Name] = i
		if c.Domain != "" {
			z.apexes[canonical(c.Domain)] = true
		}
		for _, subnet := range c.Subnets {
			z.subnets[subnet.Masked()] = i
			if !slices.Contains(z.bits, subnet.Bits()) {
				z.bits = append(z.bits, subnet.Bits())
			}
		}
	}
	slices.SortFunc(z.bits, func(a, b int) int { return cmp.Compare(b, a) })
	for i := range d.Hosts {
		h := &d.Hosts[i]
		if cluster, ok := index[h.Cluster]; ok {
			z.addHost(cluster, h)
		}
	}
	for _, addr := range d.Listen {
		if cluster := z.clusterOf(addr); cluster != noCluster {
			z.addBackbone(cluster, addr.Unmap())
		}
	}
	z.addParents()
	return z
}

func (z *zones) addHost(cluster int, h *netplan.DNSHost) {
	addrs := make([]netip.Addr, len(h.Addresses))
	for i, a := range h.Addresses {
		addrs[i] = a.Unmap()
	}
	domain := z.clusters[cluster].Domain
	fqdn := canonical(h.FQDN)
	if h.FQDN == "" {
		fqdn = canonical(join(h.Name, domain))
	}
	names := []string{fqdn}
	for _, short := range append([]string{h.Name}, h.Aliases...) {
		names = append(names, canonical(short))
		if !strings.Contains(strings.TrimSuffix(short, "."), ".") && domain != "" {
			// Resolvers put their search domain behind short names.
			names = append(names, canonical(join(short, domain)))
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if name != "." {
			z.bind(name, cluster, addrs)
		}
	}
	for _, a := range addrs {
		z.pointers[a] = append(z.pointers[a], pointer{cluster, fqdn})
	}
}

// addBackbone names one address of the backbone, unless a station has taken
// the name.
func (z *zones) addBackbone(cluster int, addr netip.Addr) {
	domain := z.clusters[cluster].Domain
	name := canonical(join(backboneName, domain))
	if len(z.pointers[addr]) > 0 {
		return
	}
	z.bind(name, cluster, []netip.Addr{addr})
	if domain != "" {
		z.bind(backboneName+".", cluster, []netip.Addr{addr})
	}
	z.pointers[addr] = append(z.pointers[addr], pointer{cluster, name})
}

// bind adds addresses to what a cluster has under a name.
func (z *zones) bind(name string, cluster int, addrs []netip.Addr) {
	list := z.names[name]
	i := slices.IndexFunc(list, func(b *binding) bool { return b.cluster == cluster })
	if i < 0 {
		i = len(list)
		list = append(list, &binding{cluster: cluster})
		z.names[name] = list
	}
	for _, a := range addrs {
		if a.Is4() {
			list[i].v4.add(a)
		} else {
			list[i].v6.add(a)
		}
	}
}

// addParents notes the names that exist only because others lie below them
// (empty non-terminals, RFC 8020): they are NODATA, not NXDOMAIN.
func (z *zones) addParents() {
	add := func(name string) {
		for {
			name = parent(name)
			if name == "." || z.zoneOf(name) == "" || z.existing[name] {
				return
			}
			z.existing[name] = true
		}
	}
	for name := range z.names {
		add(name)
	}
	for name := range z.apexes {
		add(name)
	}
}

// zoneOf is the longest domain of ours that name lies in, or "".
func (z *zones) zoneOf(name string) string {
	for ; name != "."; name = parent(name) {
		if z.apexes[name] {
			return name
		}
	}
	return ""
}

// clusterOf is the cluster whose subnet holds addr.
func (z *zones) clusterOf(addr netip.Addr) int {
	_, cluster := z.subnetOf(addr)
	return cluster
}

func (z *zones) subnetOf(addr netip.Addr) (netip.Prefix, int) {
	addr = addr.Unmap().WithZone("")
	for _, bits := range z.bits {
		if bits > addr.BitLen() {
			continue
		}
		p, err := addr.Prefix(bits)
		if err != nil {
			continue
		}
		if cluster, ok := z.subnets[p]; ok {
			return p, cluster
		}
	}
	return netip.Prefix{}, noCluster
}

// lookup finds what there is under a name, or nil: in the asker's own cluster,
// otherwise in the first cluster in the file that has the name.
func (z *zones) lookup(name string, asker int) *binding {
	list := z.names[name]
	if len(list) == 0 {
		return nil
	}
	for _, b := range list {
		if b.cluster == asker {
			return b
		}
	}
	return list[0]
}

func canonical(name string) string { return strings.ToLower(dns.Fqdn(name)) }

func join(name, domain string) string {
	if domain == "" {
		return name
	}
	return strings.TrimSuffix(name, ".") + "." + domain
}

// parent cuts the first label off a canonical name.
func parent(name string) string {
	if i, end := dns.NextLabel(name, 0); !end {
		return name[i:]
	}
	return "."
}
