package topology

// limitKeys are the station's keys for limits, files, rights and reuse.
func limitKeys() []key {
	boolean, number := shape{form: formBoolean}, shape{form: formInteger}
	size := text("a size like 64m or 1.5g")
	pairs := either("a mapping of names to values or a list of NAME=value",
		table("", shape{form: formAny, is: "a value", null: true}), list("", text("NAME=value")))
	files := list("a list of names or mappings", either("a name or a mapping", text(""), object("", fileLevel)))
	capabilities := list("a list of capabilities", text("a capability"))
	return []key{
		{name: "extends", shape: either("a template, or a mapping of service and file", text(""), object("", extendsLevel)),
			example: "extends: base", def: "nothing", doc: "The template or station whose keys this one has too, below its own; see \"Reuse\"."},
		{name: "env_file", shape: either("a path, or a list of paths or mappings", text(""), list("", either("", text(""), object("", envFileLevel)))),
			example: "env_file: [{path: ./web.env, required: false}]", def: "none",
			doc: "Files of `NAME=value` lines. A later file wins over an earlier one, and `environment` over all."},
		{name: "tty", shape: boolean, example: "tty: true", def: "false", doc: "Gives the command a terminal."},
		{name: "stdin_open", shape: boolean, example: "stdin_open: true", def: "false", doc: "Keeps the command's input open."},
		{name: "init", shape: boolean, example: "init: true", def: "false", doc: "A tiny init is PID 1, passes signals on and reaps."},
		{name: "systemd", shape: boolean, example: "systemd: true", def: "false", doc: "The command is a system manager, such as /sbin/init or " +
			"/lib/systemd/systemd. It gets a writable cgroup tree below the station's limits, memory at `/run`, `/run/lock` and `/tmp` where nothing " +
			"else is mounted, `container=platelayer` in its environment, and is stopped by `SIGRTMIN+3`."},
		{name: "group_add", shape: list("a list of groups", text("a group")), example: "group_add: [mail, 1001]", def: "none",
			doc: "Further groups of the station's user, as names or numbers."},
		{name: "read_only", shape: boolean, example: "read_only: true", def: "false", doc: "Makes the station's root read-only."},
		{name: "tmpfs", shape: either("TARGET[:OPTIONS], or a list of them", text(""), list("", text("TARGET[:OPTIONS]"))),
			example: "tmpfs: [/run, \"/tmp:size=64m,mode=1777,noexec\"]", def: "none",
			doc: "Memory file systems. Options: `size=`, `mode=` (octal), `uid=`, `gid=`, `nr_inodes=`, `ro`, `noexec` and other flags."},
		{name: "configs", shape: files, example: "configs: [site]", def: "none", doc: "Configs of the top level, each a file at `/NAME` unless it has a `target`."},
		{name: "secrets", shape: files, example: "secrets: [{source: key, target: tls.key, mode: 0400}]", def: "none",
			doc: "Secrets of the top level, each a file in `/run/secrets`."},
		{name: "devices", shape: list("a list of devices", either("HOST[:STATION[:rwm]] or a mapping", text(""), object("", deviceLevel))),
			example: "devices: [/dev/fuse, \"/dev/null:/dev/zero2:r\"]", def: "none", doc: "Devices of the machine that the station may use."},
		{name: "cap_add", shape: capabilities, example: "cap_add: [NET_ADMIN]", def: "Docker's without MKNOD", doc: "Further capabilities, with or without `CAP_`, or `ALL`."},
		{name: "cap_drop", shape: capabilities, example: "cap_drop: [ALL]", def: "none", doc: "Capabilities that are taken away."},
		{name: "privileged", shape: boolean, example: "privileged: true", def: "false",
			doc: "Every capability and device, nothing masked: such a station has the whole machine."},
		{name: "security_opt", shape: list("a list of options", text("an option")), example: "security_opt: [seccomp=unconfined, \"no-new-privileges:false\"]",
			def: "the default seccomp profile and no new privileges",
			doc: "`seccomp=FILE` or `seccomp=unconfined`, `no-new-privileges[:true|false]`, `apparmor=PROFILE`, `label=...`."},
		{name: "sysctls", shape: pairs, example: "sysctls: {net.core.somaxconn: 1024}", def: "none",
			doc: "Kernel settings of the station's own namespaces: `net.*`, `fs.mqueue.*`, `kernel.sem`, and those of `kernel.shm*` and `kernel.msg*`."},
		{name: "pid", shape: text("station:NAME"), example: "pid: station:db", def: "its own",
			doc: "The station (`service:NAME` is the same) whose processes it sees; that one starts first."},
		{name: "ipc", shape: text("station:NAME, shareable or private"), example: "ipc: station:db", def: "its own",
			doc: "The station whose System V IPC and message queues it shares; that one starts first."},
		{name: "ulimits", shape: table("a mapping of limits", either("a number or a mapping of soft and hard", number, object("", ulimitLevel))),
			example: "ulimits: {nofile: {soft: 1024, hard: 4096}, core: 0}", def: "the machine's", doc: "Limits of each process (setrlimit(2)); `-1` is unlimited. `nofile` is a number, from 8 on."},
		{name: "oom_score_adj", shape: number, example: "oom_score_adj: 500", def: "0", doc: "From -1000 to 1000: who has more is ended first when memory runs out."},
		{name: "cpus", shape: text("a number of processors"), example: "cpus: 0.5", def: "no limit", doc: "The most processor time: `1.5` is one and a half processors."},
		{name: "cpu_shares", shape: number, example: "cpu_shares: 512", def: "1024", doc: "The station's weight when processors are short, from 2 to 262144."},
		{name: "cpuset", shape: text("a list of processors"), example: "cpuset: \"0-3,7\"", def: "all", doc: "The processors that the station may run on."},
		{name: "memswap_limit", shape: text("a size, or -1"), example: "memswap_limit: -1", def: "the kernel's", doc: "Memory and swap together; `-1` is unlimited swap."},
		{name: "mem_reservation", shape: size, example: "mem_reservation: 64m", def: "none", doc: "What the kernel leaves the station when memory is short."},
		{name: "shm_size", shape: size, example: "shm_size: 128m", def: "`64m`", doc: "The size of `/dev/shm`."},
		{name: "blkio_config", shape: object("a mapping of weights and rates", blkioLevel), example: "blkio_config: {weight: 300}", def: "no limit", doc: "Limits of block devices' use."},
	}
}

func reuseKeys() []key {
	return []key{
		{name: "defaults", shape: object("a mapping of a station's keys", stationLevel), example: "defaults: {restart: on-failure}", def: "none",
			doc: "Keys merged under every station of this file; see \"Reuse\"."},
		{name: "templates", shape: table("a mapping of names to a station's keys", object("a mapping of a station's keys", stationLevel).orNull()),
			example: "templates: {base: {mem_limit: 64m}}", def: "none", doc: "Stations that are not there, for `extends`."},
		{name: "include", shape: list("a list of files", either("a path or a mapping", text(""), object("", includeLevel))),
			example: "include: []", def: "none", doc: "Further files whose clusters, volumes, configs, secrets and templates belong to this topology."},
		{name: "volumes", shape: table("a mapping of volume names", object("a mapping of a volume's keys", namedVolumeLevel).orNull()),
			example: "volumes: {data: }", def: "none", doc: "Volumes that stations name. They outlive `down`, and go with `down --volumes`."},
		{name: "configs", shape: table("a mapping of names", object("a mapping with file, content or environment", configLevel)),
			example: "configs: {site: {file: ./site.conf}}", def: "none", doc: "Files that stations take with `configs`."},
		{name: "secrets", shape: table("a mapping of names", object("a mapping with file, content or environment", secretLevel)),
			example: "secrets: {key: {environment: A}}", def: "none", doc: "Files that stations take with `secrets`."},
	}
}

// limitLevels are the levels below limitKeys and reuseKeys.
func limitLevels() map[level][]key {
	boolean, number, path := shape{form: formBoolean}, shape{form: formInteger}, text("a path on the machine")
	target := text("an absolute path")
	contents := []key{
		{name: "file", shape: path, example: "file: ./site.conf", def: "see `content`", doc: "The file of the machine that it is."},
		{name: "content", shape: text("a text"), example: "content: hello", def: "see `environment`", doc: "What is in it."},
		{name: "environment", shape: text("a variable"), example: "environment: A", def: "see `file`", doc: "The variable that holds it. One of the three is set."},
	}
	rate := list("a list of path and rate", object("a mapping of path and rate", blkioRateLevel))
	words := oneOf(propagations()...)
	limits := []key{
		{name: "cpus", shape: text("a number of processors"), example: "cpus: 0.5", def: "see `cpus` of a station", doc: "As the station's `cpus`; reserved ones set `cpu_shares`, 1024 for each."},
		{name: "memory", shape: text("a size like 64m"), example: "memory: 64m", def: "see `mem_limit`", doc: "As the station's `mem_limit`, or `mem_reservation` where it is reserved."},
	}
	return map[level][]key{
		extendsLevel: {
			{name: "service", shape: text("a name"), example: "service: base", def: "see `template`", doc: "The template, station or compose service that is extended."},
			{name: "template", shape: text("a name"), example: "template: base", def: "see `service`", doc: "Another word for `service`."},
			{name: "file", shape: path, example: "file: ./base.yaml", def: "this file", doc: "The file where it stands."},
		},
		envFileLevel: {
			{name: "path", required: true, shape: path, example: "path: ./web.env", doc: "The file."},
			{name: "required", shape: boolean, example: "required: false", def: "true", doc: "Whether it is a problem when there is no such file."},
			{name: "format", shape: oneOf("raw"), example: "format: raw", def: "as `.env`", doc: "`raw`: values stand as they are, without quotes and variables."},
		},
		includeLevel: {
			{name: "path", required: true, shape: either("a path or a list of paths", text(""), list("", text(""))), example: "path: []", doc: "The file, or several."},
			{name: "project_directory", shape: path, example: "project_directory: ./web", def: "the file's folder", doc: "Where the file's relative paths start."},
			{name: "env_file", shape: either("a path or a list of paths", text(""), list("", text(""))), example: "env_file: []", def: "none", doc: "Variables for the file, below the environment's."},
		},
		namedVolumeLevel: {
			{name: "name", shape: text("a name"), example: "name: shop-data", def: "`<topology>_<key>`", doc: "What the volume is called on the machine."},
			{name: "external", shape: boolean, example: "external: true", def: "false", doc: "Whether it is made and removed by others."},
			{name: "driver", shape: text("local"), example: "driver: local", def: "`local`", doc: "Always `local`."},
			{name: "labels", shape: either("a mapping of names to values or a list of NAME=value", table("", shape{form: formAny, is: "a value", null: true}), list("", text("NAME=value"))),
				example: "labels: {team: web}", def: "none", doc: "Notes of your own."},
		},
		configLevel: contents,
		secretLevel: contents,
		fileLevel: {
			{name: "source", required: true, shape: text("a name"), example: "source: site", doc: "The config or secret."},
			{name: "target", shape: text("a path"), example: "target: /etc/site.conf", def: "`/NAME`, or `/run/secrets/NAME`", doc: "Where the station sees it."},
			{name: "uid", shape: text("a number"), example: `uid: "33"`, def: "0", doc: "The user whose it is."},
			{name: "gid", shape: text("a number"), example: `gid: "33"`, def: "0", doc: "The group whose it is."},
			{name: "mode", shape: text("permissions like 0440"), example: "mode: 0440", def: "`0444`", doc: "Its permissions, in octal."},
		},
		deviceLevel: {
			{name: "source", required: true, shape: text("a device"), example: "source: /dev/fuse", doc: "The machine's device."},
			{name: "target", shape: target, example: "target: /dev/fuse2", def: "as `source`", doc: "Where the station sees it."},
			{name: "permissions", shape: text("some of r, w and m"), example: "permissions: r", def: "`rwm`", doc: "Read, write, and make a node of it."},
		},
		ulimitLevel: {
			{name: "soft", required: true, shape: number, example: "soft: 1024", doc: "What holds at first."},
			{name: "hard", required: true, shape: number, example: "hard: 4096", doc: "What a process may raise it to."},
		},
		blkioLevel: {
			{name: "weight", shape: number, example: "weight: 300", def: "the kernel's", doc: "From 10 to 1000."},
			{name: "weight_device", shape: list("a list of path and weight", object("a mapping of path and weight", blkioWeightLevel)), example: "weight_device: [{path: /dev/sda, weight: 400}]", def: "none", doc: "The weight for a device."},
			{name: "device_read_bps", shape: rate, example: "device_read_bps: [{path: /dev/sda, rate: 10m}]", def: "no limit", doc: "Bytes read in a second."},
			{name: "device_read_iops", shape: rate, example: "device_read_iops: [{path: /dev/sda, rate: 100}]", def: "no limit", doc: "Reads in a second."},
			{name: "device_write_bps", shape: rate, example: "device_write_bps: [{path: /dev/sda, rate: 10m}]", def: "no limit", doc: "Bytes written in a second."},
			{name: "device_write_iops", shape: rate, example: "device_write_iops: [{path: /dev/sda, rate: 100}]", def: "no limit", doc: "Writes in a second."},
		},
		blkioWeightLevel: {
			{name: "path", required: true, shape: text("a device"), example: "path: /dev/sda", doc: "The device."},
			{name: "weight", required: true, shape: number, example: "weight: 300", doc: "From 10 to 1000."},
		},
		blkioRateLevel: {
			{name: "path", required: true, shape: text("a device"), example: "path: /dev/sda", doc: "The device."},
			{name: "rate", required: true, shape: text("a number, or a size for bytes"), example: "rate: 100", doc: "How much in a second."},
		},
		resourcesLevel: {
			{name: "limits", shape: object("a mapping of cpus, memory and pids", limitsLevel), example: "limits: {cpus: 0.5, memory: 64m}", def: "none", doc: "The most that the station may use."},
			{name: "reservations", shape: object("a mapping of cpus and memory", reservationsLevel), example: "reservations: {memory: 32m}", def: "none", doc: "What it has when others want more."},
		},
		limitsLevel:       append([]key{{name: "pids", shape: number, example: "pids: 100", def: "see `pids_limit`", doc: "As the station's `pids_limit`."}}, limits...),
		reservationsLevel: limits,
		bindLevel: {
			{name: "propagation", shape: words, example: "propagation: rslave", def: "`rprivate`", doc: "Whether mounts below the source reach the station and the other way round (mount_namespaces(7))."},
			{name: "create_host_path", shape: boolean, example: "create_host_path: true", def: "false", doc: "Makes a missing source a folder. Unlike compose, a missing source is an error without it, in the short form too."},
			{name: "selinux", shape: oneOf("z", "Z"), example: "selinux: z", def: "none", doc: "Relabels for several stations (`z`) or this one (`Z`), where SELinux is on."},
		},
		volumeOptionsLevel: {
			{name: "nocopy", shape: boolean, example: "nocopy: true", def: "false", doc: "Does not fill a new volume with what the root has at the target."},
			{name: "subpath", shape: text("a path below the volume"), example: "subpath: main", def: "all of it", doc: "The folder of the volume that is seen. The volume has a name, and the folder in it already: nothing makes it."},
			{name: "selinux", shape: oneOf("z", "Z"), example: "selinux: z", def: "none", doc: "As for a bind."},
		},
		tmpfsLevel: {
			{name: "size", shape: text("a size like 64m"), example: "size: 64m", def: "half of the memory", doc: "The most it may hold."},
			{name: "mode", shape: text("permissions like 1777"), example: "mode: 0755", def: "`01777`", doc: "Its permissions, in octal."},
		},
	}
}
