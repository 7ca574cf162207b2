package image

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fileKey tells whether a file is still the one it was. Nobody but the kernel
// sets the change time, so that a file that was written to has another key.
type fileKey struct {
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"` // nanoseconds
	Ctime int64  `json:"ctime"` // nanoseconds
}

func keyOf(f *os.File) (fileKey, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileKey{}, err
	}
	return statKey(&st), nil
}

func statKey(st *unix.Stat_t) fileKey {
	return fileKey{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
}

// cache says that the program with one key stands in the store under SHA256,
// as the file with another. It spares each `up` the hashing of both.
type cache struct {
	Version int     `json:"version"`
	Program fileKey `json:"program"`
	SHA256  string  `json:"sha256"`
	Stored  fileKey `json:"stored"`
}

const (
	cacheVersion = 1
	cacheName    = "current.json"
)

// readCache finds the root of an installed version without reading the
// program.
func readCache(dir string, program fileKey) (root string, ok bool) {
	text, err := os.ReadFile(filepath.Join(dir, cacheName))
	if err != nil {
		return "", false
	}
	var c cache
	if json.Unmarshal(text, &c) != nil || c.Version != cacheVersion || c.Program != program {
		return "", false
	}
	if sum, err := hex.DecodeString(c.SHA256); err != nil || len(sum) != 32 {
		return "", false
	}
	root = filepath.Join(dir, c.SHA256, rootfsDir)
	var st unix.Stat_t
	if unix.Lstat(filepath.Join(root, "bin", binaryName), &st) != nil || statKey(&st) != c.Stored {
		return "", false
	}
	return root, true
}

func writeCache(dir string, program fileKey, sum string) error {
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, sum, rootfsDir, "bin", binaryName), &st); err != nil {
		return err
	}
	text, err := json.Marshal(cache{cacheVersion, program, sum, statKey(&st)})
	if err != nil {
		return err
	}
	// The store's own kind of name, for removeLeftovers.
	temp, err := os.CreateTemp(dir, tempPrefix)
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(text)
	if err = errors.Join(err, temp.Chmod(0o644), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), filepath.Join(dir, cacheName))
}
