package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// archive is a packed-up set of images: the members of a tar, or the files of
// a folder, by their names in it.
type archive interface {
	// open gives a member, which the caller closes. One that isn't there is an
	// error that is fs.ErrNotExist.
	open(name string) (*member, error)
	close() error
}

// member is a regular file of an archive.
type member struct {
	*io.SectionReader
	file *os.File // closed with it; nil when it is the archive's own
	own  *os.File // of the store, of which sum is the digest: it can become a blob as it is
	sum  v1.Hash
}

func (m *member) Close() error {
	if m.file == nil {
		return nil
	}
	return m.file.Close()
}

// read gives a small member as a whole.
func read(a archive, name string) ([]byte, error) {
	m, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if m.Size() > maxDocument {
		return nil, bad("%q has %d bytes, more than a document of an image may have", shorten(name), m.Size())
	}
	return io.ReadAll(m)
}

// tarArchive is a tar file whose members are known by where they lie.
type tarArchive struct {
	file    *os.File
	members map[string]tarMember
}

type tarMember struct {
	at, size int64
	link     string   // the member that it is a link to
	own      *os.File // it lies in a file of its own, of which sum is the digest
	sum      v1.Hash
}

// What an archive of images may have: `docker save` has three members a layer.
const (
	maxMembers     = 100_000
	maxMemberNames = 16 << 20 // bytes of all names
	maxMemberLinks = 8        // that lead from one to the next
)

// indexTar reads a tar's headers. Nothing is written anywhere by its names, but
// one with a name that leads out was made to harm.
func indexTar(ctx context.Context, f *os.File) (*tarArchive, error) {
	a := &tarArchive{file: f, members: map[string]tarMember{}}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return a, a.read(ctx, f, func(m *tarMember, _ io.Reader) (err error) {
		// The reader has read the headers and not a byte more.
		m.at, err = f.Seek(0, io.SeekCurrent)
		return err
	})
}

// read reads a tar; keep takes the content of each file, or says where it lies.
func (a *tarArchive) read(ctx context.Context, r io.Reader, keep func(*tarMember, io.Reader) error) error {
	t := tar.NewReader(r)
	names := 0
	for {
		h, err := t.Next()
		var wrong *BadImageError
		switch {
		case err == io.EOF:
			return nil
		case errors.As(err, &wrong), errors.Is(err, errStopped):
			return err
		case err != nil:
			return bad("it is not a tar archive, or a damaged one: %v", err)
		case ctx.Err() != nil:
			return ctx.Err()
		case len(a.members) == maxMembers:
			return bad("the archive has more than %d members", maxMembers)
		}
		if names += len(h.Name) + len(h.Linkname); names > maxMemberNames {
			return bad("the names of the archive's members have more than %d bytes", maxMemberNames)
		}
		if err := a.add(h, t, keep); err != nil {
			return fmt.Errorf("archive member %q: %w", shorten(h.Name), err)
		}
	}
}

func (a *tarArchive) add(h *tar.Header, content io.Reader, keep func(*tarMember, io.Reader) error) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := within(h.Name)
	if err != nil {
		return err
	}
	var m tarMember
	switch h.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeReg:
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				return bad("it is sparse")
			}
		}
		if _, twice := a.members[name]; twice {
			return bad("the archive has it twice")
		}
		m.size = h.Size
		if err := keep(&m, content); err != nil {
			return err
		}
	case tar.TypeSymlink, tar.TypeLink:
		// `docker save` has a layer that several images have once.
		m.link = h.Linkname
		if h.Typeflag == tar.TypeSymlink {
			m.link = path.Join(path.Dir(name), h.Linkname)
		}
		if path.IsAbs(h.Linkname) || !fs.ValidPath(path.Clean(m.link)) {
			return bad("it is a link that leads out of the archive, to %q", shorten(h.Linkname))
		}
		m.link = path.Clean(m.link)
	default:
		return bad("it is neither file, folder nor link")
	}
	if _, twice := a.members[name]; twice {
		return bad("the archive has it twice")
	}
	a.members[name] = m
	return nil
}

func (a *tarArchive) open(name string) (*member, error) {
	at := path.Clean(name)
	for range maxMemberLinks {
		m, ok := a.members[at]
		if !ok {
			return nil, fmt.Errorf("the archive has no %q: %w", shorten(at), fs.ErrNotExist)
		}
		if m.own != nil {
			return &member{SectionReader: io.NewSectionReader(m.own, 0, m.size), own: m.own, sum: m.sum}, nil
		}
		if m.link == "" {
			return &member{SectionReader: io.NewSectionReader(a.file, m.at, m.size)}, nil
		}
		at = m.link
	}
	return nil, bad("the archive's links from %q lead in a circle", shorten(name))
}

func (a *tarArchive) close() error {
	for _, m := range a.members {
		if m.own != nil {
			m.own.Close()
		}
	}
	return a.file.Close()
}

// folderArchive is a folder, whose files may be anything, and be changed by
// others, too.
type folderArchive struct{ dir *os.File }

func (a folderArchive) open(file string) (*member, error) {
	name, err := within(file)
	if err != nil {
		return nil, fmt.Errorf("file %q: %w", shorten(file), err)
	}
	fd, err := openat2(int(a.dir.Fd()), name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	switch {
	case err == unix.ENOENT || err == unix.ENOTDIR:
		return nil, fmt.Errorf("the folder has no %q: %w", shorten(name), fs.ErrNotExist)
	case err == unix.ELOOP || err == unix.EXDEV:
		return nil, bad("%q in the folder is a link, or behind one", shorten(name))
	case errors.Is(err, unix.ENXIO):
		return nil, bad("%q in the folder is not a file", shorten(name))
	case err != nil:
		return nil, fmt.Errorf("cannot open %q in the folder: %w", shorten(name), err)
	}
	f := os.NewFile(uintptr(fd), name)
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = bad("%q in the folder is not a file", shorten(name))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &member{SectionReader: io.NewSectionReader(f, 0, st.Size()), file: f}, nil
}

func (a folderArchive) close() error { return a.dir.Close() }

// members is the Source of blobs that are an archive's members, each opened by
// what describes it.
type members func(d v1.Descriptor) (*member, error)

// Blob gives a blob from the offset on.
func (o members) Blob(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	m, err := o(d)
	if err != nil {
		return nil, 0, err
	}
	if _, err := m.Seek(offset, io.SeekStart); err != nil {
		m.Close()
		return nil, 0, err
	}
	return m, offset, nil
}

// Again is no: an archive says the same each time.
func (members) Again(error) bool { return false }

func (o members) kept(d v1.Descriptor) *os.File {
	m, err := o(d)
	if err != nil {
		return nil
	}
	m.Close()
	if m.own == nil || m.sum != d.Digest || m.Size() != d.Size {
		return nil
	}
	return m.own
}
