package netplan

import "fmt"

// FirstTable is the first routing table of the plan's own, and a rule's
// priority is the number of its table. The kernel's tables are 253 to 255, its
// priorities 0, 32766 and 32767.
const FirstTable = 1000

// backbone plans the router that has a leg in every cluster.
//
// A cluster whose gateway is a station is reached through that station, as
// its stations reach everything through it: a stateful firewall there sees
// both directions. The backbone's own answers to a station of that LAN, which
// asked it on the link, go back on the link: a rule by their source says so.
func (b *builder) backbone() (Node, error) {
	n := Node{
		NetNS:      b.t.Name + ".backbone",
		Sysctls:    nodeSysctls(true, b.ipv6),
		Interfaces: []Interface{},
	}
	for i := range b.t.Clusters {
		c := &b.t.Clusters[i]
		name, peer := b.names.leg(c.Name)
		f, err := b.iface(name, peer, "backbone/"+c.Name, c, c.BackboneAddresses)
		if err != nil {
			return n, err
		}
		g := b.gateways[c.Name]
		f.NoPrefixRoute = g != nil
		n.Interfaces = append(n.Interfaces, f)
		if g == nil {
			continue
		}
		for _, own := range f.Addresses {
			table := FirstTable + uint32(len(n.Rules))
			via, ok := addressIn(own.Masked(), addressesIn(g, c.Name))
			if !ok {
				return n, fmt.Errorf("cannot plan cluster %s: its gateway %s has no address in %s", c.Name, g.ID(), own.Masked())
			}
			n.Routes = append(n.Routes,
				Route{To: host(via), Dev: name},
				Route{To: own.Masked(), Via: via, Dev: name},
				Route{To: own.Masked(), Dev: name, Table: table},
			)
			n.Rules = append(n.Rules, Rule{Priority: table, From: host(own.Addr()), To: own.Masked(), Table: table})
		}
	}
	return n, nil
}

// leg names the backbone's interface into a cluster and its port in the
// fabric. They carry the cluster's name and not a number, so that a further
// cluster renames none.
func (a *allocator) leg(cluster string) (name, peer string) {
	return a.fit("to-", cluster), a.fit("bb-", cluster)
}
