package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// Copy copies files into and out of running stations, as they see them
// themselves. It needs no keeper.
func Copy(ctx context.Context, l Layout, from, to CopySide, o CopyOptions) (Copied, error) {
	var so Copied
	if err := needRoot("copy into and out of stations"); err != nil {
		return so, err
	}
	if err := native.Protect(); err != nil {
		return so, err
	}
	source, theirs, err := openSide(l, from)
	if err != nil {
		return so, err
	}
	defer closeSide(source)
	target, others, err := openSide(l, to)
	if err != nil {
		return so, err
	}
	defer closeSide(target)
	choice := native.CopyOptions{Archive: o.Archive, Follow: o.Follow, Progress: o.Progress, Notice: o.Notice}
	if to.Station == nil && to.Writer == nil {
		// What a station made is not to run as who copied it.
		choice.UID, choice.GID = Invoker()
		choice.DropSetID = !o.Archive
	}
	switch {
	case from.Reader != nil:
		so, err = native.CopyFromTar(ctx, from.Reader, *target, choice)
	case to.Writer != nil:
		so, err = native.CopyToTar(ctx, *source, to.Writer, choice)
	default:
		so, err = native.Copy(ctx, *source, *target, choice)
	}
	for _, side := range []struct {
		CopySide
		ref containers.ProcessRef
	}{{from, theirs}, {to, others}} {
		// With its last process a station's volumes go from its root.
		if side.Station != nil && !native.Alive(side.ref) {
			err = errors.Join(err, fmt.Errorf("station %q ended during the copy", side.Station.ID()))
		}
	}
	return so, err
}

func openSide(l Layout, s CopySide) (*native.CopySide, containers.ProcessRef, error) {
	if s.Station == nil {
		return &native.CopySide{Path: s.Path}, containers.ProcessRef{}, nil
	}
	c, err := running(l, s.Topology, s.Station)
	if err != nil {
		return nil, containers.ProcessRef{}, err
	}
	root, err := native.OpenRoot(c.Process)
	if err != nil {
		return nil, containers.ProcessRef{}, fmt.Errorf("cannot open the root of %q: %w", c.Container, err)
	}
	side := &native.CopySide{Root: root, Path: "/" + strings.TrimLeft(s.Path, "/"), Name: s.Station.ID() + ":"}
	return side, c.Process, nil
}

func closeSide(s *native.CopySide) {
	if s.Root != nil {
		s.Root.Close()
	}
}
