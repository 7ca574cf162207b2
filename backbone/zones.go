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
	apexes   map[string]bool // domains of the clusters
	existing map[string]bool // empty non-terminals
	names    map[string]*node
	pointers map[netip.Addr][]pointer
	clusters []netplan.DNSCluster
	subnets  map[netip.Prefix]int // to the index of its cluster
	bits     []int                // lengths that occur in subnets, longest first
	wildcard bool                 // some name starts with an asterisk
	ready    map[string]*readyNode
}

// node is what there is under a name.
type node struct {
	bindings []*binding          // in the order of the file
	own      *binding            // addresses of the file's records
	records  map[uint16][]dns.RR // the file's others
}

// binding is the addresses that one cluster has under a name.
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
	whose []string // the stations that the addresses are of
	ttl   uint32   // seconds
	turn  atomic.Uint32
}

func (r *rotation) add(addr netip.Addr, station string) {
	if !slices.Contains(r.addrs, addr) {
		r.addrs, r.whose = append(r.addrs, addr), append(r.whose, station)
	}
}

// leave takes the addresses of stations that are out from a name of several,
// unless all are.
func (r *rotation) leave(out map[string]bool) {
	var stay []netip.Addr
	for i, addr := range r.addrs {
		if !out[r.whose[i]] {
			stay = append(stay, addr)
		}
	}
	if len(stay) > 0 {
		r.addrs = stay
	}
	r.whose = nil
}

// start is whose turn it is, as an index.
func (r *rotation) start() int {
	if len(r.addrs) < 2 {
		return 0
	}
	return int((r.turn.Add(1) - 1) % uint32(len(r.addrs)))
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

// newZones indexes what a server is to know. The stations that are out leave
// the names that they share with others.
func newZones(d netplan.DNS, out []string) (*zones, error) {
	z := &zones{
		apexes:   map[string]bool{},
		existing: map[string]bool{},
		names:    map[string]*node{},
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
			z.addSubnet(subnet, i)
		}
	}
	for _, subnet := range d.Links {
		z.addSubnet(subnet, noCluster)
	}
	slices.SortFunc(z.bits, func(a, b int) int { return cmp.Compare(b, a) })
	for i := range d.Hosts {
		h := &d.Hosts[i]
		if cluster, ok := index[h.Cluster]; ok {
			z.addHost(cluster, h)
		}
	}
	for _, p := range d.Pointers {
		if cluster, ok := index[p.Cluster]; ok {
			z.pointers[p.Address.Unmap()] = append(z.pointers[p.Address.Unmap()], pointer{cluster, canonical(p.FQDN)})
		}
	}
	taken := map[int]bool{}
	for i, c := range z.clusters {
		taken[i] = z.bound(canonical(join(backboneName, c.Domain)), i) || z.bound(backboneName+".", i)
	}
	for _, addr := range d.Listen {
		if cluster := z.clusterOf(addr); cluster != noCluster && !taken[cluster] {
			z.addBackbone(cluster, addr.Unmap())
		}
	}
	if err := z.addRecords(d.Records); err != nil {
		return nil, err
	}
	z.addParents()
	z.leave(out)
	z.prepare()
	return z, nil
}

func (z *zones) addSubnet(subnet netip.Prefix, cluster int) {
	if _, ok := z.subnets[subnet.Masked()]; ok {
		return
	}
	z.subnets[subnet.Masked()] = cluster
	if !slices.Contains(z.bits, subnet.Bits()) {
		z.bits = append(z.bits, subnet.Bits())
	}
}

// leave takes the stations that are out from the names that are several's.
func (z *zones) leave(out []string) {
	gone := map[string]bool{}
	for _, station := range out {
		gone[station] = true
	}
	for _, n := range z.names {
		for _, b := range n.bindings {
			b.v4.leave(gone)
			b.v6.leave(gone)
		}
	}
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
			z.bind(name, cluster, addrs, h.Station)
		}
	}
	for _, a := range addrs {
		z.pointers[a] = append(z.pointers[a], pointer{cluster, fqdn})
	}
}

// bound tells whether a cluster has addresses under a name.
func (z *zones) bound(name string, cluster int) bool {
	n := z.names[name]
	return n != nil && slices.ContainsFunc(n.bindings, func(b *binding) bool { return b.cluster == cluster })
}

// addBackbone names one address of the backbone, unless it is a station's.
func (z *zones) addBackbone(cluster int, addr netip.Addr) {
	domain := z.clusters[cluster].Domain
	name := canonical(join(backboneName, domain))
	if len(z.pointers[addr]) > 0 {
		return
	}
	z.bind(name, cluster, []netip.Addr{addr}, "")
	if domain != "" {
		z.bind(backboneName+".", cluster, []netip.Addr{addr}, "")
	}
	z.pointers[addr] = append(z.pointers[addr], pointer{cluster, name})
}

// at is the node of a canonical name, a new one where there was none.
func (z *zones) at(name string) *node {
	n := z.names[name]
	if n == nil {
		n = &node{}
		z.names[name] = n
	}
	return n
}

// bind adds a station's addresses to what a cluster has under a name.
func (z *zones) bind(name string, cluster int, addrs []netip.Addr, station string) {
	n := z.at(name)
	i := slices.IndexFunc(n.bindings, func(b *binding) bool { return b.cluster == cluster })
	if i < 0 {
		i = len(n.bindings)
		n.bindings = append(n.bindings, newBinding(cluster))
	}
	for _, a := range addrs {
		n.bindings[i].family(a).add(a, station)
	}
}

func newBinding(cluster int) *binding {
	b := &binding{cluster: cluster}
	b.v4.ttl, b.v6.ttl = ttl, ttl
	return b
}

func (b *binding) family(a netip.Addr) *rotation {
	if a.Is4() {
		return &b.v4
	}
	return &b.v6
}

// addParents notes the names that exist only because others lie below them
// (empty non-terminals, RFC 8020): they are NODATA, not NXDOMAIN.
func (z *zones) addParents() {
	add := func(name string) {
		for {
			name = parent(name)
			if name == "." || z.existing[name] {
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
	for subnet := range z.subnets {
		add(reverseName(zoneBlock(subnet.Addr(), subnet.Bits())))
	}
	for addr := range z.pointers {
		add(reverseName(netip.PrefixFrom(addr, addr.BitLen())))
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

// clusterOf is the cluster whose subnet holds addr, or whose station has it
// elsewhere.
func (z *zones) clusterOf(addr netip.Addr) int {
	_, cluster, _ := z.subnetOf(addr)
	if cluster == noCluster {
		if list := z.pointers[addr.Unmap().WithZone("")]; len(list) > 0 {
			cluster = list[0].cluster
		}
	}
	return cluster
}

// subnetOf is the longest subnet that holds addr, and its cluster.
func (z *zones) subnetOf(addr netip.Addr) (subnet netip.Prefix, cluster int, ok bool) {
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
			return p, cluster, true
		}
	}
	return netip.Prefix{}, noCluster, false
}

// lookup finds the addresses under a name, or nil: those of the asker's own
// cluster, otherwise of the first cluster in the file that has the name.
func (n *node) lookup(asker int) *binding {
	for _, b := range n.bindings {
		if b.cluster == asker {
			return b
		}
	}
	if len(n.bindings) > 0 {
		return n.bindings[0]
	}
	return n.own
}

// unknown is the code for a name that is not ours where nobody is asked about
// such names: for the topology they do not exist. SERVFAIL would have musl's
// resolver wait for a better answer for seconds.
func (z *zones) unknown(name string, qtype uint16) int {
	name = strings.ToLower(name)
	switch {
	case name == "." || delegationType(qtype):
		return dns.RcodeServerFailure
	case z.existing[name]:
		return dns.RcodeSuccess
	}
	return dns.RcodeNameError
}

// find is what there is under a name, or what a wildcard stands for: that of
// the nearest name above that exists (RFC 4592, section 3.3.1).
func (z *zones) find(name string) *node {
	if n := z.names[name]; n != nil || !z.wildcard || z.existing[name] || z.apexes[name] {
		return n
	}
	for above := parent(name); ; above = parent(above) {
		if n := z.names["*."+above]; n != nil {
			return n
		}
		if above == "." || z.names[above] != nil || z.existing[above] || z.apexes[above] {
			return nil
		}
	}
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
