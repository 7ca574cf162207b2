package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// TestVerifyLayer harms an unpacked layer in each way and wants it named by path.
func TestVerifyLayer(t *testing.T) {
	ctx := context.Background()
	m := makeImage(t, v1.Config{},
		makeTar(t, folder("d", 0o755), file("d/f", "content"), file("d/g", "content"), hard("d/h", "d/g"), link("d/l", "f"), folder("old", 0o755),
			entry{tar.Header{Name: "d/x", Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v"}}, "x"}, typed("d/p", tar.TypeFifo)),
		makeTar(t, file("d/.wh.f", ""), file("old/.wh..wh..opq", ""), file("implied/in/n", "n")))
	for _, c := range []struct {
		name string
		harm func(tree [2]string) error
		want string
	}{
		{"content, same size and time", func(d [2]string) error {
			path := filepath.Join(d[0], "d/f")
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(path, []byte("cOntent"), 0), os.Chtimes(path, st.ModTime(), st.ModTime()))
		}, "d/f has other content"},
		{"size", func(d [2]string) error { return os.Truncate(filepath.Join(d[0], "d/f"), 100) }, "d/f has 100 bytes instead of 7"},
		{"mode", func(d [2]string) error { return os.Chmod(filepath.Join(d[0], "d/f"), 0o755|os.ModeSetuid) }, "d/f has the mode 4755 instead of 0644"},
		{"owner", func(d [2]string) error { return os.Lchown(filepath.Join(d[0], "d/l"), 5, 6) }, "d/l belongs to 5:6 instead of 0:0"},
		{"time", func(d [2]string) error {
			return os.Chtimes(filepath.Join(d[0], "d/f"), time.Time{}, time.Unix(1, 5))
		}, "d/f was changed at 1970-01-01T00:00:01.000000005Z instead of 1970-01-01T00:00:00Z"},
		{"missing", func(d [2]string) error { return os.Remove(filepath.Join(d[0], "d/f")) }, "d/f is missing"},
		{"folder missing", func(d [2]string) error { return os.RemoveAll(filepath.Join(d[0], "d")) }, "d is missing"},
		{"too many", func(d [2]string) error { return os.WriteFile(filepath.Join(d[0], "d/z"), nil, 0o644) }, "d/z is there and should not be"},
		{"type", func(d [2]string) error {
			return errors.Join(os.Remove(filepath.Join(d[0], "d/f")), os.Symlink("x", filepath.Join(d[0], "d/f")))
		}, "d/f is a link instead of a file"},
		{"link", func(d [2]string) error {
			return errors.Join(os.Remove(filepath.Join(d[0], "d/l")), os.Symlink("/etc/passwd", filepath.Join(d[0], "d/l")))
		}, `d/l leads to "/etc/passwd" instead of "f"`},
		{"hard link", func(d [2]string) error {
			path := filepath.Join(d[0], "d/h")
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("content"), 0o644), os.Chtimes(path, time.Unix(0, 0), time.Unix(0, 0)))
		}, "d/h is a hard link to another file than it should be, or to none"},
		{"attribute", func(d [2]string) error { return unix.Setxattr(filepath.Join(d[0], "d/x"), "user.k", []byte("w"), 0) }, "d/x has another attribute user.k"},
		{"attribute gone", func(d [2]string) error { return unix.Removexattr(filepath.Join(d[0], "d/x"), "user.k") }, "d/x lacks the attribute user.k"},
		{"attribute more", func(d [2]string) error { return unix.Setxattr(filepath.Join(d[0], "d/f"), "trusted.k", []byte("w"), 0) }, "d/f has the attribute trusted.k, which it should not"},
		{"capability", func(d [2]string) error {
			return unix.Setxattr(filepath.Join(d[0], "d/f"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0)
		}, "d/f has the attribute security.capability, which it should not"},
		{"whiteout gone", func(d [2]string) error { return os.Remove(filepath.Join(d[1], "d/f")) }, "d/f is missing"},
		{"no more opaque", func(d [2]string) error { return unix.Removexattr(filepath.Join(d[1], "old"), "trusted.overlay.opaque") }, "old lacks the attribute trusted.overlay.opaque"},
		{"implied folder", func(d [2]string) error { return os.Chmod(filepath.Join(d[1], "implied"), 0o777) }, "implied has the mode 0777 instead of 0755"},
		{"root", func(d [2]string) error { return os.Chmod(d[0], 0o700) }, ". has the mode 0700 instead of 0755"},
		{"tree gone", func(d [2]string) error { return os.RemoveAll(d[0]) }, ". is missing"},
		{"tree a link", func(d [2]string) error { return errors.Join(os.RemoveAll(d[0]), os.Symlink("/", d[0])) }, ". is missing"},
		{"its description", func(d [2]string) error { return os.WriteFile(filepath.Join(d[0], "../layer.json"), []byte("{"), 0) }, " its layer.json is damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			i, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/a:1", Unpack: true})
			if err != nil {
				t.Fatal(err)
			}
			if v, err := s.Verify(ctx, nil, VerifyOptions{}); err != nil || len(v.Damage) > 0 || v.Layers != 2 || v.Blobs != 4 {
				t.Fatalf("unharmed: %+v, %v", v, err)
			}
			if err := c.harm([2]string{s.Tree(&i.Layers[0]), s.Tree(&i.Layers[1])}); err != nil {
				t.Fatal(err)
			}
			found := func(o VerifyOptions, want bool) *Verified {
				v, err := s.Verify(ctx, []Named{{"a", i}}, o)
				if err != nil {
					t.Fatal(err)
				}
				got := ""
				for _, d := range v.Damage {
					got += fmt.Sprintln(d.Path, d.Problem)
				}
				if strings.Contains(got, c.want) != want {
					t.Errorf("got %s want %s: %v", got, c.want, want)
				}
				if left, err := os.ReadDir(s.path("ingest")); err != nil || len(left) > 0 {
					t.Errorf("left in ingest: %v, %v", left, err)
				}
				return v
			}
			found(VerifyOptions{}, true)
			// A topology that runs on it keeps its files.
			if err := s.Hold(ctx, "t", []v1.Hash{i.Digest}, false); err != nil {
				t.Fatal(err)
			}
			found(VerifyOptions{Repair: true}, true)
			if v := found(VerifyOptions{}, true); v.Damage[0].Repaired {
				t.Error("it was repaired under a topology")
			}
			if err := s.Release("t"); err != nil {
				t.Fatal(err)
			}
			if v := found(VerifyOptions{Repair: true}, true); !v.Damage[0].Repaired {
				t.Errorf("it wasn't repaired: %+v", v)
			}
			if v := found(VerifyOptions{}, false); len(v.Damage) > 0 {
				t.Errorf("after the repair: %+v", v)
			}
		})
	}
}

// TestVerifyBlobs: each kind of blob, damaged and lost, is found, and after
// --repair it comes anew.
func TestVerifyBlobs(t *testing.T) {
	ctx := context.Background()
	m := simple(t)
	for _, which := range []string{"manifest", "configuration", "layer"} {
		for name, harm := range map[string]func(path string) error{
			"changed": func(path string) error { b, _ := os.ReadFile(path); return os.WriteFile(path, damaged(b), 0) },
			"cut":     func(path string) error { return os.Truncate(path, 10) },
			"gone":    os.Remove,
			"a link":  func(path string) error { return errors.Join(os.Rename(path, path+"x"), os.Symlink(path+"x", path)) },
		} {
			t.Run(which+" "+name, func(t *testing.T) {
				s := newStore(t)
				i, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/a:1", Unpack: true})
				if err != nil {
					t.Fatal(err)
				}
				h := map[string]v1.Hash{"manifest": i.Digest, "configuration": i.Manifest.Config.Digest, "layer": i.Layers[1].Digest}[which]
				if err := harm(s.blobPath(h)); err != nil {
					t.Fatal(err)
				}
				v, err := s.Verify(ctx, nil, VerifyOptions{Repair: true})
				if err != nil {
					t.Fatal(err)
				}
				found := false
				for _, d := range v.Damage {
					found = found || d.Blob == h
				}
				if !found {
					t.Errorf("got %+v", v)
				}
				os.Remove(s.blobPath(h) + "x")
				if _, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/a:1"}); err != nil {
					t.Fatal(err)
				}
				if v, err := s.Verify(ctx, nil, VerifyOptions{}); err != nil || len(v.Damage) > 0 {
					t.Errorf("after it came anew: %+v, %v", v, err)
				}
			})
		}
	}
}

// A damaged image doesn't keep others from being used, nor itself from being removed.
func TestRemoveDamaged(t *testing.T) {
	ctx := context.Background()
	s, m := newStore(t), simple(t)
	i, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/a:1", Unpack: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.blobPath(i.Digest), 3); err != nil {
		t.Fatal(err)
	}
	damage := new(CorruptError)
	if _, err := s.Find("a:1"); !errors.As(err, &damage) {
		t.Errorf("got %v", err)
	}
	names, err := s.NamesOf("a:1")
	if err != nil || names.Digest != i.Digest {
		t.Fatalf("got %v, %v", names, err)
	}
	if err := s.Remove(ctx, names.Digest); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Prune(ctx, func(Named) bool { return false }); err != nil || p.Layers != 3 {
		t.Errorf("got %+v, %v", p, err)
	}
	if left, err := os.ReadDir(s.path("blobs", "sha256")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What a topology runs isn't removed, whatever its names.
func TestRemoveHeld(t *testing.T) {
	ctx := context.Background()
	s, m := newStore(t), simple(t)
	i, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/a:1", Unpack: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Hold(ctx, "shop", []v1.Hash{i.Digest}, false); err != nil {
		t.Fatal(err)
	}
	held := new(HeldError)
	if err := s.Remove(ctx, i.Digest); !errors.As(err, &held) || err.Error() != "shop runs it" {
		t.Errorf("got %v", err)
	}
	if err := s.Hold(ctx, "copy", []v1.Hash{i.Digest}, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, i.Digest); !errors.As(err, &held) || err.Error() != "copy, shop run it" {
		t.Errorf("got %v", err)
	}
	if err := s.Release("copy"); err != nil {
		t.Fatal(err)
	}
	if err := s.Unname(ctx, "docker.io/library/a:1"); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Prune(ctx, func(Named) bool { return true }); err != nil || len(p.Images)+p.Layers+p.Blobs > 0 {
		t.Errorf("got %+v, %v", p, err)
	}
	if err := s.Release("shop"); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Prune(ctx, func(Named) bool { return true }); err != nil || len(p.Images) != 1 || p.Layers != 3 || p.Blobs != 5 {
		t.Errorf("got %+v, %v", p, err)
	}
}

// An image whose name another takes stays, without a name.
func TestNameMoves(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	for _, m := range []*made{simple(t), makeImage(t, v1.Config{}, makeTar(t))} {
		if _, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/a:1"}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != 2 || all[0].Name != "" || all[1].Name == "" {
		t.Errorf("got %v, %v", all, err)
	}
}

// Nobody knows the layers of an image whose name and manifest are lost: as long as a
// topology runs on them, none is pruned.
func TestPruneUnderStations(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	m := simple(t)
	i, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "web:1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Unpack(ctx, i, AddOptions{}), s.Hold(ctx, "shop", []v1.Hash{i.Digest}, false), s.forget(ctx, i.Digest), os.Remove(s.blobPath(i.Digest))); err != nil {
		t.Fatal(err)
	}
	all := func(Named) bool { return true }
	var missing *MissingError
	if _, err := s.Prune(ctx, all); !errors.As(err, &missing) || !strings.Contains(err.Error(), "shop") {
		t.Errorf("it is pruned: %v", err)
	}
	if _, err := os.Stat(s.Tree(&i.Layers[0])); err != nil {
		t.Error(err)
	}
	if err := s.Release("shop"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(ctx, all); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.Tree(&i.Layers[0])); !os.IsNotExist(err) {
		t.Errorf("a layer stays: %v", err)
	}
}

// An image whose damaged manifest was taken away keeps nobody from pruning.
func TestPruneWhatIsLost(t *testing.T) {
	s, ctx := newStore(t), t.Context()
	var all []*Image
	for _, name := range []string{"lost", "kept"} {
		m := makeImage(t, v1.Config{Cmd: []string{"/" + name}}, makeTar(t, file(name, name)))
		i, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/" + name + ":latest"})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	if err := os.Remove(s.blobPath(all[0].Digest)); err != nil {
		t.Fatal(err)
	}
	p, err := s.Prune(ctx, func(Named) bool { return false })
	if err != nil || p.Blobs != 2 {
		t.Errorf("got %+v, %v", p, err)
	}
	if left, err := s.List(); err != nil || len(left) != 1 || left[0].Digest != all[1].Digest {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A layer that has lost its description is unpacked again; stations that have it
// mounted keep theirs until they end.
func TestReplacedUnderStation(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	m := makeImage(t, v1.Config{}, makeTar(t, folder("d", 0o755), file("d/f", "content")))
	i, err := s.Add(ctx, m.manifest, m, AddOptions{Name: "docker.io/library/a:1", Unpack: true})
	if err != nil {
		t.Fatal(err)
	}
	mounted, err := os.OpenRoot(s.Tree(&i.Layers[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	if err := s.Hold(ctx, "t", []v1.Hash{i.Digest}, false); err != nil {
		t.Fatal(err)
	}
	never := func(Named) bool { return false }
	for range 2 {
		if err := os.Remove(s.path("layers", i.Layers[0].Key(), layerInfo)); err != nil {
			t.Fatal(err)
		}
		if err := s.Unpack(ctx, i, AddOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Verify(ctx, nil, VerifyOptions{Repair: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Prune(ctx, never); err != nil {
			t.Fatal(err)
		}
		if text, err := mounted.ReadFile("d/f"); err != nil || string(text) != "content" {
			t.Fatalf("the station has %q, %v", text, err)
		}
	}
	if err := s.Release("t"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(ctx, never); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.path("ingest")); err != nil || len(left) > 0 {
		t.Errorf("left in ingest: %v, %v", left, err)
	}
	if !s.Unpacked(&i.Layers[0]) {
		t.Error("the layer is gone")
	}
}
