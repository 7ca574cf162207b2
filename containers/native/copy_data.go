package native

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// copySource is the content of a regular file: of an open one, or of a stream.
type copySource struct {
	c      *copier
	it     *copyItem
	fd     int
	stream io.Reader // instead of fd
}

// failed is an error of the source: the other side's name the destination.
func (s *copySource) failed(err error) error {
	return fmt.Errorf("cannot read %s: %w", s.c.shown(s.it), err)
}

// writeFile copies to a new file. What the file is said to hold at first is
// copied: one that grows meanwhile has no end. An error of the new file's goes
// through broken.
func (s *copySource) writeFile(to int, broken func(error) error) error {
	write := func(b []byte, at int64) error {
		if err := writeAll(to, b, at); err != nil {
			return broken(err)
		}
		s.c.so.Bytes += int64(len(b))
		s.c.tell(s.it)
		return nil
	}
	copy := s.copyExtents
	if s.stream != nil {
		copy = s.spread
	}
	end, err := copy(write)
	if err != nil {
		return err
	}
	if err := unix.Ftruncate(to, end); err != nil {
		return broken(err)
	}
	return nil
}

// copyExtents copies what is not a hole and tells where the file ends.
func (s *copySource) copyExtents(write func(b []byte, at int64) error) (int64, error) {
	for at := int64(0); at < s.it.size; {
		data, hole, err := s.extent(at)
		if err != nil {
			return 0, s.failed(err)
		}
		if at, err = s.copyRange(data, hole, write); err != nil {
			return 0, err
		}
		if at < hole { // it has become shorter
			return at, nil
		}
	}
	return s.it.size, nil
}

// extent finds the next data from an offset on: where it begins and ends. Past
// the last both are the size.
func (s *copySource) extent(at int64) (data, hole int64, err error) {
	data, err = unix.Seek(s.fd, at, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return s.it.size, s.it.size, nil
	}
	if err == unix.EINVAL || err == unix.EOPNOTSUPP { // a file system that knows no holes
		return at, s.it.size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if hole, err = unix.Seek(s.fd, data, unix.SEEK_HOLE); err == unix.ENXIO {
		hole, err = s.it.size, nil
	}
	return min(data, s.it.size), min(hole, s.it.size), err
}

// copyRange copies a part and tells how far the file really goes.
func (s *copySource) copyRange(at, end int64, write func(b []byte, at int64) error) (int64, error) {
	for at < end {
		if err := s.c.interrupted(); err != nil {
			return at, err
		}
		n, err := unix.Pread(s.fd, s.c.buffer[:min(int64(len(s.c.buffer)), end-at)], at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return at, s.failed(err)
		}
		if n == 0 {
			return at, nil
		}
		if err := write(s.c.buffer[:n], at); err != nil {
			return at, err
		}
		at += int64(n)
	}
	return at, nil
}

func writeAll(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// spread writes a stream to a new file and leaves holes where it has zeros: an
// archive has no other way to tell of them.
func (s *copySource) spread(write func(b []byte, at int64) error) (int64, error) {
	const block = 4096
	var zeros [block]byte
	for at := int64(0); at < s.it.size; {
		if err := s.c.interrupted(); err != nil {
			return at, err
		}
		n, err := io.ReadFull(s.stream, s.c.buffer[:min(int64(len(s.c.buffer)), s.it.size-at)])
		if err != nil {
			return at, s.failed(err)
		}
		for b := range slices.Chunk(s.c.buffer[:n], block) {
			if !bytes.Equal(b, zeros[:len(b)]) {
				if err := write(b, at); err != nil {
					return at, err
				}
			}
			at += int64(len(b))
		}
	}
	return s.it.size, nil
}

// writeTo writes as many bytes as the file is said to hold.
func (s *copySource) writeTo(w io.Writer) error {
	write := func(b []byte, _ int64) error {
		_, err := w.Write(b)
		s.c.so.Bytes += int64(len(b))
		s.c.tell(s.it)
		return err
	}
	at, err := s.copyRange(0, s.it.size, write)
	for err == nil && at < s.it.size { // it has become shorter
		pad := s.c.buffer[:min(int64(len(s.c.buffer)), s.it.size-at)]
		clear(pad)
		err = write(pad, at)
		at += int64(len(pad))
	}
	return err
}

// copiedAttr tells which extended attributes belong to a file, not to the
// system that it is on.
func copiedAttr(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

func readAttrs(fd int, keeps func(name string) bool) ([]copyAttr, error) {
	names := make([]byte, 64<<10) // the kernel's limits, xattr(7)
	n, err := unix.Flistxattr(fd, names)
	if err != nil && err != unix.EOPNOTSUPP {
		return nil, err
	}
	var attrs []copyAttr
	for name := range strings.SplitSeq(string(names[:max(n, 0)]), "\x00") {
		if name == "" || !keeps(name) {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(fd, name, value)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, err
		}
		attrs = append(attrs, copyAttr{name, string(value[:n])})
	}
	return attrs, nil
}
