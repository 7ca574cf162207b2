package image

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestProgress is told of each blob when it is waiting, on its way and done.
func TestProgress(t *testing.T) {
	s, m := newStore(t), bigImage(t, 1)
	i, err := s.Add(t.Context(), m.manifest, m, AddOptions{Name: "docker.io/library/a:1"})
	if err != nil {
		t.Fatal(err)
	}
	images := []Named{{"docker.io/library/a:1", i}}
	tar := filepath.Join(t.TempDir(), "root.tar")
	if err := os.WriteFile(tar, makeTar(t, file("big", string(make([]byte, 3<<20)))), 0o600); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := s.Save(t.Context(), &archive, images, SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		stage Stage
		blobs int
		do    func(ctx context.Context, tell func(Progress)) error
	}{
		"save": {StageSaving, 4, func(ctx context.Context, tell func(Progress)) error {
			return s.Save(ctx, io.Discard, images, SaveOptions{Progress: tell})
		}},
		"verify": {StageChecking, 4, func(ctx context.Context, tell func(Progress)) error {
			_, err := s.Verify(ctx, images, VerifyOptions{Progress: tell})
			return err
		}},
		"load from a pipe": {StageReading, 4, func(ctx context.Context, tell func(Progress)) error {
			_, err := newStore(t).Load(ctx, piped(t, archive.Bytes()), LoadOptions{Progress: tell})
			return err
		}},
		"import": {StageReading, 3, func(ctx context.Context, tell func(Progress)) error {
			f, err := os.Open(tar)
			if err != nil {
				return err
			}
			_, err = newStore(t).Import(ctx, f, ImportOptions{Name: "x", Progress: tell})
			return err
		}},
	} {
		stages := map[v1.Hash][]Stage{}
		partly := false
		err := test.do(t.Context(), func(p Progress) {
			if all := stages[p.Digest]; len(all) == 0 || all[len(all)-1] != p.Stage {
				stages[p.Digest] = append(all, p.Stage)
			}
			partly = partly || p.Stage == test.stage && p.Done > 0 && (p.Done < p.Total || p.Total == 0)
		})
		if err != nil {
			t.Fatal(err)
		}
		if !partly || len(stages) != test.blobs {
			t.Errorf("%s: told %v", name, stages)
		}
		for h, all := range stages {
			if last := all[len(all)-1]; all[0] != StageWaiting && all[0] != StageReading || last != StageDone && last != StageHere {
				t.Errorf("%s: %s was %v", name, h, all)
			}
		}
	}
}
