package topology

// foreignKeys returns keys that users of compose and containerlab know, or that the design
// foresees, and that this version does not take: the key and what to do
// instead. They are refused by name rather than ignored.
func foreignKeys(at level) map[string]string {
	switch at {
	case topologyLevel:
		return map[string]string{
			"services": "platelayer import writes a topology file from a compose file; here stations go below clusters: {NAME: {stations: ...}}",
			"topology": "containerlab's nodes are stations: clusters: {NAME: {stations: ...}}; its links go below links",
			"networks": "a network is a cluster: clusters: {NAME: {subnet: ..., stations: ...}}",
			"version":  "remove it; the format has no version key",
			"models":   "there are no models; remove it",
		}
	case clusterLevel:
		return map[string]string{
			"driver":      "remove it; a cluster is always a bridge of its own",
			"driver_opts": "remove it; for the packet size write mtu",
			"ipam":        "write subnet: 10.20.0.0/24, or subnets with a list",
			"external":    "a cluster belongs to its topology; remove it",
			"internal":    "write egress: none in the backbone",
			"services":    "they are stations here: stations: {NAME: ...}",
		}
	case stationLevel:
		return foreignStationKeys()
	case volumeLevel:
		return map[string]string{
			"consistency": "remove it; it has no effect on Linux",
			"image":       "mount a folder, or a named volume",
			"cluster":     "there are no cluster volumes; mount a folder",
		}
	case bindLevel:
		return map[string]string{"recursive": "remove it; what is mounted below the source is seen too"}
	case volumeOptionsLevel:
		return map[string]string{"labels": "use labels of the volume at the top"}
	case namedVolumeLevel:
		return map[string]string{"driver_opts": "a volume is a folder of the machine: for another place write a bind in the station"}
	case configLevel, secretLevel:
		const own = "write file: ./FILE; nobody else keeps configs and secrets"
		return map[string]string{"external": own, "name": own, "labels": own, "driver": own, "driver_opts": own, "template_driver": own}
	case limitsLevel, reservationsLevel:
		return map[string]string{"devices": "use devices in the station", "generic_resources": "remove it; there is one machine"}
	case healthLevel:
		return map[string]string{
			"command": "write it as test: [CMD, PROGRAM, ...]",
			"cmd":     "write it as test: [CMD, PROGRAM, ...]",
			"http":    "write a test: [CMD, curl, -f, URL]",
		}
	case logOptionsLevel:
		const only = "remove it; only max-size and max-file bound a log"
		return map[string]string{
			"compress": only, "labels": only, "labels-regex": only, "env": only, "env-regex": only, "tag": only,
			"mode": "remove it; a station that writes faster than the disk waits", "max-buffer-size": only,
			"max-files": "write max-file",
		}
	case deployLevel:
		return map[string]string{
			"restart_policy": "use restart in the station: restart: on-failure:5",
			"labels":         "use labels in the station",
			"mode":           "remove it; there is one machine, so replicas says how many",
			"placement":      "remove it; there is one machine",
			"endpoint_mode":  "remove it; the station's name answers with every replica's address",
			"update_config":  "remove it; platelayer up changes only what differs", "rollback_config": "remove it; platelayer up with the older file goes back",
		}
	}
	return nil
}

func foreignStationKeys() map[string]string {
	const (
		build   = "build it with another tool, and name it: image: NAME"
		memory  = "use mem_limit"
		cpu     = "use cpus: 0.5, or cpuset"
		own     = "remove it; every station has its own namespaces"
		label   = "use labels"
		remove  = "remove it; it has no counterpart here"
		network = "use clusters and interfaces: [{cluster: NAME}]"
	)
	return map[string]string{
		"build": build, "pull_refresh_after": "use pull_policy: every_12h", "runtime": remove,
		"networks": network, "network_mode": network, "links": network, "external_links": network,
		"expose":         "remove it; stations reach every port of each other",
		"domainname":     "use domain in the cluster",
		"container_name": "remove it; the name is <topology>.<cluster>.<station>",
		"develop":        remove, "provider": remove, "models": remove, "gpus": remove, "credential_spec": remove,
		"isolation": remove, "storage_opt": remove, "use_api_socket": remove, "attach": remove,
		"driver_opts": remove,
		"post_start":  "make it part of the command", "pre_stop": "let the command handle stop_signal",
		"volumes_from": "name the volumes in each station, or use extends",
		"label_file":   label, "annotations": label,
		"device_cgroup_rules": "name the devices: devices: [/dev/...]",
		"uts":                 own, "userns_mode": own, "cgroup": own, "cgroup_parent": own,
		"cpu_count": cpu, "cpu_percent": cpu, "cpu_period": cpu, "cpu_quota": cpu,
		"cpu_rt_period": cpu, "cpu_rt_runtime": cpu,
		"mem_swappiness": memory, "oom_kill_disable": memory,
	}
}

// replacedBy names our key that a foreign one stands for, so that it is not
// reported as missing too.
func replacedBy(foreign string) string {
	switch foreign {
	case "services", "topology":
		return "clusters"
	case "ipam":
		return "subnet"
	case "command", "cmd", "http": // of a healthcheck
		return "test"
	}
	return foreign
}
