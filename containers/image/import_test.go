package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestImport(t *testing.T) {
	ctx := context.Background()
	layer := makeTar(t, folder("./", 0o755), folder("./bin", 0o755), file("./bin/sh", "x"),
		entry{tar.Header{Name: "./dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""})
	changes := []string{`CMD ["/bin/sh", "-l"]`, "ENTRYPOINT exec a b", "ENV A=1 B='two words'", "ENV A 3", "EXPOSE 80 53/udp 8000-8010", "LABEL a=b c=\"d e\"",
		"USER 1:2", "WORKDIR srv", "workdir www", "VOLUME /data", `STOPSIGNAL SIGINT`, "HEALTHCHECK --interval=5s --retries=2 CMD [\"/ok\"]"}
	o := ImportOptions{Name: "docker.io/library/i:1", Changes: changes, Created: time.Unix(1_700_000_000, 0)}
	var digests []v1.Hash
	for _, r := range []*os.File{given(t, layer), given(t, pack(t, layer, gzipped)), piped(t, layer), piped(t, pack(t, layer, zstandard))} {
		s := newStore(t)
		i, err := s.Import(ctx, r, o)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, i.Digest)
		if b, err := os.ReadFile(filepath.Join(s.Tree(&i.Layers[0]), "bin/sh")); err != nil || string(b) != "x" {
			t.Errorf("got %q, %v", b, err)
		}
		if _, err := os.Lstat(filepath.Join(s.Tree(&i.Layers[0]), "dev/null")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("dev/null was made: %v", err)
		}
		got := asJSON(t, i.Config.Config)
		want := `{"Cmd":["/bin/sh","-l"],"Healthcheck":{"Test":["CMD","/ok"],"Interval":5000000000,"Retries":2},` +
			`"Entrypoint":["/bin/sh","-c","exec a b"],"Env":["B=two words","A=3"],"Labels":{"a":"b","c":"d e"},"User":"1:2",` +
			`"Volumes":{"/data":{}},"WorkingDir":"/srv/www","ExposedPorts":{"53/udp":{},"80/tcp":{},"8000-8010/tcp":{}},"StopSignal":"SIGINT"}`
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	for _, d := range digests[1:] {
		if d != digests[0] {
			t.Errorf("the same tar gave %v", digests)
			break
		}
	}
	for _, change := range []string{"RUN x", "CMD", "ENV A", "ENV A='", "CMD [1", "HEALTHCHECK x", "HEALTHCHECK --every=1s CMD x", "HEALTHCHECK --retries=2x CMD x",
		"EXPOSE 99999", "EXPOSE 80/http", "EXPOSE 90-80", "EXPOSE x", "STOPSIGNAL SIGFOO", "STOPSIGNAL 65", "VOLUME data", `VOLUME ["/"]`} {
		wrong := new(ChangeError)
		if _, err := newStore(t).Import(ctx, given(t, layer), ImportOptions{Changes: []string{change}}); !errors.As(err, &wrong) {
			t.Errorf("%s: got %v", change, err)
		}
	}
}

// What is no tar is refused before it fills the store.
func TestImportNoTar(t *testing.T) {
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("not a tar\n"), 1000)
	for what, r := range map[string]*os.File{"endless": zero, "text": given(t, text), "piped text": piped(t, text), "zeros": given(t, make([]byte, 2<<20))} {
		s := newStore(t)
		s.limits.Bytes = 16 << 20
		if _, err := s.Import(context.Background(), r, ImportOptions{Name: "docker.io/library/i:1"}); err == nil || !strings.Contains(err.Error(), "it is not a tar archive") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if zero, err = os.Open("/dev/zero"); err != nil {
		t.Fatal(err)
	}
	if _, err := newStore(t).Load(context.Background(), zero, LoadOptions{}); err == nil || !strings.Contains(err.Error(), "after its end") {
		t.Errorf("an archive without an end: %v", err)
	}
	// Ends of an archive alone are an empty one.
	if _, err := newStore(t).Import(context.Background(), piped(t, make([]byte, 10<<10)), ImportOptions{Name: "docker.io/library/i:1"}); err != nil {
		t.Error(err)
	}
}
