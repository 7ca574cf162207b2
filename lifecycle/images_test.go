package lifecycle

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
	"platelayer/topology"
)

func TestImageConfig(t *testing.T) {
	h := v1.Hash{Algorithm: "sha256", Hex: "12"}
	i := &image.Image{Digest: h, Config: &v1.ConfigFile{Config: v1.Config{
		Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, Env: []string{"A=b"}, User: "web", WorkingDir: "/srv", StopSignal: "SIGINT",
		Labels: map[string]string{"a": "b"}, Volumes: map[string]struct{}{"/data": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}},
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/well", "-q"}, Interval: time.Second, Timeout: 2 * time.Second, StartPeriod: 3 * time.Second, Retries: 4},
	}}}
	want := &topology.ImageConfig{Digest: "sha256:12", Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, Env: []string{"A=b"}, User: "web", WorkingDir: "/srv",
		StopSignal: "SIGINT", Labels: map[string]string{"a": "b"}, Volumes: []string{"/data"}, Exposed: []string{"80/tcp"},
		Healthcheck: &topology.Healthcheck{Test: []string{"/well", "-q"}, Interval: time.Second, Timeout: 2 * time.Second, StartPeriod: 3 * time.Second, Retries: 4}}
	if diff := cmp.Diff(want, imageConfig(i)); diff != "" {
		t.Error(diff)
	}
}

func TestHealthTest(t *testing.T) {
	for name, c := range map[string]struct{ test, shell, want []string }{
		"program":       {test: []string{"CMD", "a", "b"}, want: []string{"a", "b"}},
		"shell":         {test: []string{"CMD-SHELL", "a | b"}, want: []string{"/bin/sh", "-c", "a | b"}},
		"its own shell": {test: []string{"CMD-SHELL", "a"}, shell: []string{"/bin/ash", "-ec"}, want: []string{"/bin/ash", "-ec", "a"}},
		"none":          {test: []string{"NONE"}},
		"no program":    {test: []string{"CMD"}, want: []string{}},
		"no line":       {test: []string{"CMD-SHELL"}},
		"unknown":       {test: []string{"RUN", "a"}},
	} {
		if diff := cmp.Diff(c.want, healthTest(c.test, c.shell)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
