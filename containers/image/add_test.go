package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// gated is a source that does something before it gives a blob.
type gated struct {
	*made
	before func(ctx context.Context, h v1.Hash) error
}

func (g *gated) Blob(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	if err := g.before(ctx, d.Digest); err != nil {
		return nil, 0, err
	}
	return g.made.Blob(ctx, d, offset)
}

// untilUnpacked waits for a file of a layer that isn't published yet.
func untilUnpacked(ctx context.Context, s *Store, name string) error {
	for ctx.Err() == nil {
		if found, _ := filepath.Glob(s.path("ingest", "*", Tree, name)); len(found) > 0 {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

// TestUnpackWhileFetching: a layer is unpacked before the next is there, and a
// failure of either ends both.
func TestUnpackWhileFetching(t *testing.T) {
	good := layersOf(t, makeTar(t, file("a", "1")), makeTar(t, file("b", "2")), makeTar(t, file("c", "3")))
	hostile := layersOf(t, makeTar(t, file("../a", "1")), makeTar(t, file("b", "2")), makeTar(t, file("c", "3")))
	broken := errors.New("the line is dead")
	for _, c := range []struct {
		name   string
		m      *made
		before func(s *Store, m *v1.Manifest) func(context.Context, v1.Hash) error
		want   string
	}{
		{"the last waits for the first to be unpacked", good, func(s *Store, m *v1.Manifest) func(context.Context, v1.Hash) error {
			return func(ctx context.Context, h v1.Hash) error {
				if h != m.Layers[2].Digest {
					return nil
				}
				return untilUnpacked(ctx, s, "a")
			}
		}, ""},
		{"the last fails", good, func(_ *Store, m *v1.Manifest) func(context.Context, v1.Hash) error {
			return func(_ context.Context, h v1.Hash) error {
				if h == m.Layers[2].Digest {
					return broken
				}
				return nil
			}
		}, "cannot fetch DIGEST: the line is dead"},
		{"the first is hostile, the last never comes", hostile, func(_ *Store, m *v1.Manifest) func(context.Context, v1.Hash) error {
			return func(ctx context.Context, h v1.Hash) error {
				if h == m.Layers[2].Digest {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}
		}, `cannot unpack "../a": the name leads upwards`},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			s := newStore(t)
			m, err := parseManifest(c.m.manifest)
			if err != nil {
				t.Fatal(err)
			}
			i, err := s.Add(ctx, c.m.manifest, &gated{c.m, c.before(s, m)}, AddOptions{Name: "docker.io/library/a:1", Unpack: true})
			if c.want == "" {
				if err != nil || !s.Unpacked(&i.Layers[2]) {
					t.Errorf("got %v, %v", i, err)
				}
				return
			}
			if want := strings.ReplaceAll(c.want, "DIGEST", m.Layers[2].Digest.String()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
			if all, err := s.List(); err != nil || len(all) > 0 {
				t.Errorf("it has a name: %v, %v", all, err)
			}
			if entries, err := os.ReadDir(s.path("layers")); err != nil || len(entries) > 0 {
				t.Errorf("layers are there: %v, %v", entries, err)
			}
		})
	}
}

// TestUnpackGivesUp: who waits for the layer that another gives up finds nothing
// of it being removed.
func TestUnpackGivesUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := newStore(t)
	var many []entry
	for n := range 3000 {
		many = append(many, file(fmt.Sprint("f", n), "1"))
	}
	made := layersOf(t, makeTar(t, many...), makeTar(t, file("b", "2")))
	m, err := parseManifest(made.manifest)
	if err != nil {
		t.Fatal(err)
	}
	waits, left := make(chan struct{}), make(chan []string, 1)
	go func() {
		defer close(left)
		if untilUnpacked(ctx, s, "f2999") != nil {
			return
		}
		dirs, _ := filepath.Glob(s.path("ingest", "*.layer"))
		lock, err := os.Open(strings.TrimSuffix(dirs[0], ".layer") + ".lock")
		if err != nil {
			t.Error(err)
			return
		}
		defer lock.Close()
		close(waits)
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			t.Error(err)
		}
		found, _ := filepath.Glob(s.path("ingest", "*.layer"))
		left <- found
	}()
	broken := errors.New("the line is dead")
	_, err = s.Add(ctx, made.manifest, &gated{made, func(ctx context.Context, h v1.Hash) error {
		if h != m.Layers[1].Digest {
			return nil
		}
		select {
		case <-waits:
			return broken
		case <-ctx.Done():
			return ctx.Err()
		}
	}}, AddOptions{Unpack: true})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if found := <-left; len(found) > 0 {
		t.Errorf("still there: %v", found)
	}
}
