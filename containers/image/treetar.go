package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// treeTar writes folders as a layer's tar, each entry in the order of its name,
// so that the same tree gives the same tar.
type treeTar struct {
	ctx    context.Context
	out    *tar.Writer
	room   *bounded // what out writes to
	whole  []containers.Part
	skip   []string // names of what is left out
	notice func(text string)
	buffer []byte
	links  map[inode]string // the first name of a file with several
}

type inode struct{ dev, ino uint64 }

// changes writes a layer as overlayfs has it, in OCI's form (image-spec
// layer.md, "Change Types"): a character device 0:0 is a whiteout, and an opaque
// folder says so by an entry of its own. Of a folder that was renamed, its layer
// holds no more than what it was before; it is written as a whole
// (Documentation/filesystems/overlayfs.rst, "redirect_dir").
func (t *treeTar) changes(layer *os.File) error {
	t.links = map[inode]string{}
	return t.root(layer, true)
}

// root writes a root from its folder on, or a layer of one.
func (t *treeTar) root(dir *os.File, layer bool) error {
	it, err := t.look(int(dir.Fd()), ".")
	if err != nil {
		return err
	}
	if err := t.header(".", it, tar.TypeDir, "", 0); err != nil {
		return err
	}
	return t.folder(int(dir.Fd()), ".", layer)
}

// all writes a root of several parts as a whole: the folders of the later ones
// in the place of what the earlier ones have there.
func (t *treeTar) all() error {
	for n, part := range t.whole {
		t.links = map[inode]string{}
		if n == 0 {
			var covered []string
			for _, other := range t.whole[1:] {
				covered = append(covered, other.At)
			}
			had := t.skip
			t.skip = append(slices.Clone(had), covered...)
			err := t.root(part.Dir, false)
			if t.skip = had; err != nil {
				return err
			}
			continue
		}
		it, err := t.look(int(part.Dir.Fd()), ".")
		if err != nil {
			return err
		}
		if err := t.header(part.At, it, tar.TypeDir, "", 0); err != nil {
			return err
		}
		if err := t.folder(int(part.Dir.Fd()), part.At, false); err != nil {
			return err
		}
	}
	return nil
}

// treeItem is something in a tree.
type treeItem struct {
	unix.Stat_t
	attributes map[string]string
}

func (i *treeItem) kind() uint32 { return i.Mode & unix.S_IFMT }

// look reads what there is to know of an open file, folder, link or node.
func (t *treeTar) look(fd int, name string) (*treeItem, error) {
	it := &treeItem{attributes: map[string]string{}}
	if err := unix.Fstat(fd, &it.Stat_t); err != nil {
		return nil, fmt.Errorf("cannot inspect %q: %w", shorten(name), err)
	}
	// It may be open for its path alone, which fgetxattr(2) does not take.
	path := "/proc/self/fd/" + strconv.Itoa(fd)
	n, err := unix.Listxattr(path, t.buffer)
	if err != nil && err != unix.ENOTSUP {
		return nil, fmt.Errorf("cannot list the attributes of %q: %w", shorten(name), err)
	}
	for _, key := range splitZero(string(t.buffer[:max(n, 0)])) {
		n, err := unix.Getxattr(path, key, t.buffer)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the attribute %q of %q: %w", key, shorten(name), err)
		}
		it.attributes[key] = string(t.buffer[:n])
	}
	return it, nil
}

func splitZero(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return c == 0 })
}

// carried tells which attributes go along: not overlayfs's own, and of the
// security ones those that mean the same on another machine.
func carried(key string) bool {
	return keptAttribute(key) && (!strings.HasPrefix(key, "security.") || key == "security.capability")
}

// header writes an entry.
func (t *treeTar) header(name string, it *treeItem, kind byte, link string, size int64) error {
	h := &tar.Header{Typeflag: kind, Name: name, Linkname: link, Size: size, Mode: int64(it.Mode & 0o7777), Uid: int(it.Uid), Gid: int(it.Gid),
		ModTime: time.Unix(it.Mtim.Unix()), Format: tar.FormatPAX, PAXRecords: map[string]string{}}
	if kind == tar.TypeDir && name != "." {
		h.Name += "/"
	}
	if kind == tar.TypeDir && name == "." {
		h.Name = "./"
	}
	if kind != tar.TypeLink {
		for key, value := range it.attributes {
			if !carried(key) {
				continue
			}
			if strings.Contains(key, "=") { // which a PAX record can't have
				t.notice(fmt.Sprintf("the attribute %q of %q is left out: a layer can't hold it", key, shorten(name)))
				continue
			}
			h.PAXRecords[tarAttribute+key] = value
		}
	}
	if err := t.out.WriteHeader(h); err != nil {
		return fmt.Errorf("cannot write %q: %w", shorten(name), err)
	}
	return nil
}

// mark writes an entry that only its name counts of.
func (t *treeTar) mark(name string) error {
	return t.out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Format: tar.FormatPAX, ModTime: time.Unix(0, 0)})
}

const maxTreeDepth = 1000 // of folders in folders; each keeps one open

// folder writes what is in a folder.
func (t *treeTar) folder(dir int, name string, layer bool) error {
	if strings.Count(name, "/") > maxTreeDepth {
		return fmt.Errorf("cannot read %q: its folders are more than %d deep", shorten(name), maxTreeDepth)
	}
	names, err := namesIn(dir)
	if err != nil {
		return fmt.Errorf("cannot read %q: %w", shorten(name), err)
	}
	for _, base := range names {
		if err := t.ctx.Err(); err != nil {
			return context.Cause(t.ctx)
		}
		at := path.Join(name, base)
		if slices.Contains(t.skip, at) {
			continue
		}
		if err := t.entry(dir, base, at, layer); err != nil {
			return err
		}
	}
	return nil
}

func namesIn(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "folder")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func (t *treeTar) entry(dir int, base, name string, layer bool) error {
	fd, err := unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open %q: %w", shorten(name), err)
	}
	defer unix.Close(fd)
	it, err := t.look(fd, name)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteout) {
		t.notice(fmt.Sprintf("%q is left out: in a layer such a name deletes", shorten(name)))
		return nil
	}
	switch it.kind() {
	case unix.S_IFDIR:
		return t.branch(fd, name, it, layer)
	case unix.S_IFCHR:
		if it.Rdev == 0 && layer {
			return t.mark(path.Join(path.Dir(name), whiteout+base))
		}
	}
	key := inode{uint64(it.Dev), it.Ino}
	if first, ok := t.links[key]; ok && it.Nlink > 1 {
		return t.header(name, it, tar.TypeLink, first, 0)
	}
	switch it.kind() {
	case unix.S_IFREG:
		err = t.file(fd, name, it)
	case unix.S_IFLNK:
		to := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", to)
		if err != nil {
			return fmt.Errorf("cannot read the link %q: %w", shorten(name), err)
		}
		if err := t.header(name, it, tar.TypeSymlink, string(to[:n]), 0); err != nil {
			return err
		}
	case unix.S_IFIFO:
		err = t.header(name, it, tar.TypeFifo, "", 0)
	case unix.S_IFSOCK:
		t.notice(fmt.Sprintf("the socket %q is left out: it means nothing without who made it", shorten(name)))
		return nil
	default:
		t.notice(fmt.Sprintf("the device node %q is left out", shorten(name)))
		return nil
	}
	if it.Nlink > 1 {
		t.links[key] = name
	}
	return err
}

// branch writes a folder with what is in it.
func (t *treeTar) branch(fd int, name string, it *treeItem, layer bool) error {
	if err := t.header(name, it, tar.TypeDir, "", 0); err != nil {
		return err
	}
	_, renamed := it.attributes["trusted.overlay.redirect"]
	if layer && (renamed || it.attributes["trusted.overlay.opaque"] == "y") {
		if err := t.mark(path.Join(name, whiteoutOpaque)); err != nil {
			return err
		}
	}
	if !layer || !renamed {
		return t.folder(fd, name, layer)
	}
	whole, err := openat2(int(t.whole[0].Dir.Fd()), name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return fmt.Errorf("cannot open the renamed folder %q: %w", shorten(name), err)
	}
	defer unix.Close(whole)
	return t.folder(whole, name, false)
}

// file writes a regular file.
func (t *treeTar) file(fd int, name string, it *treeItem) error {
	// The descriptor for the path is opened again for its content.
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("cannot open %q: %w", shorten(name), err)
	}
	defer f.Close()
	if it.Size > t.room.left { // a file of holes may have any size, and takes hours to read
		return fmt.Errorf("cannot copy %q: %w", shorten(name), errNoRoom)
	}
	if err := t.header(name, it, tar.TypeReg, "", it.Size); err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{t.out}, &untilDone{t.ctx, io.LimitReader(f, it.Size)}, t.buffer)
	if err == nil && n < it.Size {
		err = errors.New("it became shorter")
	}
	if err != nil {
		return fmt.Errorf("cannot copy %q: %w", shorten(name), err)
	}
	return nil
}

// onlyWriter hides a ReadFrom that would not use the buffer.
type onlyWriter struct{ io.Writer }

// holeWriter writes a file, and holes where there are zeros.
type holeWriter struct {
	*os.File
	at, end int64
}

func (w *holeWriter) Write(p []byte) (int, error) {
	const block = 4096
	for done := 0; done < len(p); {
		// As many blocks as have content, or have none, at a time.
		next := func(at int) int { return min(len(p), at+block-int((w.at+int64(at-done))%block)) }
		end := next(done)
		empty := isZero(p[done:end])
		for end < len(p) && isZero(p[end:next(end)]) == empty {
			end = next(end)
		}
		if !empty {
			if _, err := w.WriteAt(p[done:end], w.at); err != nil {
				return done, err
			}
			w.end = w.at + int64(end-done)
		}
		w.at += int64(end - done)
		done = end
	}
	return len(p), nil
}

// finish gives the file its size.
func (w *holeWriter) finish() error {
	if w.end == w.at {
		return nil
	}
	return w.Truncate(w.at)
}

func isZero(b []byte) bool {
	var zeros [4096]byte
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
