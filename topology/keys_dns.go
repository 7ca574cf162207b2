package topology

// resolverKeys are a station's own view of names, with compose's syntax.
func resolverKeys() []key {
	address := text("an IP address")
	domain := text("a domain name")
	return []key{
		{name: "dns", shape: either("an address or a list of them", address, list("", address)), example: "dns: 198.51.100.53", def: "the backbone",
			doc: "Who answers the station's DNS questions. An address of the topology's own, or of the station's loopback, is asked by the station itself. " +
				"Of others the backbone asks, instead of `upstream`, about names that are not the topology's."},
		{name: "dns_search", shape: either("a domain or a list of them", domain, list("", domain)), example: "dns_search: [shop.example, example]", def: "the cluster's domain",
			doc: "The domains that a short name is looked up in; `.` is none."},
		{name: "dns_opt", shape: list("a list of options", text("an option")), example: `dns_opt: ["ndots:2", "timeout:1"]`, def: "none",
			doc: "Options of resolv.conf(5)."},
		{name: "extra_hosts", shape: either("a list of NAME=ADDRESS or a mapping of names to addresses", list("", text("NAME=ADDRESS")),
			table("", either("an address or a list of them", text(""), list("", text("an IP address"))))),
			example: `extra_hosts: ["mail.example=198.51.100.25"]`, def: "none",
			doc: "Further lines of the station's /etc/hosts, which it looks into before it asks anybody."},
	}
}

// upstreamKeys are those of an entry of upstream.
func upstreamKeys() []key {
	return []key{
		{name: "domain", required: true, shape: text("a domain name"), example: "domain: corp.example", doc: "The domain; all names below it are meant too. Of several entries that fit the longest counts."},
		{name: "servers", required: true, shape: either("host or an IP address, or a list of them", text(""), list("", text("host or an IP address"))), example: "servers: [10.1.1.1]",
			doc: "Who is asked, in this order: `host` for the machine's own resolvers, or addresses."},
	}
}

func recordsKey() key {
	return key{name: "records", shape: list("a list of DNS records", text("a record like \"@ MX 10 mail\"")), example: `records: ["@ MX 10 mail", "_sip._tcp 300 SRV 0 5 5060 pbx", "*.apps A 10.20.0.9"]`, def: "none",
		doc: "Further DNS records, each as in a zone file: a name, perhaps a TTL in seconds (1 unless given), a type and its data. A name that does not end in a dot is the domain's, `@` is the domain itself, " +
			"and a `*` as first part stands for all names that there are not. Types are A, AAAA, CNAME, MX, SRV, TXT, CAA and PTR; others by their number, as RFC 3597 has it. A record may be about any name, also of " +
			"somebody else's domain: `api.example.com. A 10.20.0.9`. All clusters see all records."}
}
