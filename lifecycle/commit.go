package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers"
	"platelayer/containers/image"
	"platelayer/containers/native"
	"platelayer/topology"
)

// CommitOptions are the choices of `commit`.
type CommitOptions struct {
	Name    string   // of the image, whole
	Changes []string // of its configuration: a Dockerfile's instructions
	Comment string
	Author  string
	Created time.Time
	Notice  func(text string) // what is left out
}

// Commit makes an image of what a station wrote: one more layer on the image
// that it runs on, or without one its whole root as a layer. Volumes are no part
// of it. A station that runs is paused meanwhile, one that doesn't can't start.
func Commit(ctx context.Context, l Layout, name string, s *topology.Station, o CommitOptions) (*image.Image, error) {
	if err := needRoot("make an image of a station"); err != nil {
		return nil, err
	}
	intent, err := readIntent(l, name)
	if err != nil {
		return nil, err
	}
	store, err := image.OpenStore(l.images())
	if err != nil {
		return nil, err
	}
	// What the engine writes at each start is the topology's.
	c := image.CommitOptions{Name: o.Name, Changes: o.Changes, Comment: o.Comment, Author: o.Author, Created: o.Created, Notice: o.Notice,
		Skip: []string{"etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}}
	if s.Image == "" {
		c.Config = v1.Config{Entrypoint: s.Entrypoint, Cmd: s.Command, User: s.User, WorkingDir: s.WorkingDir}
		if len(s.Entrypoint)+len(s.Command) == 0 {
			c.Config.Cmd = command(s)
		}
	} else if c.Base, err = store.Find(s.Digest); err != nil {
		return nil, fmt.Errorf("cannot find the image that %q runs on: %w", s.ID(), err)
	}
	state, err := running(l, name, s)
	if err != nil {
		return commitStopped(ctx, l, name, s, store, c, err)
	}
	root := site{layout: l, builtin: intent.Builtin, images: intent.Images}.station(intent.Topology, s).Root
	return commitRunning(ctx, l, name, state, &root, store, c)
}

// commitRunning pauses a station, unless somebody has, for as long as its layer
// is read.
func commitRunning(ctx context.Context, l Layout, name string, c *ContainerState, root *containers.Root, store *image.Store, o image.CommitOptions) (_ *image.Image, err error) {
	letGo, err := hold(ctx, l, name, []string{c.Station})
	if err != nil {
		return nil, err
	}
	defer func() {
		if goOn := letGo(); goOn != nil {
			err = errors.Join(err, fmt.Errorf("station %q may stay paused: %w", c.Station, goOn))
		}
	}()
	w, err := native.OpenWritten(c.Process, root)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	o.Check = func() error {
		if !stillPaused(l, name, c) {
			return fmt.Errorf("station %q went on or ended while it was read", c.Station)
		}
		return nil
	}
	return store.Commit(ctx, w, o)
}

// stillPaused tells whether the process that a station had is paused.
func stillPaused(l Layout, name string, had *ContainerState) bool {
	state, err := readState(l, name)
	if err != nil {
		return false
	}
	for _, c := range state.Stations {
		if c.Container == had.Container {
			return c.Process == had.Process && c.State == Paused && c.alive()
		}
	}
	return false
}

func commitStopped(ctx context.Context, l Layout, name string, s *topology.Station, store *image.Store, o image.CommitOptions, notRunning error) (*image.Image, error) {
	side, err := openStopped(ctx, l, CopySide{Topology: name, Station: s}, nil, notRunning)
	if err != nil {
		return nil, err
	}
	defer side.close()
	prepared, ok := side.container.(native.Writer)
	if !ok {
		return nil, fmt.Errorf("station %q has just started: try again", s.ID())
	}
	w, err := prepared.Written()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return store.Commit(ctx, w, o)
}
