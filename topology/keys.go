package topology

import (
	"maps"
	"slices"
)

// keyTable returns every key of every level. Decoding, the JSON Schema and
// the reference all read it.
func keyTable() map[level][]key {
	keys := limitLevels()
	maps.Copy(keys, networkLevels())
	maps.Copy(keys, map[level][]key{
		topologyLevel:   append(topologyKeys(), reuseKeys()...),
		backboneLevel:   backboneKeys(),
		clusterLevel:    clusterKeys(),
		stationLevel:    slices.Concat(stationKeys(), limitKeys(), resolverKeys()),
		interfaceLevel:  interfaceKeys(),
		routeLevel:      routeKeys(),
		volumeLevel:     volumeKeys(),
		dependencyLevel: dependencyKeys(),
		healthLevel:     healthKeys(),
		loggingLevel:    loggingKeys(),
		logOptionsLevel: logOptionKeys(),
		deployLevel:     deployKeys(),
		integrityLevel:  integrityKeys(),
		upstreamLevel:   upstreamKeys(),
	})
	return keys
}

const namePattern = "^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"

func text(is string) shape               { return shape{form: formText, is: is} }
func object(is string, v level) shape    { return shape{form: formObject, is: is, level: v} }
func list(is string, elem shape) shape   { return shape{form: formList, is: is, elem: &elem} }
func table(is string, elem shape) shape  { return shape{form: formTable, is: is, elem: &elem} }
func either(is string, o ...shape) shape { return shape{form: formEither, is: is, options: o} }
func oneOf(words ...string) shape        { return shape{form: formText, words: words} }
func (s shape) orNull() shape            { s.null = true; return s }

func topologyKeys() []key {
	name := text("a name of lower-case letters, digits, - and _")
	name.pattern = namePattern
	return []key{
		{name: "name", shape: name, example: "name: shop", def: "the name of the file's folder",
			doc: "What the topology is called on this machine. Container names start with it."},
		{name: "backbone", shape: object("a mapping of the backbone's keys", backboneLevel),
			example: "backbone: {upstream: [host]}", def: "all defaults",
			doc: "The container that links the clusters, answers DNS, and links them to the machine."},
		{name: "clusters", required: true, shape: table("a mapping of cluster names", object("a mapping of a cluster's keys", clusterLevel)),
			example: "clusters: {lan: {stations: {a: , b: }}}",
			doc:     "The LANs, each under its name. A cluster is one virtual switch with its stations."},
		{name: "links", shape: list("a list of links", object("a mapping of a link's keys", linkLevel)),
			example: "links: []", def: "none",
			doc: "Point-to-point links between stations, outside of any switch. A station's further interfaces come first, then its links in this order."},
	}
}

func backboneKeys() []key {
	return []key{
		egressKey("`allow`", "What stations may reach outside of the topology by TCP, UDP and ping: `allow`, everything but the machine itself; "+
			"`none`, nothing at all, DNS included; or a list of addresses, subnets and DNS names, each with `:PORT` or for all ports."),
		{name: "upstream", shape: list("a list of host, IP addresses or mappings of domain and servers", either("host, an IP address, or a mapping of domain and servers", text(""), object("", upstreamLevel))),
			example: "upstream: [host, 9.9.9.9]", def: "`[host]`, or `[]` when `egress` is `none`",
			doc: "Who answers DNS questions about names that are not the topology's: `host` for the machine's own " +
				"resolvers, or addresses. `[]`: nobody. An entry `{domain: corp.example, servers: [10.1.1.1]}` is for the names of one domain."},
		{name: "routes", shape: list("a list of routes", object("a mapping of to and via", routeLevel)),
			example: "routes: [{to: 198.51.100.0/24, type: unreachable}]", def: "none",
			doc: "Further routes of the backbone: to what lies behind a station, or to nowhere."},
		{name: "host_routes", shape: either("true, false or auto", oneOf("auto"), shape{form: formBoolean}), example: "host_routes: true", def: "`auto`",
			doc: "Whether the machine reaches stations at their own addresses. `auto`: those in private, unique local, shared (CGNAT) and documentation ranges. " +
				"`true`: all, so that the machine does not reach the real owners of these addresses meanwhile. A subnet that the machine is connected to never."},
		{name: "host_access", shape: shape{form: formBoolean}, example: "host_access: true", def: "false",
			doc: "Whether stations may open connections to the machine, at its end of the uplink; to which ports is its own firewall's."},
	}
}

func clusterKeys() []key {
	address := text("an IP address")
	return []key{
		{name: "domain", shape: text("a domain name"), example: "domain: shop.example",
			def: "`<cluster>.<topology>.internal`",
			doc: "The cluster's DNS domain. A station answers to `<station>.<domain>`. Several clusters may share one."},
		{name: "subnet", shape: text("a subnet like 10.20.0.0/24, or none"), example: "subnet: 10.20.0.0/24",
			def: "a /20 of 10.0.0.0/8 that follows from the cluster's name",
			doc: "The cluster's addresses, IPv4 or IPv6. Any range may be used, public ones too. `none`: a switch without addresses, for what runs on Ethernet itself; the backbone has no leg in it."},
		{name: "subnets", shape: list("a list of subnets", text("a subnet like 10.20.0.0/24")),
			example: `subnets: [10.20.0.0/24, "fd20::/64"]`, def: "see `subnet`",
			doc: "Several subnets, where one is not enough. Every station gets an address in each."},
		{name: "gateway", shape: either("the name of a station of the cluster, a mapping, or a list of them", text("the name of a station of the cluster"),
			object("", gatewayLevel), list("", either("a station or a mapping", text(""), object("", gatewayLevel)))),
			example: "gateway: lb", def: "the backbone",
			doc: "The station that is the cluster's default gateway. Everything between this cluster and the others " +
				"passes through it, both ways. Of several the first is the gateway, and the others stand by: routes through them have higher metrics."},
		{name: "backbone", shape: oneOf("none"), example: "backbone: none", def: "the backbone has a leg in the cluster",
			doc: "`none`: a LAN that the backbone has no leg in, so that nothing but its own stations leads out of it."},
		{name: "isolated", shape: shape{form: formBoolean}, example: "isolated: true", def: "false",
			doc: "Keeps the cluster and all others apart in the backbone."},
		{name: "allow", shape: list("a list of clusters", text("the name of a cluster")), example: "allow: []", def: "all clusters",
			doc: "The only clusters that this one and its stations may meet through the backbone. Two clusters meet where both allow it."},
		{name: "routes", shape: list("a list of routes", object("a mapping of to and via", routeLevel)),
			example: "routes: [{to: 198.51.100.0/24, type: blackhole}]", def: "none",
			doc: "Further routes of every station of the cluster. A station's own to the same place win; who is in that place, or whom the route leads through, does not get it."},
		{name: "backbone_address", shape: address, example: "backbone_address: 10.20.0.254",
			def: "the first free address of each subnet when the backbone is the gateway, otherwise the last",
			doc: "The backbone's address in this cluster."},
		{name: "backbone_addresses", shape: list("a list of IP addresses", address),
			example: `backbone_addresses: [10.20.0.254, "fd20::fe"]`, def: "see `backbone_address`",
			doc: "The same for a cluster with several subnets; at most one for each."},
		recordsKey(),
		egressKey("the backbone's", "What the cluster's stations may reach outside of the topology, as in `backbone`."),
		{name: "mtu", shape: shape{form: formInteger, is: "a whole number of bytes"}, example: "mtu: 9000", def: "1500",
			doc: "The largest packet on the cluster's network, from 68 to 65535 bytes; at least 1280 where there is an IPv6 subnet."},
		{name: "switch", shape: oneOf("host"), example: "switch: host", def: "the cluster's bridge is in the topology's own namespace alone",
			doc: "`host`: the machine has a bridge too, wired to the cluster's, for its own interfaces, the taps of virtual machines or a capture."},
		{name: "attach", shape: list("a list of the machine's interfaces", text("the name of an interface")), example: "attach: [eth7]", def: "none",
			doc: "Interfaces of the machine, physical ones or taps, that become ports of its bridge, and are given back by `down`. The machine must not use them itself: one with an address is refused."},
		{name: "stations", shape: table("a mapping of station names", object("a mapping of a station's keys", stationLevel).orNull()).orNull(),
			example: "stations: {a: , b: {address: 10.20.0.9}}", def: "none",
			doc: "The containers of the cluster, each under its name. One without keys runs the built-in image."},
	}
}

func interfaceKeys() []key {
	address := text("an IP address")
	return []key{
		{name: "cluster", required: true, shape: text("the name of a cluster"), example: "cluster: backend",
			doc: "The cluster that the interface is in."},
		{name: "address", shape: address, example: "address: 10.20.0.11", def: "a stable automatic one",
			doc: "The interface's address, in a subnet of that cluster."},
		{name: "addresses", shape: list("a list of IP addresses", address), example: `addresses: [10.20.0.11, "fd20::11"]`,
			def: "see `address`", doc: "The same for a cluster with several subnets, or for several addresses in one."},
		interfaceName("name: wan0", "What the interface is called."),
		macAddress("The interface's MAC address."),
		vlanKey(""), vlansKey(""),
		mtuKey("that of the cluster"),
	}
}

func routeKeys() []key {
	return []key{
		{name: "to", required: true, shape: text("a subnet, an address or default"), example: "to: 198.51.100.0/24",
			doc: "Where the route leads: a subnet, an address, or `default`, which overrides the cluster's gateway."},
		{name: "via", shape: text("an IP address"), example: "via: 10.20.0.254", def: "see `dev` and `type`",
			doc: "The next hop: an address in a subnet of one of the station's interfaces."},
		{name: "dev", shape: text("an interface's name"), example: "dev: eth0", def: "the interface that `via` lies behind",
			doc: "The interface. Without `via` the destination is on its wire."},
		{name: "type", shape: oneOf("unicast", "blackhole", "unreachable", "prohibit"), example: "type: blackhole", def: "`unicast`",
			doc: "What becomes of the packets, as in ip-route(8): all but `unicast` lead nowhere, and take neither `via` nor `dev`."},
		{name: "metric", shape: shape{form: formInteger, is: "a whole number"}, example: "metric: 50", def: "0",
			doc: "Of several routes to one place the one with the lowest metric is taken. For IPv6 `ip route` shows 1024 more, for Linux takes 0 as 1024 there."},
	}
}

func volumeKeys() []key {
	return []key{
		{name: "type", required: true, shape: oneOf("bind", "volume", "tmpfs"), example: "type: bind",
			doc: "A file or folder of the machine, a volume, or memory."},
		{name: "source", shape: text("a path on the machine, or a volume's name"), example: "source: ./site", def: "an anonymous volume",
			doc: "A file or folder of the machine, or the name of a volume. A relative path starts at the file's folder, `~` is your home."},
		{name: "bind", shape: object("a mapping of a bind's keys", bindLevel), example: "bind: {propagation: rslave}", def: "all defaults", doc: "More about a bind."},
		{name: "volume", shape: object("a mapping of nocopy and subpath", volumeOptionsLevel), example: "volume: {nocopy: true}", def: "all defaults", doc: "More about a volume."},
		{name: "tmpfs", shape: object("a mapping of size and mode", tmpfsLevel), example: "tmpfs: {size: 64m}", def: "all defaults", doc: "More about memory."},
		{name: "target", required: true, shape: text("an absolute path"), example: "target: /srv/site",
			doc: "Where the station sees it."},
		{name: "read_only", shape: shape{form: formBoolean}, example: "read_only: true", def: "false",
			doc: "Whether the station may only read it."},
	}
}

func integrityKeys() []key {
	return []key{
		{name: "paths", required: true, shape: list("a list of absolute paths", text("an absolute path")),
			example: "paths: [/etc/nginx]", doc: "Files and folders of the station that must be as they were sealed."},
		{name: "manifest", shape: text("a path on the machine"), example: "manifest: ./www1.sha256",
			def: "`seals/<cluster>/<station>.sha256`",
			doc: "The list of checksums, as `sha256sum` writes it. A relative path starts at the file's folder."},
	}
}
