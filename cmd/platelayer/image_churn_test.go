package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// churn has several commands at a time work on one store with images that have
// layers in common.
type churn struct {
	t             *testing.T
	program, root string
	host          string // the registry's
	dir           string // of archives and topology files
}

var churned = []string{"a", "b", "c"}

// TestStoreChurned has commands load, pull, run, remove, prune and verify images
// at once, and kills half of them at any moment. PLATELAYER_CHURN is how long,
// PLATELAYER_SEED what is done.
func TestStoreChurned(t *testing.T) {
	needsRoot(t)
	length, seed := 4*time.Second, uint64(time.Now().UnixNano())
	if text := os.Getenv("PLATELAYER_CHURN"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("PLATELAYER_SEED"); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("PLATELAYER_SEED=%d", seed)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	c := &churn{t: t, program: build(t), root: t.TempDir(), dir: t.TempDir(), host: strings.TrimPrefix(server.URL, "http://")}
	t.Cleanup(func() { downAll(t, c.program, c.root) })
	c.makeImages()
	var wait sync.WaitGroup
	end := time.Now().Add(length)
	var mu sync.Mutex
	done := map[string]int{}
	for worker := range 3 {
		random := rand.New(rand.NewPCG(seed, uint64(worker)))
		name := fmt.Sprintf("churn%d-t%d", worker, os.Getpid())
		wait.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				what := c.step(random, name)
				mu.Lock()
				done[what]++
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	t.Logf("done: %v", done)
	if t.Failed() {
		return
	}
	downAll(t, c.program, c.root)
	for _, args := range [][]string{{"image", "verify"}, {"image", "prune"}, {"image", "verify"}} {
		if out, err := c.run(args...); err != nil {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	c.wantEmpty("ingest", "holds")
	if out, err := c.run("image", "prune", "-a"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	c.wantEmpty("ingest", "holds", "layers", "blobs/sha256")
}

func (c *churn) run(args ...string) (string, error) {
	out, err := exec.Command(c.program, append([]string{"--root", c.root}, args...)...).CombinedOutput()
	return string(out), err
}

func (c *churn) wantEmpty(dirs ...string) {
	c.t.Helper()
	for _, dir := range dirs {
		entries, err := os.ReadDir(filepath.Join(c.root, "lib/images", dir))
		for _, e := range entries {
			c.t.Errorf("left in %s: %s", dir, e.Name())
		}
		if err != nil {
			c.t.Error(err)
		}
	}
}

// step runs one command, and kills it perhaps.
func (c *churn) step(random *rand.Rand, name string) string {
	i := churned[random.IntN(len(churned))]
	local, remote := "shop/"+i+":1", c.host+"/shop/"+i+":1"
	all := []struct {
		args []string
		may  string // fail with; one that isn't killed doesn't otherwise
	}{
		{args: []string{"image", "load", "-q", "-i", filepath.Join(c.dir, i+".tar")}},
		{args: []string{"image", "pull", "-q", "--plain-http", remote}},
		{args: []string{"image", "rm", local}, may: "there is no image|runs? it"},
		{args: []string{"image", "rm", remote}, may: "there is no image|runs? it"},
		{args: []string{"image", "prune"}},
		{args: []string{"image", "prune", "-a"}},
		{args: []string{"image", "verify", "--repair"}},
		{args: []string{"image", "save", local, "-o", filepath.Join(c.dir, name+".saved")}, may: "there is no image"},
		{args: []string{"up", "-n", name, filepath.Join(c.dir, i+".yaml")}, may: "there is no image|is at work on"},
		{args: []string{"down", "-n", name}, may: "there is no topology|is at work on"},
	}
	step := all[random.IntN(len(all))]
	what := strings.Join(step.args[:min(2, len(step.args))], " ")
	if step.args[0] != "image" {
		what = step.args[0]
	}
	cmd := exec.Command(c.program, append([]string{"--root", c.root}, step.args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		c.t.Error(err)
		return what
	}
	if random.IntN(2) == 0 {
		time.Sleep(time.Duration(random.Int64N(int64(60 * time.Millisecond))))
		cmd.Process.Kill()
		what += ", killed"
	} else {
		const patience = 2 * time.Minute // one that waits for ever
		timer := time.AfterFunc(patience, func() {
			c.t.Errorf("%v takes more than %v", step.args, patience)
			cmd.Process.Kill()
		})
		defer timer.Stop()
	}
	err := cmd.Wait()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() < 0 {
		return what
	}
	if err != nil && (step.may == "" || !regexp.MustCompile(step.may).MatchString(out.String())) {
		c.t.Errorf("%v: %v: %s", step.args, err, &out)
	}
	return what
}

// makeImages makes archives of images, some of whose layers are the same, and a
// topology file for each, and pushes them.
func (c *churn) makeImages() {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		c.t.Fatal(err)
	}
	base := map[string]string{"bin/busybox": string(busybox), "srv/gone": "gone"}
	layers := map[string][]map[string]string{
		"a": {base, c.noise("one")},
		"b": {base, c.noise("one"), c.noise("two"), {"srv/.wh.gone": ""}},
		"c": {base, c.noise("three")},
	}
	for _, i := range churned {
		var sums bytes.Buffer
		for _, l := range layers[i] {
			for name, content := range l {
				if strings.HasPrefix(name, "srv/one") || strings.HasPrefix(name, "srv/t") {
					fmt.Fprintf(&sums, "%x  /%s\n", sha256.Sum256([]byte(content)), name)
				}
			}
		}
		archive := filepath.Join(c.dir, i+".tar")
		c.writeArchive(archive, "shop/"+i+":1", append(layers[i], map[string]string{"sums": sums.String()}))
		text := fmt.Sprintf("backbone: {egress: none}\ndefaults: {stop_grace_period: 0s}\nclusters: {lan: {stations: {s: {image: \"shop/%s:1\", pull_policy: never, startup: /bin/busybox sha256sum -c /sums, command: [/bin/busybox, sleep, \"1000\"]}}}}\n", i)
		if err := os.WriteFile(filepath.Join(c.dir, i+".yaml"), []byte(text), 0o600); err != nil {
			c.t.Fatal(err)
		}
		for _, args := range [][]string{{"image", "load", "-i", archive}, {"image", "push", "-q", "--plain-http", "shop/" + i + ":1", c.host + "/shop/" + i + ":1"}} {
			if out, err := c.run(args...); err != nil {
				c.t.Fatalf("%v: %v: %s", args, err, out)
			}
		}
	}
}

func (c *churn) noise(name string) map[string]string {
	random := rand.NewChaCha8(sha256.Sum256([]byte(name)))
	files := map[string]string{}
	for n := range 100 {
		content := make([]byte, 8<<10)
		random.Read(content)
		files[fmt.Sprintf("srv/%s/%d", name, n)] = string(content)
	}
	return files
}

// writeArchive writes what `docker save` writes.
func (c *churn) writeArchive(path, name string, layers []map[string]string) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	put := func(w *tar.Writer, name, content string) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}
		if err := w.WriteHeader(h); err != nil {
			c.t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			c.t.Fatal(err)
		}
	}
	var diffs, names []string
	for n, files := range layers {
		var layer bytes.Buffer
		l := tar.NewWriter(&layer)
		for _, name := range slices.Sorted(maps.Keys(files)) {
			put(l, name, files[name])
		}
		l.Close()
		diffs = append(diffs, fmt.Sprintf(`"sha256:%x"`, sha256.Sum256(layer.Bytes())))
		names = append(names, fmt.Sprintf(`"%d.tar"`, n))
		put(w, fmt.Sprintf("%d.tar", n), layer.String())
	}
	put(w, "config.json", fmt.Sprintf(`{"architecture":%q,"os":"linux","rootfs":{"type":"layers","diff_ids":[%s]}}`, runtime.GOARCH, strings.Join(diffs, ",")))
	put(w, "manifest.json", fmt.Sprintf(`[{"Config":"config.json","RepoTags":[%q],"Layers":[%s]}]`, name, strings.Join(names, ",")))
	w.Close()
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		c.t.Fatal(err)
	}
}
