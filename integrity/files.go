package integrity

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// NoManifest is a manifest file that does not exist.
type NoManifest struct{ Path string }

func (e *NoManifest) Error() string { return "the manifest " + e.Path + " does not exist" }

// Is makes a NoManifest a kind of fs.ErrNotExist.
func (e *NoManifest) Is(target error) bool { return target == fs.ErrNotExist }

// ReadManifestFile reads a manifest. A file that does not exist is a
// *NoManifest.
func ReadManifestFile(path string) (Manifest, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NoManifest{Path: path}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read manifest: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read manifest: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("cannot read manifest %s: not a regular file", path)
	}
	m, err := Parse(f)
	if err != nil {
		return nil, fmt.Errorf("cannot read manifest %s: %w", path, err)
	}
	return m, nil
}

// WriteManifestFile writes a manifest in one step, so that a reader sees the
// old one or the new one. The file and the folders it makes belong to uid and
// gid (-1 leaves the owner). A link at path is replaced, never followed.
func WriteManifestFile(path string, m Manifest, uid, gid int) error {
	if err := writeManifestFile(path, m, uid, gid); err != nil {
		return fmt.Errorf("cannot write manifest %s: %w", path, err)
	}
	return nil
}

func writeManifestFile(path string, m Manifest, uid, gid int) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	dir, err := makeFolders(filepath.Dir(path), uid, gid)
	if err != nil {
		return err
	}
	defer dir.Close()
	base := filepath.Base(path)
	dirfd := int(dir.Fd())
	temp := "." + base + "." + rand.Text()[:12]
	fd, err := unix.Openat(dirfd, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), temp)
	err = func() error {
		if _, err := f.Write(m.Format()); err != nil {
			return err
		}
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
		return f.Sync()
	}()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = unix.Renameat(dirfd, temp, dirfd, base)
	}
	if err != nil {
		_ = unix.Unlinkat(dirfd, temp, 0)
		return err
	}
	return dir.Sync()
}

// makeFolders opens a folder and makes the missing ones on the way. The owner
// of a new one is changed through its descriptor: the folder above may belong
// to somebody who would put a link in its place.
func makeFolders(path string, uid, gid int) (*os.File, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	up := filepath.Dir(path)
	if up == path {
		return nil, err
	}
	parent, err := makeFolders(up, uid, gid)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	base := filepath.Base(path)
	mkdirErr := unix.Mkdirat(int(parent.Fd()), base, 0o755)
	if mkdirErr != nil && mkdirErr != unix.EEXIST {
		return nil, &fs.PathError{Op: "mkdir", Path: path, Err: mkdirErr}
	}
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	dir = os.NewFile(uintptr(fd), path)
	if mkdirErr == nil {
		if err := dir.Chown(uid, gid); err != nil {
			dir.Close()
			return nil, err
		}
	}
	return dir, nil
}

// AppendLog adds lines to a log that lies in a folder somebody else may write
// to: no link is followed, nothing but a regular file with one name is written
// to, and only a file made here is given to uid and gid.
func AppendLog(path string, uid, gid int, lines []string) error {
	if err := appendLog(path, uid, gid, lines); err != nil {
		return fmt.Errorf("cannot write to log %s: %w", path, err)
	}
	return nil
}

func appendLog(path string, uid, gid int, lines []string) error {
	f, created, err := openLog(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("not a regular file")
	}
	if st.Nlink > 1 {
		return errors.New("the file has several names (hard links)")
	}
	if created {
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
	}
	var b strings.Builder
	oneLine := strings.NewReplacer("\n", `\n`, "\r", `\r`)
	for _, line := range lines {
		b.WriteString(oneLine.Replace(line))
		b.WriteByte('\n')
	}
	if _, err := f.WriteString(b.String()); err != nil {
		return err
	}
	return f.Close()
}

func openLog(path string) (f *os.File, created bool, err error) {
	const flags = os.O_WRONLY | os.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY
	// Two calls tell whether the file is new; somebody may come in between.
	for range 16 {
		f, err = os.OpenFile(path, flags, 0)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, false, err
		}
		f, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o644)
		if !errors.Is(err, fs.ErrExist) {
			return f, true, err
		}
	}
	return nil, false, err
}
