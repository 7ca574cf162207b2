// Package image holds the images that stations run on: those of a Store, which
// come from registries, archives and the machine's own Docker and Podman, and the
// built-in one: the program's own static binary, which needs nothing installed
// or pulled, with a small HTTP server and a few tools to try a topology with.
package image

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// selfExe is the running program, also after its file has been deleted, as
// `go run` does.
const selfExe = "/proc/self/exe"

// Names in the image.
const (
	binaryName = "platelayer"
	rootfsDir  = "rootfs"
	tempPrefix = ".tmp-"
)

// DynamicError says that the running program is dynamically linked: its loader
// and libraries don't exist in a station's root.
type DynamicError struct{}

func (DynamicError) Error() string {
	return "this program is dynamically linked and cannot run inside stations; build it with CGO_ENABLED=0"
}

// Builtin makes sure that the running program stands in the store as the
// built-in image. root is the image's root folder, to be used as an overlay's
// lower; binary is the program in it. A dynamically linked program is a
// DynamicError.
//
// Any number of processes may call it at a time, and any may be killed: a
// version becomes visible by one rename, under a lock.
func Builtin(store string) (root, binary string, err error) {
	root, err = builtin(store, selfExe)
	if err != nil {
		return "", "", fmt.Errorf("cannot provide the built-in image: %w", err)
	}
	return root, filepath.Join(root, "bin", binaryName), nil
}

func builtin(store, program string) (root string, err error) {
	exe, err := os.Open(program)
	if err != nil {
		return "", err
	}
	defer exe.Close()
	dir := filepath.Join(store, "images", "builtin")
	key, err := keyOf(exe)
	if err != nil {
		return "", err
	}
	if root, ok := readCache(dir, key); ok {
		return root, nil
	}
	if err := checkStatic(exe); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	if root, ok := readCache(dir, key); ok {
		return root, nil
	}
	if err := removeLeftovers(dir); err != nil {
		return "", err
	}
	sum, err := hashFile(exe)
	if err != nil {
		return "", err
	}
	if root, err = install(dir, sum, exe); err != nil {
		return "", err
	}
	return root, writeCache(dir, key, sum)
}

// checkStatic looks for the program header that asks for a dynamic loader.
func checkStatic(exe io.ReaderAt) error {
	f, err := elf.NewFile(exe)
	if err != nil {
		return fmt.Errorf("cannot read the running program: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return DynamicError{}
		}
	}
	return nil
}

// lock makes the store's changes one process's at a time. The kernel gives it
// back when the process dies.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// removeLeftovers removes the temporary folders of processes that were killed:
// under the lock none can belong to a living one.
func removeLeftovers(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// install puts the version with the given checksum in place, unless it stands
// there whole.
func install(dir, sum string, exe *os.File) (root string, err error) {
	version := filepath.Join(dir, sum)
	root = filepath.Join(version, rootfsDir)
	if have, err := hashPath(filepath.Join(root, "bin", binaryName)); err == nil && have == sum {
		return root, nil
	}
	temp, err := os.MkdirTemp(dir, tempPrefix)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o755); err != nil {
		return "", err
	}
	if err := fill(filepath.Join(temp, rootfsDir), exe); err != nil {
		return "", err
	}
	if have, err := hashPath(filepath.Join(temp, rootfsDir, "bin", binaryName)); err != nil || have != sum {
		return "", errors.Join(errors.New("the copy of the program differs from the program"), err)
	}
	err = os.Rename(temp, version)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		// What stands there is damaged. A container that runs on it keeps it:
		// its overlay holds the folder, not the name.
		aside := filepath.Join(dir, tempPrefix+"damaged-"+filepath.Base(temp))
		if err := os.Rename(version, aside); err != nil {
			return "", err
		}
		defer os.RemoveAll(aside)
		err = os.Rename(temp, version)
	}
	if err != nil {
		return "", err
	}
	return root, syncDir(dir)
}

func hashPath(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return hashFile(f)
}

func hashFile(f *os.File) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
