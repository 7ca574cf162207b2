package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// spool makes a file of the store's without a name: it is gone with the
// process.
func (s *Store) spool() (*os.File, error) {
	fd, err := unix.Open(s.path("ingest"), unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), s.path("ingest", "spool")), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, fmt.Errorf("cannot make a file in the image store: %w", err)
	}
	f, err := os.CreateTemp(s.path("ingest"), tempPrefix)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openArchive opens an archive of images: a file, a folder, or what r gives.
// It closes what it is given.
func (s *Store) openArchive(ctx context.Context, r *os.File) (archive, error) {
	st, err := r.Stat()
	if err != nil {
		r.Close()
		return nil, err
	}
	if st.IsDir() {
		return folderArchive{r}, nil
	}
	f, err := s.plain(ctx, r)
	if err != nil {
		return nil, err
	}
	a, err := indexTar(ctx, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return a, nil
}

// plain gives a file that can be sought in and isn't packed, with what another
// or a pipe has. It closes what it is given, unless that is it.
func (s *Store) plain(ctx context.Context, r *os.File) (_ *os.File, err error) {
	if st, err := r.Stat(); err != nil {
		r.Close()
		return nil, err
	} else if !st.Mode().IsRegular() {
		if r, err = s.copyOfPipe(ctx, r); err != nil {
			return nil, err
		}
	}
	how, err := packingOfFile(r)
	if err != nil || how == notPacked {
		if err != nil {
			r.Close()
		}
		return r, err
	}
	defer r.Close()
	st, err := r.Stat()
	if err != nil {
		return nil, err
	}
	stream := openLayer(io.NewSectionReader(r, 0, st.Size()), st.Size(), s.limits)
	defer stream.close()
	f, err := s.copyOf(ctx, stream)
	if err != nil {
		return nil, err
	}
	if how, err = packingOfFile(f); err == nil && how != notPacked {
		err = bad("it is packed twice")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func packingOfFile(f io.ReaderAt) (packing, error) {
	var head [6]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return notPacked, err
	}
	return packingOf(head[:n]), nil
}

// copyOf gives a file with all that a reader has.
func (s *Store) copyOf(ctx context.Context, r io.Reader) (*os.File, error) {
	f, err := s.spool()
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(f, io.LimitReader(&untilDone{ctx, r}, s.limits.Bytes+1))
	if err == nil && n > s.limits.Bytes {
		err = bad("it holds more than %d bytes", s.limits.Bytes)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// copyOfPipe does it with what may come slowly or never, and closes it.
func (s *Store) copyOfPipe(ctx context.Context, r *os.File) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result, 1)
	go func() {
		defer r.Close()
		f, err := s.copyOf(ctx, r)
		done <- result{f, err}
	}()
	select {
	case got := <-done:
		return got.f, got.err
	case <-ctx.Done():
		return nil, context.Cause(ctx) // the copy ends with the next byte, or the process
	}
}

// untilDone fails when its context ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, fmt.Errorf("%w: %w", errStopped, context.Cause(u.ctx))
	}
	return u.r.Read(p)
}

// adopt makes a spooled file, whose content has a digest, a blob of the store.
func (s *Store) adopt(ctx context.Context, f *os.File, h v1.Hash) error {
	if s.HasBlob(h) {
		return nil
	}
	// linkat(2): a file without a name gets one through /proc.
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, s.blobPath(h), unix.AT_SYMLINK_FOLLOW)
	switch err {
	case nil, unix.EEXIST:
		return nil
	case unix.ENOENT: // it had a name before
		return s.PutBlob(ctx, h, -1, io.NewSectionReader(f, 0, 1<<62))
	}
	return fmt.Errorf("cannot keep %s: %w", h, err)
}
