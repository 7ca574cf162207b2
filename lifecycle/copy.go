package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/topology"
)

// CopySide is where `cp` copies from or to: a path in a station, a path on the
// machine, or a tar archive.
type CopySide struct {
	Topology string
	Station  *topology.Station // nil on the machine
	Path     string
	Reader   io.Reader // an archive to unpack
	Writer   io.Writer // one to write
}

// CopyOptions are the choices of `cp`.
type CopyOptions struct {
	Archive  bool // owners and extended attributes, too
	Follow   bool // a link at the end of the source's path
	Progress func(so Copied, next string)
	Notice   func(text string)
}

// Copied is how much has been copied.
type Copied = native.Copied

// Copy copies files into and out of stations, as they see them themselves. It
// needs no keeper. One that does not run can't start meanwhile.
func Copy(ctx context.Context, l Layout, from, to CopySide, o CopyOptions) (Copied, error) {
	if err := needRoot("copy into and out of stations"); err != nil {
		return Copied{}, err
	}
	source, err := openSide(ctx, l, from, nil)
	if err != nil {
		return Copied{}, err
	}
	defer source.close()
	target := source
	if !from.same(to) {
		if target, err = openSide(ctx, l, to, source); err != nil {
			return Copied{}, err
		}
		defer target.close()
	}
	choice := native.CopyOptions{Archive: o.Archive, Follow: o.Follow, Progress: o.Progress, Notice: o.Notice}
	if to.Station == nil && to.Writer == nil {
		// What a station made is not to run as who copied it.
		choice.UID, choice.GID = Invoker()
		choice.DropSetID = !o.Archive
	}
	var so Copied
	switch {
	case from.Reader != nil:
		so, err = native.CopyFromTar(ctx, from.Reader, target.at(to.Path), choice)
	case to.Writer != nil:
		so, err = native.CopyToTar(ctx, source.at(from.Path), to.Writer, choice)
	default:
		so, err = native.Copy(ctx, source.at(from.Path), target.at(to.Path), choice)
	}
	return so, errors.Join(err, source.check(), target.check())
}

// copySide is an opened CopySide.
type copySide struct {
	native.CopySide
	check  func() error // whether it was there to the end
	give   []func()     // back what it holds, the last first
	locked string       // the topology that it keeps as it is
	// container is the root of a station that does not run, as its next start
	// has it.
	container containers.Container
}

func noCheck() error { return nil }

func (s *copySide) close() {
	for _, f := range slices.Backward(s.give) {
		f()
	}
}

// at is a path on this side. One of a station begins at its root.
func (s *copySide) at(path string) native.CopySide {
	side := s.CopySide
	if side.Path = path; side.Root != nil {
		side.Path = "/" + strings.TrimLeft(path, "/")
	}
	return side
}

// same tells whether both are of one station.
func (s CopySide) same(o CopySide) bool {
	return s.Station != nil && o.Station != nil && s.Topology == o.Topology && s.Station.ID() == o.Station.ID()
}

func openSide(ctx context.Context, l Layout, s CopySide, beside *copySide) (*copySide, error) {
	if s.Station == nil {
		return &copySide{check: noCheck}, nil
	}
	c, err := running(l, s.Topology, s.Station)
	if down := new(NotUp); err != nil && !errors.As(err, &down) {
		return openStopped(ctx, l, s, beside, err)
	}
	if err != nil {
		return nil, err
	}
	return openRunning(c, s)
}

func openRunning(c *ContainerState, s CopySide) (*copySide, error) {
	root, err := native.OpenRoot(c.Process)
	if err != nil {
		return nil, fmt.Errorf("cannot open the root of %q: %w", c.Container, err)
	}
	side := &copySide{CopySide: rooted(s, root), give: []func(){func() { root.Close() }}}
	side.check = func() error {
		// With its last process a station's volumes go from its root.
		if !native.Alive(c.Process) {
			return fmt.Errorf("station %q ended during the copy", c.Container)
		}
		return nil
	}
	return side, nil
}

// rooted is a side below a station's root.
func rooted(s CopySide, root *os.File) native.CopySide {
	return native.CopySide{Root: root, Name: s.Station.ID() + ":"}
}
