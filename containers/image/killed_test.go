package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestKilledLoad kills a process that loads and unpacks an image, 30 times at
// random points, each time beside a second one that does the same and lives.
// Nothing of what is there may ever be half.
func TestKilledLoad(t *testing.T) {
	if dir := os.Getenv("PLATELAYER_TEST_STORE"); dir != "" {
		loadFor(t, dir, os.Getenv("PLATELAYER_TEST_ARCHIVE"))
		return
	}
	ctx := context.Background()
	archive := filepath.Join(t.TempDir(), "archive.tar")
	b := layoutOf(t, busyImage(t), map[string]string{nameAnnotation: "busy:1"}).tar(t)
	if err := os.WriteFile(archive, b, 0o600); err != nil {
		t.Fatal(err)
	}
	right := newStore(t)
	loaded, err := right.Load(ctx, opened(t, archive), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i := loaded[0].Image

	dir := filepath.Join(t.TempDir(), "first")
	begun := time.Now()
	if text, err := loader(dir, archive).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	whole := time.Since(begun)

	killed := 0
	for round := 0; killed < 30; round++ {
		if round == 150 {
			t.Fatalf("only %d were killed before their end", killed)
		}
		dir := filepath.Join(t.TempDir(), fmt.Sprint("store", round))
		var other *exec.Cmd
		var said bytes.Buffer
		c := loader(dir, archive)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if round%2 == 1 {
			other = loader(dir, archive)
			other.Stdout, other.Stderr = &said, &said
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(rand.N(max(whole, time.Millisecond)))
		c.Process.Kill()
		err := c.Wait()
		if exit := new(exec.ExitError); errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
			killed++
			whole += whole / 8
		} else { // it took less time than was thought
			whole -= whole / 4
		}
		if other != nil {
			if err := other.Wait(); err != nil {
				t.Fatalf("round %d: the one that lives: %v\n%s", round, err, said.String())
			}
		}
		s, err := OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		same(t, right, s, i)
		if all, err := s.List(); err != nil || other != nil && len(all) != 1 {
			t.Errorf("round %d: its images are %v, %v", round, all, err)
		}
		// The next goes on with what there is.
		again, err := s.Load(ctx, opened(t, archive), LoadOptions{})
		if err != nil || again[0].Digest != i.Digest {
			t.Fatalf("round %d: loading again: %v, %v", round, again, err)
		}
		same(t, right, s, i)
		if v, err := s.Verify(ctx, nil, VerifyOptions{}); err != nil || len(v.Damage) > 0 || v.Layers != len(i.Layers) {
			t.Errorf("round %d: %+v, %v", round, v, err)
		}
		if _, err := s.Prune(ctx, func(Named) bool { return false }); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(s.path("ingest")); err != nil || len(left) > 0 {
			t.Errorf("round %d: left in ingest: %v, %v", round, left, err)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

func loader(dir, archive string) *exec.Cmd {
	c := exec.Command(os.Args[0], "-test.run=^TestKilledLoad$")
	c.Env = append(os.Environ(), "PLATELAYER_TEST_STORE="+dir, "PLATELAYER_TEST_ARCHIVE="+archive)
	return c
}

func loadFor(t *testing.T, dir, archive string) {
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(context.Background(), opened(t, archive), LoadOptions{}); err != nil {
		t.Fatal(err)
	}
}

// same compares each layer that is there with the right one, and each blob.
func same(t *testing.T, right, s *Store, i *Image) {
	t.Helper()
	ctx := context.Background()
	for n := range i.Layers {
		l := &i.Layers[n]
		if _, err := os.Lstat(s.path("layers", l.Key())); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if !s.Unpacked(l) {
			t.Errorf("layer %d is there and doesn't say so", n)
		}
		if err := compareTrees(ctx, right.Tree(l), s.Tree(l), func(name, how string) { t.Errorf("layer %d: %s %s", n, name, how) }); err != nil {
			t.Error(err)
		}
	}
	for h := range map[v1.Hash]bool{i.Digest: true, i.Manifest.Config.Digest: true, i.Layers[0].Digest: true, i.Layers[1].Digest: true, i.Layers[2].Digest: true} {
		missing := new(MissingError)
		if err := s.checkBlob(ctx, h, nil); err != nil && !errors.As(err, &missing) {
			t.Error(err)
		}
	}
}

// busyImage takes a while to unpack: many files, links, whiteouts.
func busyImage(t *testing.T) *made {
	var layers [][]byte
	for l := range 3 {
		var all []entry
		for d := range 8 {
			dir := fmt.Sprintf("d%d", d)
			all = append(all, folder(dir, 0o755))
			if l == 2 {
				all = append(all, file(dir+"/.wh.f0", ""))
			}
			for f := range 20 {
				e := file(fmt.Sprintf("%s/f%d%s", dir, f, []string{"", "x", "y"}[l]), fmt.Sprint(l, d, f, string(make([]byte, 100*f))))
				e.ModTime = time.Unix(int64(1e9+d*f), 0)
				all = append(all, e)
			}
			if l > 0 { // a file of the layer below, brought up
				all = append(all, hard(dir+fmt.Sprint("/hard", l), dir+"/f1"), entry{tar.Header{Name: dir + fmt.Sprint("/l", l), Linkname: "f1", Typeflag: tar.TypeSymlink}, ""})
			}
		}
		layers = append(layers, makeTar(t, all...))
	}
	return makeImage(t, v1.Config{}, layers...)
}

// What a prune that was killed has left is in nobody's way.
func TestKilledPrune(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	m := makeImage(t, v1.Config{}, makeTar(t, file("f", "content")))
	never, always := func(Named) bool { return false }, func(Named) bool { return true }
	for range 2 {
		i, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/a:1", Unpack: true})
		if err != nil {
			t.Fatal(err)
		}
		for n := range i.Layers {
			if err := os.MkdirAll(s.path("ingest", i.Layers[n].Key()+".gone", Tree), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Prune(ctx, always); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Prune(ctx, never); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"ingest", "layers", "blobs/sha256"} {
		if left, err := os.ReadDir(s.path(dir)); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}
