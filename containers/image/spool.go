package image

import (
	"archive/tar"
	"bufio"
	"bytes"
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
// It closes what it is given. tell, which may be nil, is told how far one is read
// that has to be kept first: a pipe, or one that is packed.
func (s *Store) openArchive(ctx context.Context, r *os.File, tell func(Progress)) (archive, error) {
	st, err := r.Stat()
	if err != nil {
		r.Close()
		return nil, err
	}
	if st.IsDir() {
		return folderArchive{r}, nil
	}
	if !st.Mode().IsRegular() {
		return s.pipedArchive(ctx, r, tell)
	}
	return s.fileArchive(ctx, r, st.Size(), tell)
}

func (s *Store) fileArchive(ctx context.Context, r *os.File, size int64, tell func(Progress)) (archive, error) {
	how, err := packingOfFile(r)
	if err != nil {
		r.Close()
		return nil, err
	}
	if how != notPacked {
		defer r.Close()
		packed := &toldReader{Reader: io.NewSectionReader(r, 0, size), at: Progress{Total: size, Stage: StageReading}, tell: tell}
		stream := openLayer(packed, size, s.limits)
		defer stream.close()
		return s.streamedArchive(ctx, stream)
	}
	a, err := indexTar(ctx, r)
	if err != nil {
		r.Close()
		return nil, err
	}
	return a, nil
}

// pipedArchive reads one from what may come slowly or never, and closes it.
func (s *Store) pipedArchive(ctx context.Context, r *os.File, tell func(Progress)) (archive, error) {
	return patiently(ctx, func() (archive, error) {
		defer r.Close()
		b := bufio.NewReaderSize(&toldReader{Reader: r, at: Progress{Stage: StageReading}, tell: tell}, chunkSize)
		head, err := b.Peek(6)
		if err != nil && err != io.EOF {
			return nil, err
		}
		if packingOf(head) == notPacked {
			return s.streamedArchive(ctx, b)
		}
		// How much it unpacks to is bound by how much it is.
		f, err := s.copyOf(ctx, b)
		if err != nil {
			return nil, err
		}
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		return s.fileArchive(ctx, f, st.Size(), nil)
	}, func(a archive) { a.close() })
}

// patiently waits for what can't be interrupted no longer than the context
// lasts. It ends with its next byte then, or with the process.
func patiently[T any](ctx context.Context, work func() (T, error), drop func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := work()
		done <- result{value, err}
	}()
	select {
	case got := <-done:
		return got.value, got.err
	case <-ctx.Done():
		go func() {
			if got := <-done; got.err == nil {
				drop(got.value)
			}
		}()
		var none T
		return none, context.Cause(ctx)
	}
}

const (
	largeMember = 256 << 10 // bytes, from which on a member gets a file of its own
	maxLarge    = 400       // files
	maxPadding  = 64 << 20  // bytes after the end of a tar
)

// streamedArchive keeps a tar that can't be sought in: its large members, which
// are layers most likely, in a file each that needn't be copied again, and the
// others in one.
func (s *Store) streamedArchive(ctx context.Context, r io.Reader) (archive, error) {
	f, err := s.spool()
	if err != nil {
		return nil, err
	}
	a := &tarArchive{file: f, members: map[string]tarMember{}}
	whole := &io.LimitedReader{R: &untilDone{ctx, r}, N: s.limits.Bytes + 1}
	end, large := int64(0), 0
	err = a.read(ctx, whole, func(m *tarMember, content io.Reader) error {
		sum, to := newSum(), a.file
		if m.size >= largeMember && large < maxLarge {
			own, err := s.spool()
			if err != nil {
				return err
			}
			large++
			m.own, to = own, own
			content = io.TeeReader(content, sum)
		}
		m.at = end
		n, err := io.Copy(to, content)
		if err == nil && n != m.size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			if m.own != nil {
				m.own.Close()
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = bad("the archive ends within it")
			}
			return err
		}
		if m.own == nil {
			end += n
		} else {
			m.sum = sum.hash()
		}
		return nil
	})
	if err == nil { // what packs the tar is to be whole, and who writes it is to end well
		var n int64
		if n, err = io.Copy(io.Discard, io.LimitReader(whole, maxPadding+1)); err == nil && n > maxPadding {
			err = bad("more than %d bytes come after its end", maxPadding)
		}
	}
	if whole.N == 0 {
		err = bad("it holds more than %d bytes", s.limits.Bytes)
	}
	if err != nil {
		a.close()
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
		pipe := r
		if r, err = patiently(ctx, func() (*os.File, error) {
			defer pipe.Close()
			b := bufio.NewReaderSize(pipe, maxEmptyTar+1)
			if err := beginsAsTar(b); err != nil {
				return nil, err
			}
			return s.copyOf(ctx, b)
		}, func(f *os.File) { f.Close() }); err != nil {
			return nil, err
		}
	} else if err := beginsAsTar(bufio.NewReaderSize(io.NewSectionReader(r, 0, st.Size()), maxEmptyTar+1)); err != nil {
		r.Close()
		return nil, err
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

const maxEmptyTar = 1 << 20 // bytes; tar pads to 10 KiB unless told otherwise

// beginsAsTar refuses what is plainly no tar, which may be large or without an
// end, before it is copied.
func beginsAsTar(b *bufio.Reader) error {
	head, err := b.Peek(512)
	if err != nil && err != io.EOF {
		return err
	}
	if packingOf(head) != notPacked {
		return nil
	}
	_, err = tar.NewReader(bytes.NewReader(head)).Next()
	if err == io.EOF && len(head) == 512 { // it begins with its end
		if long, _ := b.Peek(maxEmptyTar + 1); len(long) > maxEmptyTar {
			err = tar.ErrHeader
		}
	}
	if errors.Is(err, tar.ErrHeader) {
		return bad("it is not a tar archive")
	}
	return nil
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

// keeper is a Source that may have a blob as a spooled file, read and compared
// with the digest already.
type keeper interface {
	kept(d v1.Descriptor) *os.File
}

// obtain fetches a blob, unless it has come before the store asked for it.
func (s *Store) obtain(ctx context.Context, d v1.Descriptor, from Source, o *AddOptions) error {
	if k, ok := from.(keeper); ok && !s.hasBlob(d.Digest) {
		if f := k.kept(d); f != nil {
			o.tell(Progress{Digest: d.Digest, Done: d.Size, Total: d.Size, Stage: StageDone})
			return s.adopt(ctx, f, d.Digest)
		}
	}
	return s.fetch(ctx, d, from, o)
}

// adopt makes a spooled file, whose content has a digest, a blob of the store.
func (s *Store) adopt(ctx context.Context, f *os.File, h v1.Hash) error {
	if s.hasBlob(h) {
		return nil
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot write %s to the disk: %w", h, err)
	}
	// linkat(2): a file without a name gets one through /proc.
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, s.blobPath(h), unix.AT_SYMLINK_FOLLOW)
	switch err {
	case nil, unix.EEXIST:
		return nil
	case unix.ENOENT: // it had a name before
		return s.putBlob(ctx, h, -1, io.NewSectionReader(f, 0, 1<<62))
	}
	return fmt.Errorf("cannot keep %s: %w", h, err)
}
