package topology

import (
	"strings"
	"testing"
)

const placed = `name: x
volumes: {data: {external: true}}
templates:
  base: {user: joe, devices: [/dev/null]}
secrets:
  key: {content: deep}
clusters:
  lan:
    stations:
      a:
        extends: base
        cpus: 0.5
        devices: ["/dev/zero:/dev/nought:r", {source: /dev/fuse}]
        volumes: [data:/v, {type: bind, source: ./x, target: /b}]
        secrets: [key, {source: key, target: other}]
        ulimits: {core: 1, nofile: {soft: 8, hard: 9}}
        blkio_config: {device_read_bps: [{path: /dev/vda, rate: 1m}]}
      b: {replicas: 2, deploy: {resources: {limits: {memory: 64m}}}}
`

// TestPlace finds where things stand, also in templates and below deploy.
func TestPlace(t *testing.T) {
	top := mustLoad(t, placed)
	for _, c := range []struct{ station, key, value, want string }{
		{"lan/a", "", "", "f.yaml:10:7"},
		{"lan/a", "user", "joe", "f.yaml:4:16"},
		{"lan/a", "cpus", "", "f.yaml:12:15"},
		{"lan/a", "devices", "/dev/null", "f.yaml:4:31"},
		{"lan/a", "devices", "/dev/nought", "f.yaml:13:19"},
		{"lan/a", "devices", "/dev/fuse", "f.yaml:13:46"},
		{"lan/a", "volumes", "/v", "f.yaml:14:19"},
		{"lan/a", "volumes", "/b", "f.yaml:14:28"},
		{"lan/a", "secrets", "/run/secrets/key", "f.yaml:15:19"},
		{"lan/a", "secrets", "/run/secrets/other", "f.yaml:15:24"},
		{"lan/a", "ulimits", "nofile", "f.yaml:16:36"},
		{"lan/a", "blkio_config", "/dev/vda", "f.yaml:17:42"},
		{"lan/a", "pids_limit", "", "f.yaml:10:7"},
		{"lan/b-2", "mem_limit", "", "f.yaml:18:62"},
		{"lan/none", "cpus", "", "f.yaml:1:1"},
	} {
		if got := top.Place(c.station, c.key, c.value); got != c.want {
			t.Errorf("%s %s %s: %s, want %s", c.station, c.key, c.value, got, c.want)
		}
	}
	if got := top.PlaceOf("volumes", "data"); got != "f.yaml:2:11" {
		t.Errorf("the volume: %s", got)
	}
	if got := new(Topology).Place("lan/a", "cpus", ""); got != "" {
		t.Errorf("nowhere: %s", got)
	}
}

// TestWithoutSecrets: the copy has none, the original keeps its own.
func TestWithoutSecrets(t *testing.T) {
	top := mustLoad(t, placed)
	text, err := top.WithoutSecrets().YAML()
	if err != nil || strings.Contains(string(text), "deep") || !strings.Contains(string(text), hidden) {
		t.Errorf("%v\n%s", err, text)
	}
	if text, err = top.YAML(); err != nil || !strings.Contains(string(text), "deep") {
		t.Errorf("the original: %v\n%s", err, text)
	}
}
