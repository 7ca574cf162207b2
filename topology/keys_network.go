package topology

// hostInterfacePattern is what Linux takes for a name (dev_valid_name).
const hostInterfacePattern = `^[^/:\s]{1,15}$`

const interfacePattern = `^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`

func interfaceName(example, doc string) key {
	name := text("an interface's name, at most 15 characters")
	name.pattern = interfacePattern
	return key{name: "name", shape: name, example: example, def: "`eth` and the interface's number", doc: doc}
}

func egressKey(def, doc string) key {
	return key{name: "egress", shape: either("allow, none or a list of destinations", text(""), list("", text("an address, a subnet or a DNS name, with or without :PORT"))),
		example: `egress: [registry.example:443, 203.0.113.9, 198.51.100.0/24]`, def: def, doc: doc}
}

func macAddress(doc string) key {
	return key{name: "mac_address", shape: text("a MAC address"), example: "mac_address: 02:42:0a:14:00:05",
		def: "one that follows from the station's name", doc: doc}
}

func vlanKey(whose string) key {
	return key{name: "vlan", shape: shape{form: formInteger, is: "a VLAN's number"}, example: "vlan: 10", def: "1",
		doc: "The VLAN (802.1Q) of the cluster's switch that the " + whose + "interface is in; it sees no tags. The backbone is in VLAN 1."}
}

func vlansKey(whose string) key {
	return key{name: "vlans", shape: list("a list of VLANs", shape{form: formInteger, is: "a VLAN's number"}), example: "vlans: [10, 20]", def: "none",
		doc: "The VLANs whose packets pass the " + whose + "interface with their tags: a trunk. Without `vlan` what has no tag does not pass."}
}

func mtuKey(def string) key {
	return key{name: "mtu", shape: shape{form: formInteger, is: "a whole number of bytes"}, example: "mtu: 1400", def: def,
		doc: "The largest packet of the interface, from 68 to 65535 bytes; at least 1280 where it has IPv6 addresses."}
}

// networkLevels are the levels below links and gateways.
func networkLevels() map[level][]key {
	address := text("an IP address")
	return map[level][]key{
		portLevel: portKeys(),
		linkLevel: {
			{name: "endpoints", required: true, shape: list("a list of two stations",
				either("a station or a mapping of its end", text(""), object("", endpointLevel))),
				example: "endpoints: [a, lan/db]",
				doc:     "The two stations, each as `station`, as `cluster/station`, or as a mapping with more about its end."},
			{name: "subnet", shape: text("a subnet like 10.99.0.0/31"), example: "subnet: 10.99.0.0/31", def: "no addresses",
				doc: "The link's addresses. The first endpoint gets the first one, the second the next, unless they say otherwise."},
			{name: "subnets", shape: list("a list of subnets", text("a subnet like 10.99.0.0/31")),
				example: `subnets: [10.99.0.0/31, "fd99::/127"]`, def: "see `subnet`", doc: "The same for IPv4 and IPv6 together."},
			mtuKey("1500"),
		},
		endpointLevel: {
			{name: "station", required: true, shape: text("a station"), example: "station: lan/a", doc: "The station, as `station` or `cluster/station`."},
			interfaceName("name: wan0", "What the station's interface is called."),
			{name: "address", shape: address, example: "address: 10.99.0.1", def: "the next free one of the link's subnet", doc: "The end's address."},
			{name: "addresses", shape: list("a list of IP addresses", address), example: `addresses: [10.99.0.1, "fd99::1"]`, def: "see `address`", doc: "The same for a link with several subnets."},
			macAddress("The end's MAC address."),
		},
		tlsLevel: {
			{name: "names", shape: list("a list of DNS names and addresses", text("a DNS name or an IP address")), example: `names: ["*.shop.example"]`, def: "none",
				doc: "What the certificate is for beside the station's own names, aliases and addresses, and localhost."},
			{name: "days", shape: shape{form: formInteger, is: "a whole number of days"}, example: "days: 30", def: "825",
				doc: "How long the certificate holds, at most 3650 days. Each start of the station makes a new one."},
		},
		gatewayLevel: {
			{name: "station", required: true, shape: text("the name of a station of the cluster"), example: "station: lb", doc: "The gateway."},
			{name: "inline", shape: shape{form: formBoolean}, example: "inline: true", def: "false",
				doc: "Takes the backbone off the cluster's switch: a link of its own leads to the gateway, which is then the only way in and out, as a firewall is in production."},
			{name: "transit", shape: either("a subnet like 10.99.0.0/31, or a list of them", text(""), list("", text(""))), example: "transit: 10.99.0.0/31", def: "one of 10.255.128.0/17 that follows from the cluster's name",
				doc: "The addresses of that link: the backbone has the first one, the gateway the next. With IPv6 subnets the link has a /127 besides."},
			{name: "metric", shape: shape{form: formInteger, is: "a whole number"}, example: "metric: 200", def: "0, then 100, 200 and so on in the order of the list",
				doc: "The metric of the default routes through it: the lowest one is taken. A route whose interface is down is none."},
		},
	}
}
