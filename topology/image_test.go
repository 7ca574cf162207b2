package topology

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// loaded gives the one station of a file.
func loaded(t *testing.T, keys string) *Station {
	t.Helper()
	top, err := Load("f.yaml", []byte("clusters: {lan: {stations: {a: {"+keys+"}}}}"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &top.Clusters[0].Stations[0]
}

// What an image says holds unless the station says otherwise, as compose has it.
func TestWithImage(t *testing.T) {
	full := ImageConfig{
		Digest: "sha256:1", Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, Env: []string{"PATH=/bin", "A=image", "BARE", "=x"}, User: "www",
		Exposed:    []string{"80/tcp", "53/udp"},
		WorkingDir: "/srv", StopSignal: "3", Volumes: []string{"/data/", "/cache"}, Labels: map[string]string{"a": "image", "b": "image"},
		Healthcheck: &Healthcheck{Test: []string{"/well"}, Interval: time.Minute},
	}
	for _, c := range []struct {
		name, keys string
		change     func(want *Station)
	}{
		{"nothing", "", func(*Station) {}},
		{"command", "command: [other]", func(s *Station) { s.Command = []string{"other"} }},
		{"nulls", "entrypoint: , command: null", func(*Station) {}},
		{"entrypoint", "entrypoint: [/mine]", func(s *Station) { s.Entrypoint, s.Command = []string{"/mine"}, nil }},
		{"no entrypoint", "entrypoint: [], command: [/mine]", func(s *Station) { s.Entrypoint, s.Command = []string{}, []string{"/mine"} }},
		{"environment", "environment: {A: station, B: x}", func(s *Station) { s.Environment = []string{"A=station", "B=x", "PATH=/bin"} }},
		{"environment without a value", "environment: [A, C]", func(s *Station) { s.Environment = []string{"PATH=/bin"} }},
		{"user", "user: root, working_dir: /", func(s *Station) { s.User, s.WorkingDir = "root", "/" }},
		{"stop signal", "stop_signal: SIGINT", func(s *Station) { s.StopSignal = "SIGINT" }},
		{"healthcheck off", "healthcheck: {disable: true}", func(s *Station) { s.Healthcheck = nil }},
		{"NONE", "healthcheck: {test: [NONE]}", func(s *Station) { s.Healthcheck = nil }},
		{"healthcheck's time", "healthcheck: {interval: 2s, retries: 9}", func(s *Station) { s.Healthcheck.Interval, s.Healthcheck.Retries = 2*time.Second, 9 }},
		{"healthcheck's test", "healthcheck: {test: [CMD, /mine]}", func(s *Station) { s.Healthcheck.Test = []string{"/mine"} }},
		{"labels", "labels: {a: station}", func(s *Station) { s.Labels = map[string]string{"a": "station", "b": "image"} }},
		{"volume", `volumes: ["/srv/data:/data"]`, func(s *Station) {
			s.Volumes = []Volume{{Source: "/srv/data", Target: "/data"}, {Target: "/cache"}}
		}},
		{"tmpfs", "tmpfs: /data", func(s *Station) { s.Volumes, s.Tmpfs = []Volume{{Target: "/cache"}}, []Tmpfs{{Target: "/data"}} }},
	} {
		keys := "image: x"
		if c.keys != "" {
			keys += ", " + c.keys
		}
		want := loaded(t, "image: x")
		want.Digest, want.Entrypoint, want.Command, want.Environment = "sha256:1", []string{"/entry"}, []string{"serve"}, []string{"A=image", "PATH=/bin"}
		want.User, want.WorkingDir, want.StopSignal, want.Labels = "www", "/srv", "SIGQUIT", map[string]string{"a": "image", "b": "image"}
		want.Volumes, want.Exposed = []Volume{{Target: "/cache"}, {Target: "/data"}}, []string{"53/udp", "80/tcp"}
		want.Healthcheck = &Healthcheck{Test: []string{"/well"}, Interval: time.Minute, Timeout: defaultTimeout, StartInterval: defaultStartInterval, Retries: defaultRetries}
		c.change(want)
		got := loaded(t, keys)
		if err := got.WithImage(&full); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// What Docker takes though the OCI specification knows better.
func TestLooseImage(t *testing.T) {
	s := loaded(t, "image: x")
	err := s.WithImage(&ImageConfig{Entrypoint: []string{""}, Cmd: []string{"x"}, WorkingDir: "/no/../srv/", Volumes: []string{"data", "/x/../cache"}})
	if err != nil || len(s.Entrypoint) > 0 || s.WorkingDir != "/srv" || !cmp.Equal(s.Volumes, []Volume{{Target: "/cache"}, {Target: "/data"}}) {
		t.Errorf("got %v, entrypoint %q, working folder %q, volumes %v", err, s.Entrypoint, s.WorkingDir, s.Volumes)
	}
	if s := loaded(t, `image: x, working_dir: /srv/, entrypoint: [""], command: [y], volumes: ["/srv:/data/"]`); s.WithImage(&ImageConfig{Entrypoint: []string{"x"}, Volumes: []string{"/data"}}) != nil ||
		len(s.Entrypoint) > 0 || s.WorkingDir != "/srv" || len(s.Volumes) != 1 {
		t.Errorf("of its own: entrypoint %q, working folder %q, volumes %v", s.Entrypoint, s.WorkingDir, s.Volumes)
	}
}

func TestUnfitImage(t *testing.T) {
	for name, c := range map[string]ImageConfig{
		"no command":  {},
		"stop signal": {Cmd: []string{"x"}, StopSignal: "SIGNONE"},
		"volume":      {Cmd: []string{"x"}, Volumes: []string{"/data/.."}},
		"volume /":    {Cmd: []string{"x"}, Volumes: []string{"/"}},
		"negative":    {Cmd: []string{"x"}, Healthcheck: &Healthcheck{Test: []string{"x"}, Interval: -1}},
		"restless":    {Cmd: []string{"x"}, Healthcheck: &Healthcheck{Test: []string{"x"}, Timeout: 1}},
		"tireless":    {Cmd: []string{"x"}, Healthcheck: &Healthcheck{Test: []string{"x"}, Retries: -1}},
		"volumes":     {Cmd: []string{"x"}, Volumes: strings.Split(strings.Repeat("/a ", 257), " ")[:257]},
		"zero byte":   {Cmd: []string{"x"}, Env: []string{"A=b\x00c"}},
	} {
		var unfit *UnfitImage
		if err := loaded(t, "image: x").WithImage(&c); !errors.As(err, &unfit) || unfit.Hint == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Waiting for the health of a station whose image has no check.
func TestImageHealth(t *testing.T) {
	const deps = "depends_on: {a: {condition: service_healthy}}"
	for _, c := range []struct {
		keys, problem string
		image         *Healthcheck
	}{
		{keys: "image: x", image: &Healthcheck{Test: []string{"/well"}}},
		{keys: "image: x", problem: "it has no healthcheck, and station \"lan/b\" waits for its health"},
		{keys: "image: x, healthcheck: {test: [CMD, /well]}"},
	} {
		top, err := Load("f.yaml", []byte("clusters: {lan: {stations: {a: {"+c.keys+"}, b: {"+deps+"}}}}"), Options{})
		if err != nil {
			t.Errorf("%s: %v", c.keys, err)
			continue
		}
		a, b := &top.Clusters[0].Stations[0], &top.Clusters[0].Stations[1]
		if err := a.WithImage(&ImageConfig{Digest: "sha256:1", Cmd: []string{"x"}, Healthcheck: c.image}); err != nil {
			t.Fatal(err)
		}
		err = CheckHealth([]*Station{a, b})
		if c.problem == "" && err != nil || c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)) {
			t.Errorf("%s: %v", c.keys, err)
		}
	}
	for _, keys := range []string{"image: x, healthcheck: {disable: true}", "image: x, healthcheck: {test: [NONE]}", "working_dir: /"} {
		if _, err := Load("f.yaml", []byte("clusters: {lan: {stations: {a: {"+keys+"}, b: {"+deps+"}}}}"), Options{}); err == nil {
			t.Errorf("%s: no problem", keys)
		}
	}
}

func TestImageNames(t *testing.T) {
	for text, ok := range map[string]bool{
		"nginx": true, "nginx:1.25": true, "shop/lb": true, "registry.example:5000/shop/lb:v1": true, "localhost/x": true, "a@sha256:" + zeros64: true,
		"a:b@sha256:" + zeros64: true, "[fd00::1]:5000/x": true, "A": false, "nginx:": false, "": false, "a b": false, "/a": false, "a/": false, "a@sha256:12": false,
		"-a": false, "a//b": false, "https://a/b": false, "a:b:c": false,
	} {
		_, err := Load("f.yaml", []byte("clusters: {lan: {stations: {a: {image: \""+text+"\"}}}}"), Options{})
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

const zeros64 = "0000000000000000000000000000000000000000000000000000000000000000"

func TestPullAge(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"always": 0, "daily": 24 * time.Hour, "weekly": 168 * time.Hour, "every_12h": 12 * time.Hour, "every_1w2d3h": (168 + 48 + 3) * time.Hour, "every_90m": 90 * time.Minute,
		"every_x": -1, "every_-1h": -1, "every_d": -1, "every_1xd": -1, "every_3d2w": -1,
	} {
		got, err := PullAge(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}
