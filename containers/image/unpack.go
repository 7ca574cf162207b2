package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unpacker makes a layer's tree in a folder as overlayfs wants it: what the
// layer deletes is a character device 0:0, and what it replaces an opaque folder
// (Documentation/filesystems/overlayfs.rst; OCI image layer, "Whiteouts").
type unpacker struct {
	root    int   // the folder
	parents []int // the unpacked layers below, the nearest first
	limits  limits
	buffer  []byte
	files   bool   // it is no layer: a whiteout's name is refused
	owner   *Owner // whose all becomes, regular files and folders only; nil is as it says

	here    string // the folder that dir is open at
	dir     int
	folders []folderTimes // set last, as a folder's time changes with its entries
	entries int64         // with the folders that are only mentioned
	names   int64         // bytes of the folders'
	content int64         // bytes of the files, holes too
	leftOut int           // device nodes
}

type folderTimes struct {
	name         string
	atime, mtime time.Time
}

func timesIn(name string, st *unix.Stat_t) folderTimes {
	return folderTimes{name, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix())}
}

// unpackTar reads a tar to its end. Nothing that it says leads out of the
// folder.
func (u *unpacker) unpackTar(ctx context.Context, r io.Reader) error {
	u.here, u.dir, u.buffer = ".", u.root, make([]byte, 256<<10)
	defer u.leave()
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		var wrong *BadImageError
		switch {
		case errors.As(err, &wrong) || errors.Is(err, errStopped):
			return err
		case err != nil:
			return bad("the layer is not a tar archive: %v", err)
		case ctx.Err() != nil:
			return ctx.Err()
		}
		kept := ""
		if h.Typeflag == tar.TypeDir {
			kept = h.Name
		}
		if err := u.count(kept); err != nil {
			return err
		}
		if h.Size > 0 {
			// A few bytes may stand for a file of any size that has holes.
			if u.content += h.Size; u.content > u.limits.Bytes || u.content < 0 {
				return fmt.Errorf("cannot unpack %q: %w", shorten(h.Name), bad("with it the layer's files have more than %d bytes", u.limits.Bytes))
			}
		}
		if err := u.entry(h, &untilDone{ctx, t}); err != nil {
			return fmt.Errorf("cannot unpack %q: %w", shorten(h.Name), blame(err))
		}
	}
	return u.setTimes()
}

// blame tells what no file system would take from what this machine failed at.
func blame(err error) error {
	for _, errno := range []unix.Errno{unix.ENAMETOOLONG, unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.EMLINK, unix.ERANGE, unix.E2BIG, unix.EINVAL} {
		if errors.Is(err, errno) {
			return bad("%v", err)
		}
	}
	return err
}

// shorten keeps a hostile name from filling the screen.
func shorten(name string) string {
	if len(name) > 200 {
		return name[:200] + "..."
	}
	return name
}

const (
	whiteout       = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // AUFS's own: of no meaning to others
)

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := within(h.Name)
	if err != nil {
		return err
	}
	if u.files && strings.HasPrefix(path.Base(name), whiteout) {
		return bad("its name means something else in a layer")
	}
	if u.owner != nil {
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
			return bad("it is neither a regular file nor a folder")
		}
		h.Uid, h.Gid, h.Mode, h.PAXRecords = u.owner.UID, u.owner.GID, h.Mode&0o755, nil
	}
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return bad("the root is not a folder")
		}
		return u.folderAttributes(u.root, name, h)
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		return u.device(name)
	}
	base := path.Base(name)
	for part := range strings.SplitSeq(path.Dir(name), "/") {
		switch {
		case strings.HasPrefix(part, whiteoutMeta):
			return nil
		case strings.HasPrefix(part, whiteout):
			return bad("it is below %q, which deletes a file", shorten(part))
		}
	}
	dir, err := u.enter(path.Dir(name))
	if err != nil {
		return err
	}
	switch {
	case base == whiteoutOpaque && u.isRoot(dir):
		return u.hideAll()
	case base == whiteoutOpaque:
		return opaque(dir)
	case strings.HasPrefix(base, whiteoutMeta):
		return nil
	case strings.HasPrefix(base, whiteout):
		return u.whiteout(dir, base[len(whiteout):])
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.folder(dir, name, h)
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(dir, base, h, content)
	case tar.TypeSymlink:
		if h.Linkname == "" {
			return bad("it is a link to nothing")
		}
		err = place(dir, base, func() error { return unix.Symlinkat(h.Linkname, dir, base) })
	case tar.TypeFifo:
		err = place(dir, base, func() error { return unix.Mknodat(dir, base, unix.S_IFIFO|0o600, 0) })
	case tar.TypeLink:
		return u.hardLink(dir, name, h)
	default:
		return bad("entries of type %q are not supported", h.Typeflag)
	}
	if err != nil {
		return err
	}
	return u.nodeAttributes(dir, base, h)
}

// place makes what is no folder. Where this layer deletes what is below it
// brings its own. Two entries of one name are refused: which one counts is read
// differently by different programs.
func place(dir int, base string, make func() error) error {
	err := make()
	if err != unix.EEXIST {
		return err
	}
	if !isWhiteout(dir, base) {
		return bad("the layer has it twice")
	}
	if err := unix.Unlinkat(dir, base, 0); err != nil {
		return err
	}
	return make()
}

// isWhiteout tells a whiteout from all else that has the name.
func isWhiteout(dir int, base string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// within gives a name of the archive as one below the root.
func within(name string) (string, error) {
	switch {
	case name == "":
		return "", bad("the name is empty")
	case strings.HasPrefix(name, "/"):
		return "", bad("the name is absolute")
	case strings.IndexByte(name, 0) >= 0:
		return "", bad("the name has a zero byte")
	case len(name) >= unix.PathMax:
		return "", bad("the name is too long")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", bad("the name leads upwards")
		}
	}
	return path.Clean(name), nil
}

// device: images made from a whole system have those of its /dev, over which a
// container's own is mounted. Elsewhere they have no business; and 0:0 would
// hide a file of the layers below.
func (u *unpacker) device(name string) error {
	if !strings.HasPrefix(name, "dev/") {
		return bad("it is a device node, which images have below dev only")
	}
	u.leftOut++
	return nil
}

func (u *unpacker) leave() {
	if u.dir != u.root {
		unix.Close(u.dir)
	}
	u.here, u.dir = ".", u.root
}

// enter opens the folder of an entry, and makes it where the archive doesn't.
func (u *unpacker) enter(name string) (int, error) {
	if name == u.here {
		return u.dir, nil
	}
	u.leave()
	fd, err := openFolder(u.root, name)
	var wrong *BadImageError
	if errors.Is(err, unix.ENOENT) || errors.As(err, &wrong) { // which a whiteout is, too
		if err = u.imply(name); err == nil {
			if fd, err = openFolder(u.root, name); errors.Is(err, unix.ENOENT) {
				err = bad("the folder %q is a link that leads nowhere", shorten(name))
			}
		}
	}
	if err != nil {
		return -1, err
	}
	u.here, u.dir = name, fd
	return fd, nil
}

// imply makes folders that the archive only mentions; they are as the layers
// below have them.
func (u *unpacker) imply(name string) error {
	parent, done := u.root, "."
	defer func() { u.shut(parent) }()
	for part := range strings.SplitSeq(name, "/") {
		done = path.Join(done, part)
		made, hides, err := makeFolder(parent, part)
		if err == nil && made {
			if err = u.count(done); err == nil {
				err = u.asBelow(parent, part, done, hides)
			}
		}
		if err != nil {
			return fmt.Errorf("cannot make the folder %q: %w", shorten(done), err)
		}
		fd, err := openat2(parent, part, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC})
		if err != nil { // a link, which begins at the root, or no folder
			fd, err = openFolder(u.root, done)
		}
		if errors.Is(err, unix.ENOENT) {
			return bad("the folder %q is a link that leads nowhere", shorten(done))
		}
		if err != nil {
			return err
		}
		u.shut(parent)
		parent = fd
	}
	return nil
}

func (u *unpacker) shut(fd int) {
	if fd != u.root {
		unix.Close(fd)
	}
}

// count counts what is made, and bounds what must be kept in mind of folders.
func (u *unpacker) count(folder string) error {
	const most = 256 << 20
	if u.names += int64(len(folder)); u.names > most {
		return bad("the names of the layer's folders have more than %d bytes", most)
	}
	if u.entries++; u.entries > u.limits.Entries {
		return bad("the layer has more than %d entries", u.limits.Entries)
	}
	return nil
}

// makeFolder makes a folder unless there is one, or a link to one. One in the
// place of a whiteout hides what is below.
func makeFolder(parent int, base string) (made, hides bool, err error) {
	if err = unix.Mkdirat(parent, base, 0o755); err != unix.EEXIST {
		return err == nil, false, err
	}
	if !isWhiteout(parent, base) {
		return false, false, nil
	}
	if err = unix.Unlinkat(parent, base, 0); err == nil {
		err = unix.Mkdirat(parent, base, 0o755)
	}
	return true, true, err
}

// asBelow gives an implied folder what the layers below say of it, or nothing
// that depends on when it was made.
func (u *unpacker) asBelow(parent int, base, name string, hides bool) error {
	fd, err := openFolder(parent, base)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if hides {
		if err := opaque(fd); err != nil {
			return err
		}
	}
	if u.owner != nil {
		if err := unix.Fchown(fd, u.owner.UID, u.owner.GID); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, 0o755); err != nil { // whatever the umask is
		return err
	}
	times := folderTimes{name: name}
	for _, below := range u.parents {
		from, err := openat2(below, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		if err != nil {
			if _, err := lstatBelow(below, name); err == nil {
				break // something else hides what is further below
			}
			continue
		}
		defer unix.Close(from)
		var st unix.Stat_t
		if err := unix.Fstat(from, &st); err != nil {
			return err
		}
		times = timesIn(name, &st)
		if err := copyNodeAttributes(from, fd, &st); err != nil {
			return err
		}
		break
	}
	u.folders = append(u.folders, times)
	return nil
}

func (u *unpacker) folder(dir int, name string, h *tar.Header) error {
	base := path.Base(name)
	_, hides, err := makeFolder(dir, base)
	if err != nil {
		return fmt.Errorf("cannot make the folder: %w", err)
	}
	fd, err := openat2(dir, base, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC})
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return bad("the layer has it twice")
	}
	if err != nil {
		return fmt.Errorf("cannot open the folder: %w", err)
	}
	defer unix.Close(fd)
	if hides {
		if err := opaque(fd); err != nil {
			return err
		}
	}
	return u.folderAttributes(fd, name, h)
}

// opaque hides what the layers below have in the folder.
func opaque(fd int) error {
	if err := unix.Fsetxattr(fd, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return unfit("what layers replace", err)
	}
	return nil
}

func (u *unpacker) isRoot(dir int) bool {
	var root, st unix.Stat_t
	return unix.Fstat(u.root, &root) == nil && unix.Fstat(dir, &st) == nil && root.Dev == st.Dev && root.Ino == st.Ino
}

// hideAll hides all that the layers below have, name by name: overlayfs looks at
// no attribute of a layer's own root.
func (u *unpacker) hideAll() error {
	for _, below := range u.parents {
		names, err := namesIn(below)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := u.whiteout(u.root, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// whiteout hides what the layers below have under a name. What this layer itself
// has there stays, and hides it as well.
func (u *unpacker) whiteout(dir int, base string) error {
	if base == "" || base == "." || base == ".." {
		return bad("it deletes nothing that can be named")
	}
	err := unix.Mknodat(dir, base, unix.S_IFCHR, 0)
	if err == nil {
		return unix.UtimesNanoAt(dir, base, make([]unix.Timespec, 2), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != unix.EEXIST {
		return unfit("what layers delete", err)
	}
	fd, err := openat2(dir, base, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC})
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return opaque(fd)
}
