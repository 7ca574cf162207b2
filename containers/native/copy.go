package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CopySide is where a copy comes from or goes to.
type CopySide struct {
	// Root is the root that no path and no link leads out of; nil is the
	// machine's own, where a relative path begins in the working folder.
	Root *os.File
	Path string
	Name string // stands before paths in messages
	// Passing are folders of the root on file systems that go when the copy has
	// been made: nothing can be put there.
	Passing []string
}

// CopyOptions are the choices of a copy.
type CopyOptions struct {
	Archive  bool // keeps owners and extended attributes
	Follow   bool // copies what the source leads to where it is a link
	UID, GID int  // owner of what is made without Archive
	// DropSetID takes the set-user-ID and set-group-ID bits from files.
	DropSetID bool
	// Progress is told now and then how much has been copied, and what is next.
	Progress func(so Copied, next string)
	// Notice is told what was left out, and why.
	Notice func(text string)
}

// Copied is how much has been copied.
type Copied struct {
	Files   int   // whatever is not a folder
	Folders int   // begun
	Bytes   int64 // of the files' content, holes left out
}

// Copy copies a file, or a folder with all that is in it, with modes, times,
// links, hard links and holes. Devices, sockets and what lies in the kernel's
// own file systems are left out. What source and destination mean is settled as
// in docker's cp.
func Copy(ctx context.Context, from, to CopySide, o CopyOptions) (Copied, error) {
	c := newCopier(ctx, o)
	s, err := openSource(&from, o.Follow)
	if err != nil {
		return c.so, err
	}
	defer closeFD(s.fd)
	d, err := openDestination(&to, s.name, s.folder(), s.content)
	if err != nil {
		return c.so, err
	}
	defer closeFD(d.fd)
	c.from = from.show(from.Path)
	to.Path = d.path
	top := newTreeTop(c, &to, d.fd)
	if d.name != "" {
		c.prefix = d.name
		err := c.node(s.fd, &copyItem{name: d.name, path: d.name}, top)
		return c.so, err
	}
	c.prefix = "."
	if err := c.avoidFolder(d.fd); err != nil {
		return c.so, err
	}
	it := &copyItem{path: "."}
	if err := c.mayEnter(s.fd, it); err != nil {
		return c.so, err
	}
	err = c.folder(s.fd, it, top)
	return c.so, err
}

// CopyToTar writes what Copy would copy to a tar archive; holes are written out.
func CopyToTar(ctx context.Context, from CopySide, w io.Writer, o CopyOptions) (Copied, error) {
	c := newCopier(ctx, o)
	s, err := openSource(&from, o.Follow)
	if err != nil {
		return c.so, err
	}
	defer closeFD(s.fd)
	c.from = from.show(from.Path)
	name := s.name
	if s.content {
		name = "."
	}
	c.prefix = name
	t := newTarFolder(c, w)
	if err = c.node(s.fd, &copyItem{name: name, path: name}, t); err == nil {
		err = t.end()
	}
	return c.so, err
}

// copier is one copy.
type copier struct {
	ctx    context.Context
	o      CopyOptions
	so     Copied
	from   string // the source, as messages name it
	prefix string // the path of its top among the copied ones
	buffer []byte
	keeps  func(attr string) bool // which extended attributes; copiedAttr
	links  map[inode]string       // first paths of files with several
	avoid  inode                  // the folder that the copy makes
	depth  int                    // of the folder that is being copied
	told   time.Time
}

func newCopier(ctx context.Context, o CopyOptions) *copier {
	return &copier{ctx: ctx, o: o, buffer: make([]byte, 1<<20), keeps: copiedAttr, links: map[inode]string{}}
}

// maxCopyDepth is how many folders may lie in each other. The copy has three
// descriptors for each; a path of PATH_MAX bytes with names of three has 1024.
const maxCopyDepth = 1000

// copyItem is what a walk of the source has found.
type copyItem struct {
	path         string // from the top of the copy
	name         string // its last element
	mode         uint32 // with its kind
	uid, gid     int
	size         int64
	atime, mtime unix.Timespec
	attrs        []copyAttr
}

// copyAttr is an extended attribute.
type copyAttr struct{ name, value string }

type inode struct{ dev, ino uint64 }

func (it *copyItem) fill(st *unix.Stat_t) {
	it.mode, it.uid, it.gid, it.size = st.Mode, int(st.Uid), int(st.Gid), st.Size
	it.atime, it.mtime = st.Atim, st.Mtim
}

// receiver is a folder at the other end of a copy.
type receiver interface {
	// folder makes a folder in it, or enters one that is there.
	folder(it *copyItem) (receiver, error)
	file(it *copyItem, content *copySource) error
	link(it *copyItem, target string) error
	fifo(it *copyItem) error
	// again gives what was received at the path first another name; it is
	// errCopyAnew where only another copy will do.
	again(it *copyItem, first string) error
	// close is called once all that is in the folder has been received.
	close(it *copyItem) error
}

var errCopyAnew = errors.New("cannot be linked")

// shown names an item of the source.
func (c *copier) shown(it *copyItem) string {
	below := it.path[len(c.prefix):]
	if below == "" {
		return shortPath(c.from)
	}
	return shortPath(strings.TrimRight(strings.TrimSuffix(c.from, "/."), "/") + below)
}

// shortPath leaves out the middle of a path that nobody would read.
func shortPath(path string) string {
	const most, end = 300, 120 // bytes
	if len(path) <= most {
		return path
	}
	return strings.ToValidUTF8(path[:end], "") + "..." + strings.ToValidUTF8(path[len(path)-end:], "")
}

func (c *copier) interrupted() error {
	if c.ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("interrupted: %w", context.Cause(c.ctx))
}

func (c *copier) tell(it *copyItem) {
	if c.o.Progress != nil && time.Since(c.told) > 100*time.Millisecond {
		c.told = time.Now()
		c.o.Progress(c.so, c.shown(it))
	}
}

func (c *copier) skip(it *copyItem, why string) error {
	if it.path == c.prefix {
		return fmt.Errorf("cannot copy %s: %s", c.shown(it), why)
	}
	if c.o.Notice != nil {
		c.o.Notice("skipped " + c.shown(it) + ": " + why)
	}
	return nil
}

// node copies what an O_PATH descriptor is of. Nothing is opened by a name
// again: it might be another file by then.
func (c *copier) node(fd int, it *copyItem, to receiver) error {
	if err := c.interrupted(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("cannot inspect %s: %w", c.shown(it), err)
	}
	it.fill(&st)
	c.tell(it)
	kernels, err := kernelFS(fd)
	if err != nil {
		return fmt.Errorf("cannot inspect %s: %w", c.shown(it), err)
	}
	if kernels {
		return c.skip(it, errKernelFS.Error())
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return c.enter(fd, it, to)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return c.skip(it, "it is a socket")
	case unix.S_IFCHR, unix.S_IFBLK:
		return c.skip(it, "it is a device")
	}
	id := inode{uint64(st.Dev), st.Ino}
	if first, ok := c.links[id]; ok && st.Nlink > 1 {
		err := to.again(it, first)
		if err == nil {
			c.so.Files++
		}
		if !errors.Is(err, errCopyAnew) {
			return err
		}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = c.file(fd, it, to)
	case unix.S_IFLNK:
		var target string
		if target, err = readLink(fd); err != nil {
			return fmt.Errorf("cannot read the link %s: %w", c.shown(it), err)
		}
		err = to.link(it, target)
	case unix.S_IFIFO:
		err = to.fifo(it)
	}
	if err == nil {
		c.so.Files++
		if st.Nlink > 1 {
			c.links[id] = it.path
		}
	}
	return err
}

// file opens a file whose descriptor has proved it to be a regular one.
func (c *copier) file(fd int, it *copyItem, to receiver) error {
	opened, err := unix.Open(procFD(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", c.shown(it), err)
	}
	defer closeFD(opened)
	if c.o.Archive {
		if it.attrs, err = readAttrs(opened, c.keeps); err != nil {
			return fmt.Errorf("cannot read the attributes of %s: %w", c.shown(it), err)
		}
	}
	if c.o.DropSetID && it.mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		it.mode &^= unix.S_ISUID | unix.S_ISGID
		if c.o.Notice != nil {
			c.o.Notice("without the set-ID bits: " + c.shown(it) + "; -a keeps them")
		}
	}
	return to.file(it, &copySource{c: c, fd: opened, it: it})
}

func (c *copier) enter(fd int, it *copyItem, to receiver) error {
	if err := c.mayEnter(fd, it); err != nil {
		return err
	}
	if c.depth == maxCopyDepth {
		return fmt.Errorf("cannot copy %s: it lies in more than %d folders", c.shown(it), maxCopyDepth)
	}
	if c.o.Archive {
		if err := c.readFolderAttrs(fd, it); err != nil {
			return err
		}
	}
	inside, err := to.folder(it)
	if err != nil {
		return err
	}
	c.so.Folders++
	if t, ok := inside.(*treeFolder); ok && it.path == c.prefix {
		if err := c.avoidFolder(t.fd); err != nil {
			return errors.Join(err, inside.close(it))
		}
	}
	return errors.Join(c.folder(fd, it, inside), inside.close(it))
}

func (c *copier) readFolderAttrs(fd int, it *copyItem) error {
	d, err := openFolder(fd)
	if err == nil {
		it.attrs, err = readAttrs(int(d.Fd()), c.keeps)
		d.Close()
	}
	if err != nil {
		return fmt.Errorf("cannot read the attributes of %s: %w", c.shown(it), err)
	}
	return nil
}

// mayEnter refuses the folder that the copy makes.
func (c *copier) mayEnter(fd int, it *copyItem) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("cannot inspect %s: %w", c.shown(it), err)
	}
	if c.avoid == (inode{uint64(st.Dev), st.Ino}) {
		return fmt.Errorf("cannot copy %s: it is where the copy goes", c.shown(it))
	}
	return nil
}

// avoidFolder has the copy not go into the folder that it makes.
func (c *copier) avoidFolder(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("cannot inspect the destination: %w", err)
	}
	c.avoid = inode{uint64(st.Dev), st.Ino}
	return nil
}

// folder copies all that is in a folder, some names at a time: there is no
// telling how many there are.
func (c *copier) folder(fd int, it *copyItem, to receiver) error {
	c.depth++
	defer func() { c.depth-- }()
	d, err := openFolder(fd)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", c.shown(it), err)
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			if err := c.named(int(d.Fd()), &copyItem{name: name, path: it.path + "/" + name}, to); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot list %s: %w", c.shown(it), err)
		}
	}
}

func (c *copier) named(dir int, it *copyItem, to receiver) error {
	fd, err := unix.Openat(dir, it.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return c.skip(it, "it is gone")
	}
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", c.shown(it), err)
	}
	defer closeFD(fd)
	return c.node(fd, it, to)
}
