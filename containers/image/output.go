package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// SaveFile is Save into a file, which is the owner's then.
func (s *Store) SaveFile(ctx context.Context, name string, owner Owner, images []Named, o SaveOptions) error {
	return WriteFile(name, 0o644, owner, func(w io.Writer, _ string) error { return s.Save(ctx, w, images, o) })
}

// WriteFile is ReplaceFile, but that a pipe or a device is written as it is.
func WriteFile(name string, mode os.FileMode, owner Owner, write func(w io.Writer, temporary string) error) error {
	if st, err := os.Stat(name); err != nil || st.Mode().IsRegular() {
		return ReplaceFile(name, mode, owner, write)
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	// It may be another one by now.
	if st, err := f.Stat(); err != nil || st.Mode().IsRegular() {
		return errors.Join(err, f.Close(), ReplaceFile(name, mode, owner, write))
	}
	return errors.Join(write(f, ""), f.Close())
}

// ReplaceFile has a file written that is there whole or not at all; temporary is
// the path that it has till then, which no error names. A link to a file is
// replaced, as root may write for somebody whom the file that it leads to isn't.
// For the same reason it has its owner before it has its name: by then another
// may lie there.
func ReplaceFile(name string, mode os.FileMode, owner Owner, write func(w io.Writer, temporary string) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return called(name, err)
	}
	defer os.Remove(f.Name())
	err = errors.Join(write(&calledFile{f, name}, f.Name()), called(name, f.Chmod(mode)))
	if err = errors.Join(err, called(name, owner.Give(f)), called(name, f.Sync()), called(name, f.Close())); err != nil {
		return err
	}
	return called(name, os.Rename(f.Name(), name))
}

// calledFile is written under a name that its errors don't have.
type calledFile struct {
	f    *os.File
	name string
}

func (c *calledFile) Write(p []byte) (int, error) {
	n, err := c.f.Write(p)
	return n, called(c.name, err)
}

// called gives an error of a file the name by which the user knows the file.
func called(name string, err error) error {
	switch e := err.(type) {
	case *os.PathError:
		return &os.PathError{Op: e.Op, Path: name, Err: e.Err}
	case *os.LinkError:
		return &os.PathError{Op: e.Op, Path: name, Err: e.Err}
	}
	return err
}
