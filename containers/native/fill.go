package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// fill copies all that is in the folder from into the folder to, unless that
// has something: as an archiving Copy does, but with every extended attribute,
// and nobody is told what was left out. After an error the volume is empty
// again, or the next start would take it for a filled one. The name is from's.
func fill(ctx context.Context, from, to int, name string) error {
	filled := make(chan error)
	// On another thread: this one's /proc is the root's, which knows no descriptors.
	go func() { filled <- fillEmpty(ctx, from, to, name) }()
	return <-filled
}

func fillEmpty(ctx context.Context, from, to int, name string) error {
	dir, err := openFolder(to)
	if err != nil {
		return fmt.Errorf("cannot open the volume: %w", err)
	}
	defer dir.Close()
	if _, err := dir.Readdirnames(1); err != io.EOF {
		return err
	}
	c := newCopier(ctx, CopyOptions{Archive: true, Notice: func(string) {}})
	c.from, c.prefix = name, "."
	c.keeps = func(attr string) bool { return !strings.HasPrefix(attr, "trusted.overlay.") }
	top := newTreeTop(c, &CopySide{Path: "the volume"}, int(dir.Fd()))
	if err := c.like(from, top); err != nil {
		return errors.Join(err, unfill(from, top.fd))
	}
	return nil
}

// like makes a folder what another is.
func (c *copier) like(from int, to *treeFolder) error {
	it := &copyItem{path: "."}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return fmt.Errorf("cannot inspect %s: %w", c.shown(it), err)
	}
	it.fill(&st)
	if err := c.readFolderAttrs(from, it); err != nil {
		return err
	}
	if err := c.folder(from, it, to); err != nil {
		return err
	}
	return to.attributes(to.fd, it)
}

// unfill removes from a folder all that another has too.
func unfill(from, to int) error {
	dir, err := openFolder(from)
	if err != nil {
		return fmt.Errorf("cannot empty the volume again: %w", err)
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if err := os.RemoveAll(procFD(to) + "/" + name); err != nil {
				return fmt.Errorf("cannot empty the volume again: %w", err)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot empty the volume again: %w", err)
		}
	}
}

// openFolder opens a folder to be listed from its beginning.
func openFolder(fd int) (*os.File, error) {
	opened, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(opened), "folder"), nil
}
