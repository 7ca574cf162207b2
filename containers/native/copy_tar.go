package native

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const tarXattr = "SCHILY.xattr." // the PAX records of extended attributes, as GNU tar's

// tarFolder writes what a copy finds to an archive.
type tarFolder struct {
	c *copier
	w *tar.Writer
}

func newTarFolder(c *copier, w io.Writer) *tarFolder { return &tarFolder{c, tar.NewWriter(w)} }

func (t *tarFolder) end() error {
	if err := t.w.Close(); err != nil {
		return fmt.Errorf("cannot write the archive: %w", err)
	}
	return nil
}

func (t *tarFolder) header(it *copyItem, kind byte, link string) error {
	h := &tar.Header{
		Typeflag: kind, Name: it.path, Linkname: link, Mode: int64(it.mode & 0o7777), Uid: it.uid, Gid: it.gid,
		ModTime: time.Unix(it.mtime.Unix()), Format: tar.FormatPAX, PAXRecords: map[string]string{},
	}
	switch kind {
	case tar.TypeReg:
		h.Size = it.size
	case tar.TypeDir:
		h.Name += "/"
	}
	for _, a := range it.attrs {
		h.PAXRecords[tarXattr+a.name] = a.value
	}
	if err := t.w.WriteHeader(h); err != nil {
		return fmt.Errorf("cannot write %s to the archive: %w", t.c.shown(it), err)
	}
	return nil
}

func (t *tarFolder) folder(it *copyItem) (receiver, error) { return t, t.header(it, tar.TypeDir, "") }
func (t *tarFolder) link(it *copyItem, target string) error {
	return t.header(it, tar.TypeSymlink, target)
}
func (t *tarFolder) fifo(it *copyItem) error                { return t.header(it, tar.TypeFifo, "") }
func (t *tarFolder) again(it *copyItem, first string) error { return t.header(it, tar.TypeLink, first) }
func (t *tarFolder) close(*copyItem) error                  { return nil }
func (t *tarFolder) file(it *copyItem, content *copySource) error {
	if err := t.header(it, tar.TypeReg, ""); err != nil {
		return err
	}
	if err := content.writeTo(t.w); err != nil {
		return fmt.Errorf("cannot write %s to the archive: %w", t.c.shown(it), err)
	}
	return nil
}

// CopyFromTar unpacks a tar archive in a folder. No name leads out of the
// folder, not through links that lie in it either.
func CopyFromTar(ctx context.Context, r io.Reader, to CopySide, o CopyOptions) (Copied, error) {
	c := newCopier(ctx, o)
	d, err := openDestination(&to, "", true, true)
	if err != nil {
		return c.so, err
	}
	defer closeFD(d.fd)
	if d.name != "" {
		return c.so, fmt.Errorf("cannot unpack to %s: there is no such folder", to.show(to.Path))
	}
	to.Path = d.path
	c.from = "archive:"
	u := &unpacking{c: c, top: newTreeTop(c, &to, d.fd)}
	u.top.follow = true
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			err := u.end()
			return c.so, err
		}
		if err != nil {
			return c.so, fmt.Errorf("cannot read the archive: %w", err)
		}
		if err := u.entry(h, archive); err != nil {
			return c.so, err
		}
	}
}

// unpacking is an archive on its way into a folder.
type unpacking struct {
	c       *copier
	top     *treeFolder
	folders []*copyItem // which get their times at the end
}

// local checks a name of an archive's.
func local(name string) (string, error) {
	if path.IsAbs(name) || strings.Contains("/"+name+"/", "/../") {
		return "", fmt.Errorf("cannot unpack %q: the name leads out of the folder", shortPath(name))
	}
	return path.Clean(name), nil
}

func (u *unpacking) entry(h *tar.Header, content io.Reader) error {
	if err := u.c.interrupted(); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := local(h.Name)
	if err != nil {
		return err
	}
	it := &copyItem{
		name: path.Base(name), path: name, mode: uint32(h.Mode) & 0o7777, uid: h.Uid, gid: h.Gid, size: h.Size,
		mtime: unix.NsecToTimespec(h.ModTime.UnixNano()), atime: unix.NsecToTimespec(h.ModTime.UnixNano()),
	}
	if u.c.o.Archive {
		for key, value := range h.PAXRecords {
			if name, ok := strings.CutPrefix(key, tarXattr); ok && copiedAttr(name) {
				it.attrs = append(it.attrs, copyAttr{name, value})
			}
		}
	}
	u.c.tell(it)
	if name == "." {
		return nil // the folder itself stays as it is
	}
	parent, err := u.parent(it)
	if err != nil {
		return err
	}
	defer closeFD(parent.fd)
	switch h.Typeflag {
	case tar.TypeDir:
		return u.folder(parent, it)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		err = parent.file(it, &copySource{c: u.c, it: it, stream: content})
	case tar.TypeSymlink:
		err = parent.link(it, h.Linkname)
	case tar.TypeFifo:
		err = parent.fifo(it)
	case tar.TypeLink:
		err = u.hardLink(parent, it, h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		return u.c.skip(it, "it is a device")
	default:
		return u.c.skip(it, fmt.Sprintf("it is of the unknown kind %q", h.Typeflag))
	}
	if err == nil {
		u.c.so.Files++
	}
	return err
}

// parent opens the folder that an entry belongs in, as if the destination were
// a root; folders that the archive does not name are made.
func (u *unpacking) parent(it *copyItem) (*treeFolder, error) {
	dir := path.Dir(it.path)
	fd, err := openIn(u.top.fd, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, os.ErrNotExist) {
		above := &copyItem{name: path.Base(dir), path: dir, mode: 0o755, mtime: it.mtime, atime: it.atime}
		above.uid, above.gid = u.c.o.UID, u.c.o.GID
		var grand *treeFolder
		if grand, err = u.parent(above); err != nil {
			return nil, err
		}
		err = u.folder(grand, above)
		closeFD(grand.fd)
		if err != nil {
			return nil, err
		}
		fd, err = openIn(u.top.fd, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if err == nil {
		if err = u.top.side.holds(fd); err != nil {
			closeFD(fd)
		}
	}
	if err != nil {
		return nil, u.top.failed(it, err)
	}
	return &treeFolder{treeTop: u.top.treeTop, fd: fd}, nil
}

func (u *unpacking) folder(parent *treeFolder, it *copyItem) error {
	f, err := parent.folder(it)
	if err != nil {
		return err
	}
	u.c.so.Folders++
	if f.(*treeFolder).made || u.c.o.Archive {
		u.folders = append(u.folders, it)
	}
	return f.close(it)
}

func (u *unpacking) hardLink(parent *treeFolder, it *copyItem, to string) error {
	first, err := local(to)
	if err != nil {
		return err
	}
	err = parent.again(it, first)
	if errors.Is(err, errCopyAnew) {
		err = u.top.failed(it, fmt.Errorf("there is no %s to link to", shortPath(to)))
	}
	return err
}

// end gives the folders their times: what was put into them has changed those.
func (u *unpacking) end() error {
	for _, it := range slices.Backward(u.folders) {
		fd, err := openIn(u.top.fd, it.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue // somebody has moved it
		}
		err = unix.UtimesNanoAt(fd, "", []unix.Timespec{it.atime, it.mtime}, unix.AT_EMPTY_PATH)
		closeFD(fd)
		if err != nil {
			return u.top.failed(it, err)
		}
	}
	return nil
}
