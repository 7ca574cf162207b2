package topology

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func stationOf(t *testing.T, top *Topology, id string) *Station {
	t.Helper()
	s, err := top.Lookup(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestMerge holds compose's merge rules against a station with two templates
// and defaults below it.
func TestMerge(t *testing.T) {
	top := mustLoad(t, `
volumes: {data: }
defaults: {restart: on-failure, cap_drop: [MKNOD], environment: {FROM: defaults, D: d}}
templates:
  base:
    command: [base, words]
    environment: [FROM=base, B=b]
    volumes: [./a:/a, ./b:/b]
    cap_add: [NET_ADMIN]
    healthcheck: {test: [CMD, x, y], interval: 1s}
    sysctls: {net.core.somaxconn: 1}
    depends_on: [db]
    mem_limit: 64m
    tty: true
  more: {extends: base, environment: {M: m}, ulimits: {core: 0}}
clusters:
  lan:
    stations:
      db:
      a:
        extends: more
        command: own
        environment: {FROM: own}
        volumes: ["data:/b", ./c:/c]
        cap_add: [cap_net_admin, SYS_PTRACE]
        healthcheck: {test: [CMD, z]}
        sysctls: [net.core.somaxconn=2]
        depends_on: {cache: {condition: service_started}}
        mem_limit: !reset null
        cap_drop: !override [ALL]
      cache: {extends: {service: web, file: compose.yml}}
`)
	sameAfterYAML(t, top)
	a := stationOf(t, top, "a")
	for what, got := range map[string][]string{
		"own":                  a.Command,
		"FROM=own,B=b,M=m,D=d": nil,
		"NET_ADMIN,SYS_PTRACE": a.CapAdd,
		"ALL":                  a.CapDrop,
		"z":                    a.Healthcheck.Test,
	} {
		want := strings.Split(what, ",")
		if got == nil {
			got = a.Environment
			slices.Sort(want)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if len(a.Volumes) != 3 || a.Volumes[1].Name != "data" || a.Volumes[2].Source != "/srv/My Shop/c" {
		t.Errorf("volumes %+v", a.Volumes)
	}
	if a.MemLimit != 0 || !a.TTY || a.Restart.Policy != RestartOnFailure || a.Sysctls[0].Value != "2" || len(a.Ulimits) != 1 ||
		a.Healthcheck.Interval.Seconds() != 1 || len(a.DependsOn) != 2 {
		t.Errorf("%+v", a)
	}
	if c := stationOf(t, top, "cache"); !c.Init || !slices.Contains(c.Environment, "B=2") || c.Restart.Policy != RestartOnFailure {
		t.Errorf("%+v", c)
	}
	if db := stationOf(t, top, "db"); !slices.Contains(db.Environment, "D=d") {
		t.Errorf("%+v", db)
	}
}

func TestInclude(t *testing.T) {
	top := mustLoad(t, `
include: [sub/part.yaml]
defaults: {stdin_open: true}
clusters: {lan: {stations: {a: {extends: base, env_file: web.env, environment: {A: own}}}}}
`)
	sameAfterYAML(t, top)
	a, p := stationOf(t, top, "a"), stationOf(t, top, "p")
	if want := []string{"A=own", "B=from file, hello", "GREETING=hello"}; !slices.Equal(a.Environment, want) {
		t.Errorf("environment %q", a.Environment)
	}
	if !a.TTY || !a.StdinOpen || a.Init || a.Volumes[0].Source != "/srv/My Shop/sub/x" {
		t.Errorf("%+v", a)
	}
	if !p.TTY || p.StdinOpen || !p.Init || p.Volumes[1].Name != "data" || len(top.Volumes) != 1 {
		t.Errorf("%+v", p)
	}
	for file, want := range map[string][]string{
		"include: [bad.yaml]":      {"bad.yaml:2:34: writable cannot be", "bad.yaml:3:1: unknown key \"nonsense\""},
		"include: [loop.yaml]":     {"loop.yaml:1:11: include of \"f.yaml\" leads back to itself"},
		"include: [none.yaml]":     {"f.yaml:1:11: cannot read"},
		"include: [{path: /none}]": {"f.yaml:1:18: cannot read"},
		"include: [sub/part.yaml]\nvolumes: {data: {external: true}}": {"\"data\" is set in two files"},
	} {
		_, err := Load("f.yaml", []byte(file+"\nclusters: {lan: {stations: {a: }}}"), testOptions())
		var problems Problems
		if !errors.As(err, &problems) {
			t.Errorf("%s: accepted", file)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: no %q in\n%v", file, w, err)
			}
		}
	}
}

// TestFull: every new key in its forms, and printed and read again the same.
func TestFull(t *testing.T) {
	top := mustLoad(t, `
volumes: {data: {name: my-data, labels: [a=b]}, ext: {external: true}}
configs: {site: {content: "x$$y"}, other: {file: ./o}}
secrets: {key: {environment: A}}
clusters:
  lan:
    stations:
      a:
        cpus: 1.5
        cpu_shares: 512
        cpuset: 0-3,7
        mem_limit: 64m
        memswap_limit: 128m
        mem_reservation: 32m
        shm_size: 1m
        oom_score_adj: -5
        ulimits: {nproc: 10, nofile: {soft: 8, hard: 9}, core: -1}
        blkio_config: {weight: 10, weight_device: [{path: /dev/sda, weight: 20}], device_read_bps: [{path: /dev/sda, rate: 1m}], device_write_iops: [{path: /dev/sda, rate: 7}]}
        group_add: [mail, 10]
        tmpfs: ["/t:size=64m,mode=755,uid=1,noexec", /u]
        volumes: [/anon, "data:/data:ro,nocopy", "./x:/x:rslave,Z", {type: volume, source: ext, target: /e, volume: {subpath: a/b}}, {type: tmpfs, target: /m, tmpfs: {size: 4k, mode: 0700}}]
        configs: [site, {source: other, target: /etc/o, uid: "3", gid: "4", mode: 0640}]
        secrets: [key]
        devices: [/dev/fuse, "/dev/null:/dev/x:r", "/dev/zero:rw"]
        cap_add: [CAP_net_admin]
        cap_drop: [all]
        security_opt: [seccomp=./p.json, "no-new-privileges:false", apparmor=unconfined, "label=type:x_t"]
        sysctls: [net.ipv4.ip_forward=1, "kernel.sem=1 2 3 4"]
        pid: service:b
        ipc: station:lan/b
      b: {deploy: {resources: {limits: {cpus: "0.5", memory: 50m, pids: 9}, reservations: {memory: 20m, cpus: 0.25}}}, ipc: shareable}
`)
	sameAfterYAML(t, top)
	a, b := stationOf(t, top, "a"), stationOf(t, top, "b")
	if b.Resources.CPUs != 0.5 || b.MemLimit != 50<<20 || b.PidsLimit != 9 || b.Resources.MemReservation != 20<<20 || b.Resources.CPUShares != 256 {
		t.Errorf("%+v", b)
	}
	if a.PID != "lan/b" || a.IPC != "lan/b" || len(a.DependsOn) != 1 || !a.Security.NewPrivileges || a.Security.Seccomp != "/srv/My Shop/p.json" {
		t.Errorf("%+v", a)
	}
	if len(a.Files) != 3 || a.Files[0] != (File{Content: "x$y", Target: "/site", Mode: 0o444}) ||
		a.Files[2] != (File{Content: "a", Variable: "A", Secret: true, Target: "/run/secrets/key", Mode: 0o444}) || a.Files[1].Mode != 0o640 {
		t.Errorf("files %+v", a.Files)
	}
	if len(a.Tmpfs) != 3 || a.Tmpfs[1] != (Tmpfs{Target: "/t", Size: 64 << 20, Mode: 0o755, UID: 1, Options: "noexec"}) {
		t.Errorf("tmpfs %+v", a.Tmpfs)
	}
	if len(a.Volumes) != 4 || a.Volumes[0] != (Volume{Target: "/anon"}) || a.Volumes[2].Propagation != "rslave" || a.Devices[2].Permissions != "rw" {
		t.Errorf("%+v %+v", a.Volumes, a.Devices)
	}
}
