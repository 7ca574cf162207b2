package topology

import (
	"fmt"
	"strings"
)

// section is a part of the reference: one level of the file.
type section struct {
	at    level
	title string
	intro string
	// example is a whole file.
	example string
}

// Reference returns docs/topology.md, made from the table of keys.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# The topology file

<!-- Made from the table of keys in the package topology; "go test ./topology -update" writes it. -->

One YAML file, ` + "`platelayer.yaml`" + ` by default, describes a topology. ` + "`platelayer check`" + ` reports every problem in it
with its place, ` + "`platelayer config`" + ` prints it with everything written out, and ` + "`platelayer schema`" + ` prints its JSON
Schema for editors.

The smallest useful file:

` + "```yaml\nclusters: {lan: {stations: {a: , b: }}}\n```\n")
	table := keyTable()
	for _, s := range append(sections(), limitSections()...) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| Key | Takes | Left out |\n|---|---|---|\n", s.title, s.intro)
		for _, k := range table[s.at] {
			left := k.def
			if k.required {
				left = "*required*"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.name, cell(k.shape.String()), cell(left))
		}
		b.WriteByte('\n')
		for _, k := range table[s.at] {
			fmt.Fprintf(&b, "- **`%s`**: %s\n  Example: `%s`\n", k.name, k.doc, k.example)
		}
		if s.example != "" {
			b.WriteString("\n```yaml\n" + s.example + "```\n")
		}
	}
	b.WriteString(reuseText())
	composeTable(&b, table[stationLevel])
	b.WriteString(closing())
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func sections() []section {
	return []section{
		{topologyLevel, "Top level", "Keys that start with `x-` are ignored, here and in the backbone, clusters and stations.",
			`name: shop
x-limits: &limits {mem_limit: 256m, pids_limit: 100}
clusters:
  web:
    subnet: 203.0.113.0/24
    stations:
      www1: {<<: *limits, address: 203.0.113.10}
      www2: {<<: *limits}
`},
		{backboneLevel, "`backbone`", "The container that links the clusters.",
			`backbone: {egress: none}
clusters: {lan: {stations: {a: , b: }}}
`},
		{upstreamLevel, "An entry of `upstream`, long form", "Who answers about the names of one domain.",
			`backbone:
  upstream: [host, {domain: corp.example, servers: [10.1.1.1, 10.1.1.2]}]
clusters: {lan: {stations: {a: , b: }}}
`},
		{clusterLevel, "A cluster", "A cluster is a LAN: one virtual switch, one or more subnets, one default gateway, one DNS domain.",
			`clusters:
  web:
    domain: shop.example
    subnets: [203.0.113.0/24, "fd20::/64"]
    gateway: lb
    mtu: 9000
    stations:
      lb: {addresses: [203.0.113.1, "fd20::1"]}
      www1:
`},
		{stationLevel, "A station", "A station is a container with its own network. Names and syntax are compose's where compose has the concept.",
			`clusters:
  web:
    subnet: 203.0.113.0/24
    gateway: lb
    stations:
      lb:
        rootfs: host
        address: 203.0.113.1
        aliases: [www.shop.example]
        command: [haproxy, -f, /etc/haproxy/haproxy.cfg]
        volumes: [./haproxy.cfg:/etc/haproxy/haproxy.cfg:ro]
        depends_on: [backend/db]
        seal: [/etc/haproxy]
  backend:
    stations:
      db:
        environment: {LANG: C.UTF-8}
        user: "postgres"
        healthcheck: {test: [CMD, pg_isready], interval: 5s}
        restart: on-failure:5
        stop_signal: SIGINT
        stop_grace_period: 1m
        mem_limit: 512m
      worker:
        replicas: 4
        startup: [/srv/prepare]
        depends_on: {db: {condition: service_healthy}}
        logging: {options: {max-size: 1m}}
      console:
        profiles: [debug]
        labels: {com.example.team: backend}
`},
		{interfaceLevel, "An entry of `interfaces`", "A further interface of a station, in another cluster.",
			`clusters:
  web:
    stations:
      router:
        interfaces: [{cluster: backend, address: 10.20.0.9}]
  backend:
    subnet: 10.20.0.0/24
`},
		{tlsLevel, "`tls` of a station, long form", "What the station's certificate is for, and for how long.",
			`clusters:
  web:
    domain: shop.example
    stations:
      lb: {tls: {names: ["*.shop.example"], days: 30}}
      shop: {tls: true}
`},
		{gatewayLevel, "`gateway` of a cluster, long form", "A station that leads out of the cluster. In a list the first is the default gateway.",
			`clusters:
  office:
    subnet: 10.40.0.0/24
    gateway: {station: firewall, inline: true}
    stations: {firewall: , desk: }
  lab:
    subnet: 10.41.0.0/24
    gateway: [fibre, {station: mobile, metric: 500}]
    stations: {fibre: , mobile: , desk: }
`},
		{portLevel, "An entry of `ports`, long form", "The short form is `PUBLISHED:TARGET`, `ADDRESS:PUBLISHED:TARGET/udp` or `TARGET`.",
			`clusters:
  web:
    stations:
      www1: {ports: ["81:80"]}
      www2: {ports: [{target: 80, published: "82", host_ip: 127.0.0.1}]}
`},
		{linkLevel, "An entry of `links`", "A wire between two stations, outside of any switch.",
			`clusters:
  a: {stations: {router: }}
  b: {stations: {router: }}
links:
  - {endpoints: [a/router, b/router], subnet: 10.99.0.0/31}
  - endpoints: [{station: a/router, name: wan0}, {station: b/router, name: wan0}]
    mtu: 9000
`},
		{endpointLevel, "An entry of `endpoints`, long form", "A station's interface on a link.",
			`clusters:
  a: {stations: {router: }}
  b: {stations: {router: }}
links:
  - endpoints: [{station: a/router, name: wan0, address: 10.99.0.1}, b/router]
    subnet: 10.99.0.0/31
`},
		{routeLevel, "An entry of `routes`", "A route besides the default one: of a station, of all stations of a cluster, or of the backbone.",
			`clusters:
  web:
    subnet: 203.0.113.0/24
    stations:
      vpn: {address: 203.0.113.254}
      www1:
        routes: [{to: 198.51.100.0/24, via: 203.0.113.254}]
`},
		{volumeLevel, "An entry of `volumes`, long form", "The short form is `SOURCE:TARGET` or `SOURCE:TARGET:ro`.",
			`clusters:
  web:
    stations:
      www1:
        volumes:
          - {type: bind, source: ./site, target: /srv/site, read_only: true}
          - ./logs:/var/log/site
`},
		{dependencyLevel, "A value of `depends_on`, long form", "The short form is a list of stations.",
			`clusters:
  web:
    stations:
      www1:
        depends_on:
          db: {condition: service_healthy, restart: true}
          migrate: {condition: service_completed_successfully}
          cache: {required: false}
      db:
        healthcheck: {test: "test -S /run/db.sock"}
      migrate:
        command: [/srv/migrate]
        depends_on: {db: {condition: service_healthy}}
      cache:
        profiles: [fast]
`},
		{healthLevel, "`healthcheck`", "The check runs inside the station, as its user and with its environment.",
			`clusters:
  backend:
    stations:
      db:
        healthcheck:
          test: [CMD, pg_isready, -U, postgres]
          interval: 10s
          timeout: 2s
          retries: 5
          start_period: 1m
          start_interval: 500ms
          on_unhealthy: restart
`},
		{loggingLevel, "`logging`", "A station's output is kept within bounds and shown by `platelayer logs`.",
			`clusters:
  web:
    stations:
      www1:
        logging:
          driver: json-file
          options: {max-size: 50m, max-file: "3"}
`},
		{logOptionsLevel, "`options` of `logging`", "What bounds the log.",
			`clusters:
  web:
    stations:
      chatty: {logging: {options: {max-size: 1m, max-file: 5}}}
`},
		{deployLevel, "`deploy`", "Compose's key for several of a station. `replicas` in the station says the same.",
			`clusters:
  web:
    gateway: lb
    stations:
      lb:
      www:
        replicas: 3
        depends_on: [backend/api]
  backend:
    stations:
      api: {deploy: {replicas: 2}}
`},
		{integrityLevel, "`integrity`", "`platelayer up` checks sealed files before any station's command runs.",
			`clusters:
  web:
    stations:
      www1:
        integrity:
          paths: [/etc/nginx, /srv/app]
          manifest: ./www1.sha256
`},
	}
}

func closing() string {
	return `
## Names

Topologies, clusters and stations have names of lower-case letters, digits, ` + "`-` and `_`" + `, at most 63, that start and end with a
letter or digit. A station answers to ` + "`<station>.<domain>`" + ` and to its short name; where several clusters have a station of that
name, it means the asker's own cluster's, otherwise that of the first in the file. Its container and its network namespace are
called ` + "`<topology>.<cluster>.<station>`" + `.

## Addresses

The same file gives the same addresses everywhere. What the file does not say follows from names:

- A cluster without a subnet gets a /20 of 10.0.0.0/8 that follows from the cluster's name; never from 10.255.0.0/16. The
  topology's name plays no part, so a copy under another name has the same addresses.
- A station without an address gets one that follows from its name, in every subnet of its cluster. A further interface's
  follows from ` + "`<cluster>/<station>`" + `.
- Explicit addresses are placed first, then the backbone's, then automatic ones in the order of the file; whoever finds
  their place taken gets the next free one. So a cluster or station that is appended moves nobody, and one that is inserted
  moves another only where both names lead to the same place. An explicit address moves the station that had it automatically.
- Replicas come after all others, every station's first one, then the second ones, and so on, and the name that they are
  numbered from keeps its place while the others get theirs. So another number of them moves nobody, except where the new
  replica and one of the same or a higher number of another station lead to the same place.
- The first and the last address of a subnet are given to stations only when nothing else is left: the backbone takes the
  first free one when it is the cluster's gateway, otherwise the last. It too moves only when an explicit address takes its
  place, or when the cluster's gateway changes.

` + "`platelayer config`" + ` prints what was chosen; copy an address from there into the file to hold it in place.

## Variables

` + "`${NAME}`, `$NAME`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`, `${NAME?message}`, `${NAME:+instead}` and `${NAME+instead}`" + `
in values are replaced as compose does, from the environment and the ` + "`.env`" + ` file beside the topology file; ` + "`$$`" + ` is a dollar
sign. A variable that is not set and has no default is a problem; write ` + "`${NAME:-}`" + ` where empty is fine.

## YAML

One document. Anchors, aliases and merge keys (` + "`<<`" + `) work; duplicate and unknown keys are problems. A number where a text is
taken is used as it is written; ` + "`true` and `null`" + ` need quotes to be texts. A key that compose has and this version has not is
refused with a hint, never ignored.
`
}
