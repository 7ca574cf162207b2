package topology

// stationKeys returns what a station takes. Where compose has the concept,
// name and syntax are compose's.
func stationKeys() []key {
	address := text("an IP address")
	words := either("a command line or a list of words", text(""), list("", text("a word")))
	return []key{
		{name: "rootfs", shape: text("host or a folder"), example: "rootfs: host", def: "the built-in image, a small HTTP server that tells who answered",
			doc: "Where the station's programs come from. `host`: the machine's /usr and " +
				"/etc, copy-on-write and without what others may not read; /var, /home, /root, /run and /tmp are the station's " +
				"own and nearly empty, so that dpkg and apt find no packages there. Otherwise a folder with a " +
				"root file system; a relative one starts at the file's folder."},
		{name: "writable", shape: oneOf("disk", "memory"), example: "writable: memory", def: "`disk`",
			doc: "Where the station's writes go. What is on `disk` outlives restarts, edits and a reboot, but not `down`; `memory` is empty at each start. The root file system itself is never written to."},
		{name: "address", shape: address, example: "address: 10.20.0.5", def: "a stable automatic one",
			doc: "The station's address in its cluster."},
		{name: "addresses", shape: list("a list of IP addresses", address), example: `addresses: [10.20.0.5, "fd20::5"]`,
			def: "see `address`", doc: "The same for a cluster with several subnets, or for several addresses in one. The first of each subnet is the one that the station's name has; a subnet without one here gives an automatic one."},
		{name: "loopback", shape: list("a list of IP addresses", address), example: `loopback: [10.255.0.1, "fd00::1"]`, def: "none",
			doc: "Further addresses of the station's own, on its interface `lo`. Others need a route to them; several stations may have the same one."},
		{name: "interface_name", shape: text("an interface's name, at most 15 characters"), example: "interface_name: lan0", def: "`eth0`",
			doc: "What the station's first interface is called."},
		macAddress("The MAC address of the station's first interface."),
		vlanKey("station's first "), vlansKey("station's first "),
		{name: "interfaces", shape: list("a list of interfaces", object("a mapping of cluster and address", interfaceLevel)),
			example: "interfaces: [{cluster: backend, address: 10.30.0.11}]", def: "none",
			doc: "Further interfaces in other clusters: `eth1`, `eth2` and so on, in this order."},
		{name: "routes", shape: list("a list of routes", object("a mapping of to and via", routeLevel)),
			example: "routes: [{to: 198.51.100.0/24, via: 10.20.0.254}]", def: "the default route of each family, through the gateway of the first interface that has it",
			doc: "Further routes of the station."},
		{name: "aliases", shape: list("a list of DNS names", text("a DNS name")), example: "aliases: [www, www.shop.example]", def: "none",
			doc: "Further names of the station: short ones in the cluster's domain, or full ones."},
		{name: "tls", shape: either("true, false, or a mapping of names and days", shape{form: formBoolean}, object("", tlsLevel)), example: "tls: true", def: "false",
			doc: "Puts a certificate for the station's names and addresses, and its key, into /etc/platelayer/tls, as cert.pem and key.pem of the station's user. " +
				"The authority that signs it is the topology's own; all stations of the topology trust it. `platelayer ca` prints it for the machine's browser."},
		{name: "entrypoint", shape: words, example: "entrypoint: [/usr/sbin/nginx]", def: "that of the image, or none",
			doc: "The program that runs as the station's PID 1, with `command` as its arguments. `[]` or an empty text removes the image's."},
		{name: "command", shape: words, example: `command: [nginx, -g, "daemon off;"]`, def: "that of the image",
			doc: "What the station runs, or the arguments of `entrypoint`. One text is split into words as a shell does, but no shell runs it: " +
				"for `;`, `|`, `>` and the like write `[sh, -c, \"...\"]`."},
		{name: "environment", shape: either("a mapping of names to values or a list of NAME=value",
			table("", shape{form: formAny, is: "a value", null: true}), list("", text("NAME=value"))),
			example: "environment: {LANG: C.UTF-8, TOKEN: }", def: "only what the image sets",
			doc: "Variables of the station's programs. One without a value is taken over from `platelayer`'s own environment or `.env`, if it is set there."},
		{name: "working_dir", shape: text("an absolute path"), example: "working_dir: /srv", def: "that of the image, or `/`",
			doc: "Where the command starts."},
		{name: "user", shape: text("a user, or user:group"), example: `user: "www-data:www-data"`, def: "root",
			doc: "Who runs the command: names or numbers, `user` or `user:group`."},
		{name: "hostname", shape: text("a host name"), example: "hostname: www1", def: "the station's name",
			doc: "The name that the station's programs see as their machine's."},
		{name: "volumes", shape: list("a list of volumes", either("[SOURCE:]TARGET[:OPTIONS] or a mapping", text(""), object("", volumeLevel))),
			example: "volumes: [./site:/srv/site:ro]", def: "none",
			doc: "Files and folders of the machine that the station sees, as `SOURCE:TARGET`, `SOURCE:TARGET:ro`, or a mapping. " +
				"A relative source starts with `./` and at the file's folder, `~` is your home. `NAME:TARGET` is a volume of the top level, which " +
				"outlives `down`; `TARGET` alone is a volume of the station's own, which goes with it."},
		{name: "depends_on", shape: either("a list of stations or a mapping of stations to conditions",
			list("", text("a station")), table("", object("a mapping with condition", dependencyLevel).orNull())),
			example: "depends_on: [db, backend/cache]", def: "none",
			doc: "Stations that start before this one, as `station` or `cluster/station`; the name of a group means all of it. " +
				"A mapping says what to wait for."},
		{name: "startup", shape: words, example: "startup: [/srv/prepare, --once]", def: "none",
			doc: "A command that runs in the station and must succeed before the station's own starts, at each start. " +
				"One text is split into words as with `command`."},
		{name: "healthcheck", shape: object("a mapping of a healthcheck's keys", healthLevel),
			example: `healthcheck: {test: [CMD, curl, -f, "http://localhost/"]}`, def: "none",
			doc: "A command that tells whether the station is well. `up` waits for it, and so do stations that depend on this one with `service_healthy`."},
		{name: "restart", shape: either("no, always, on-failure, on-failure:N or unless-stopped", text(""), shape{form: formBoolean}),
			example: "restart: on-failure:5", def: "`no`",
			doc: "What happens when the command ends by itself. `always` and `unless-stopped` start it again, `on-failure` only after a failure, " +
				"`on-failure:N` at most N times. The pauses between grow from 0.1 s to a minute; `stop` is respected by all."},
		{name: "stop_signal", shape: text("a signal's name or number"), example: "stop_signal: SIGQUIT", def: "`SIGTERM`",
			doc: "The signal that asks the station to stop."},
		{name: "stop_grace_period", shape: text("a time like 10s or 1m30s"), example: "stop_grace_period: 1m30s", def: "`10s`",
			doc: "How long the station may take to stop before it is killed."},
		{name: "mem_limit", shape: text("a size like 64m or 1.5g"), example: "mem_limit: 256m", def: "no limit",
			doc: "The most memory the station may use: bytes, or with `k`, `m`, `g` (also `kb`, `mb`, `gb`), in steps of 1024."},
		{name: "pids_limit", shape: shape{form: formInteger}, example: "pids_limit: 100", def: "no limit",
			doc: "The most processes and threads the station may have; `-1` is no limit."},
		{name: "replicas", shape: shape{form: formInteger}, example: "replicas: 3", def: "the station itself, without a number",
			doc: "How many of the station there are, from 0 to 1000: NAME-1, NAME-2 and so on, with addresses of their own. All of them answer to " +
				"the DNS name NAME, and `depends_on` takes NAME for all of them. Another number moves no address; `platelayer scale` overrides it."},
		{name: "scale", shape: shape{form: formInteger}, example: "scale: 3", def: "see `replicas`",
			doc: "Compose's older word for `replicas`."},
		{name: "deploy", shape: object("a mapping of replicas", deployLevel), example: "deploy: {replicas: 3}", def: "see `replicas`",
			doc: "Compose's other place for `replicas`."},
		{name: "group", shape: text("a name"), example: "group: web", def: "none, or the name of the station with `replicas`",
			doc: "Makes the station one of several that share a DNS name, as `replicas` does, where each is written out: with an address of its own, say."},
		{name: "profiles", shape: list("a list of names", text("a name")), example: "profiles: [debug]", def: "always there",
			doc: "The station is there only when one of its profiles is asked for (`--profile debug`), or the station itself."},
		{name: "labels", shape: either("a mapping of names to values or a list of NAME=value",
			table("", shape{form: formAny, is: "a value", null: true}), list("", text("NAME=value"))),
			example: "labels: {com.example.team: web}", def: "none",
			doc: "Notes of your own on the station, shown by `inspect`."},
		{name: "logging", shape: object("a mapping of driver and options", loggingLevel),
			example: `logging: {options: {max-size: 50m, max-file: "3"}}`, def: "at most 2 files of 10m",
			doc: "How much of the station's output is kept."},
		{name: "seal", shape: list("a list of absolute paths", text("an absolute path")), example: "seal: [/etc/nginx, /srv/app]", def: "nothing is sealed",
			doc: "Short for `integrity` with its default manifest. `platelayer seal` writes the checksums, `up` refuses to start anything when a sealed file differs."},
		{name: "integrity", shape: object("a mapping of paths and manifest", integrityLevel),
			example: "integrity: {paths: [/etc/nginx], manifest: ./nginx.sha256}", def: "nothing is sealed",
			doc: "What is sealed and where its checksums are. Not together with `seal`."},
	}
}
