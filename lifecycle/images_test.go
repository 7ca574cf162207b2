package lifecycle

import (
	"archive/tar"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
	"platelayer/topology"
)

func TestImageConfig(t *testing.T) {
	h := v1.Hash{Algorithm: "sha256", Hex: "12"}
	i := &image.Image{Digest: h, StartInterval: 5 * time.Second, Config: &v1.ConfigFile{Config: v1.Config{
		Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, Env: []string{"A=b"}, User: "web", WorkingDir: "/srv", StopSignal: "SIGINT",
		Labels: map[string]string{"a": "b"}, Volumes: map[string]struct{}{"/data": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}},
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/well", "-q"}, Interval: time.Second, Timeout: 2 * time.Second, StartPeriod: 3 * time.Second, Retries: 4},
	}}}
	want := &topology.ImageConfig{Digest: "sha256:12", Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, Env: []string{"A=b"}, User: "web", WorkingDir: "/srv",
		StopSignal: "SIGINT", Labels: map[string]string{"a": "b"}, Volumes: []string{"/data"}, Exposed: []string{"80/tcp"},
		Healthcheck: &topology.Healthcheck{Test: []string{"/well", "-q"}, Interval: time.Second, Timeout: 2 * time.Second, StartPeriod: 3 * time.Second, StartInterval: 5 * time.Second, Retries: 4}}
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

// A digest of two indexes is of the one that the station's image means.
func TestIndexBroughtUpWith(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it gives files owners")
	}
	store, err := image.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	content := tarOf(tar.Header{Name: "a"})
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	i, err := store.Import(ctx, f, image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		i.Index, _, _ = v1.SHA256(strings.NewReader(name))
		if err := store.Name(ctx, "docker.io/library/"+name+":latest", i); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"one", "two"} {
		want, _, _ := v1.SHA256(strings.NewReader(name))
		got, err := broughtUpWith(store, wantedImage{name: name, digest: i.Digest.String()})
		if err != nil || got.Index != want {
			t.Errorf("%s: of %s, %v", name, got.Index, err)
		}
	}
	if got, err := broughtUpWith(store, wantedImage{name: "three", digest: i.Digest.String()}); err != nil || got.Digest != i.Digest {
		t.Errorf("without its name: %v", err)
	}
}

// A file is refused with a platform that would be refused when its image is asked for.
func TestPlatformsOfFiles(t *testing.T) {
	for _, text := range []string{"linux/amd64", "linux/amd64/v3", "linux/x86_64", "linux/arm/v7", "linux/arm64/v8", "linux/riscv64", "linux/s390x", "linux/ppc64le", "linux/loong64",
		"linux/386", "linux/i386", "linux/mips64le", "linux/foo", "windows/amd64", "linux/", "linux/arm/v7/x", "freebsd/amd64"} {
		_, err := topology.Load("f.yaml", []byte("name: t\nclusters: {c: {stations: {a: {image: a, platform: "+text+"}}}}"), topology.Options{})
		if _, wrong := image.ParsePlatform(text); (err == nil) != (wrong == nil) {
			t.Errorf("%s: %v, and %v", text, err, wrong)
		}
	}
}
