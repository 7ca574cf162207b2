package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"platelayer/containers"
	"platelayer/containers/image"
	"platelayer/containers/native"
	"platelayer/integrity"
	"platelayer/topology"
)

// checkSeals is the integrity gate: every seal is checked on the assembled
// roots, and one bad file anywhere refuses the launch.
func checkSeals(ctx context.Context, roots []*root) error {
	var bad []BadFile
	for _, r := range roots {
		if r.station == nil || r.container == nil || len(r.station.Integrity.Paths) == 0 {
			continue
		}
		found, err := check(ctx, r.spec.Name, r.station, r.container.Root())
		if err != nil {
			return err
		}
		bad = append(bad, found...)
	}
	if len(bad) > 0 {
		return &IntegrityError{Files: bad}
	}
	return nil
}

func check(ctx context.Context, container string, s *topology.Station, root *os.File) ([]BadFile, error) {
	manifest, err := integrity.ReadManifestFile(s.Integrity.Manifest)
	if missing := new(integrity.NoManifest); errors.As(err, &missing) {
		return []BadFile{{container, integrity.Bad{Path: missing.Path, Reason: "not sealed yet"}, false}}, nil
	}
	if err != nil {
		// A seal that can't be read proves nothing: refused like a bad file.
		return []BadFile{{container, integrity.Bad{Path: s.Integrity.Manifest, Reason: "unreadable", Detail: err.Error()}, false}}, nil
	}
	found, err := integrity.Check(ctx, root, s.Integrity.Paths, manifest)
	if err != nil {
		return nil, fmt.Errorf("cannot check the seal of %q: %w", container, err)
	}
	var bad []BadFile
	for _, b := range found {
		bad = append(bad, BadFile{container, b, s.Image != ""})
	}
	return bad, nil
}

// LogIntegrity appends a refused launch to integrity.log beside the topology
// file, owned by the invoking user.
func LogIntegrity(t *topology.Topology, e *IntegrityError) error {
	uid, gid := Invoker()
	return logIntegrity(t, e, uid, gid)
}

func logIntegrity(t *topology.Topology, e *IntegrityError, uid, gid int) error {
	at := time.Now().UTC().Format(time.RFC3339)
	lines := make([]string, len(e.Files))
	for i, f := range e.Files {
		lines[i] = at + " " + f.String()
	}
	return integrity.AppendLog(filepath.Join(t.Dir, "integrity.log"), uid, gid, lines)
}

// Sealed is a manifest that Seal wrote.
type Sealed struct {
	Container string `json:"container"`
	Manifest  string `json:"manifest"`
	Files     int    `json:"files"`
}

// Seal writes the manifests of the given stations, or of all that have a seal,
// from the same assembled roots that up will see.
func Seal(ctx context.Context, l Layout, t *topology.Topology, which []*topology.Station, o ImageOptions) ([]Sealed, error) {
	var done []Sealed
	uid, gid := Invoker()
	err := assembled(ctx, l, t, which, o, func(s *topology.Station, root *os.File) error {
		manifest, err := integrity.Make(ctx, root, s.Integrity.Paths)
		if err != nil {
			return fmt.Errorf("cannot seal %q: %w", t.ContainerName(s), err)
		}
		if err := integrity.WriteManifestFile(s.Integrity.Manifest, manifest, uid, gid); err != nil {
			return err
		}
		done = append(done, Sealed{t.ContainerName(s), s.Integrity.Manifest, len(manifest)})
		return nil
	})
	return done, err
}

// Verify checks the seals of the given stations, on the running containers
// where the topology runs and on newly assembled roots otherwise.
func Verify(ctx context.Context, l Layout, t *topology.Topology, which []*topology.Station, o ImageOptions) (checked int, err error) {
	var bad []BadFile
	verify := func(s *topology.Station, root *os.File) error {
		found, err := check(ctx, t.ContainerName(s), s, root)
		bad = append(bad, found...)
		checked++
		return err
	}
	running := map[string]containers.ProcessRef{}
	if state, err := readState(l, t.Name); err == nil {
		for _, c := range state.Stations {
			if c.alive() {
				running[c.Container] = c.Process
			}
		}
	}
	for _, s := range which {
		ref, ok := running[t.ContainerName(s)]
		if !ok {
			continue
		}
		root, err := native.OpenRoot(ref)
		if err != nil {
			return checked, err
		}
		err = verify(s, root)
		root.Close()
		if err != nil {
			return checked, err
		}
	}
	// What runs has copies of its own of what is sealed: a change of the
	// machine's files shows at the next start only.
	seen := map[string]bool{}
	for _, b := range bad {
		seen[b.Container+b.Path] = true
	}
	err = assembled(ctx, l, t, which, o, func(s *topology.Station, root *os.File) error {
		container := t.ContainerName(s)
		_, runs := running[container]
		if !runs {
			return verify(s, root)
		}
		found, err := check(ctx, container, s, root)
		for _, b := range found {
			if !seen[b.Container+b.Path] {
				b.Detail = strings.TrimPrefix(b.Detail+"; what runs has the sealed one still, and would not start again", "; ")
				bad = append(bad, b)
			}
		}
		return err
	})
	if err != nil {
		return checked, err
	}
	if len(bad) > 0 {
		return checked, &IntegrityError{Files: bad, Verified: true}
	}
	return checked, nil
}

// standIn mounts what a station's root has before its volumes are made: one that
// is to be filled from the root hides nothing, and one that isn't is empty. The
// function that it gives removes what it made.
func standIn(t *topology.Topology, s *topology.Station, spec *containers.Spec) (left func(), err error) {
	empty := ""
	left = func() {
		if empty != "" {
			_ = os.Remove(empty) // of the machine's temporary files
		}
	}
	wanting := new(Wanting)
	for i, v := range s.Volumes {
		m := &spec.Mounts[i]
		_, err := os.Stat(m.Source)
		switch {
		case err == nil || m.Fill:
		case v.Source != "" && !v.CreateHostPath:
			wanting.Problems = append(wanting.Problems, WantingProblem{t.Place(s.ID(), "volumes", v.Target), s.ID(),
				fmt.Errorf("cannot find the volume's source %s: %w", m.Source, plainError(err))})
		case errors.Is(err, fs.ErrNotExist):
			if empty == "" {
				if empty, err = os.MkdirTemp("", "platelayer-"); err != nil {
					return left, fmt.Errorf("cannot make a folder for %q: %w", m.Target, err)
				}
			}
			m.Source = empty
		}
	}
	if len(wanting.Problems) > 0 {
		return left, wanting
	}
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m containers.Mount) bool {
		_, err := os.Stat(m.Source)
		return m.Fill && err != nil
	})
	return left, nil
}

// assembled calls do with the assembled root of each station in turn; nothing
// of it is left, and no command runs.
func assembled(ctx context.Context, l Layout, t *topology.Topology, which []*topology.Station, o ImageOptions, do func(*topology.Station, *os.File) error) (err error) {
	if len(which) == 0 {
		return nil
	}
	if err := needRoot("assemble a station's root"); err != nil {
		return err
	}
	if err := native.Harden(); err != nil {
		return err
	}
	builtin, _, err := image.Builtin(l.Lib)
	if err != nil {
		return err
	}
	if o.gate, err = newGate(l, t, t.File(), o.Registry); err != nil {
		return err
	}
	images, provided, err := provideImages(ctx, l, which, o)
	if err != nil {
		return err
	}
	defer provided()
	group := "platelayer/.assemble-" + strconv.Itoa(os.Getpid())
	engine, err := native.New(native.Config{Cgroup: group})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, engine.Close(), native.RemoveCgroup(group))
	}()
	w := site{layout: l, builtin: builtin, images: images}
	for _, s := range which {
		spec := w.station(t, s)
		spec.NetNSPath, spec.Root.WritableDir = "", ""
		spec.Stdout, spec.Stderr = "", ""
		left, err := standIn(t, s, spec)
		defer left()
		if err != nil {
			return err
		}
		if err := furnish(&root{spec: spec, station: &topology.Station{Files: s.Files, Security: s.Security}}); err != nil {
			return err
		}
		c, err := engine.Prepare(ctx, spec)
		if err != nil {
			return err
		}
		err = errors.Join(do(s, c.Root()), c.Discard())
		if err != nil {
			return err
		}
	}
	return nil
}
