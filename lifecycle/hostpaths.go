package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// makeHostPath makes a folder of the machine's that create_host_path asks for,
// and notes which were missing.
func (k *keeper) makeHostPath(path string) error {
	var missing []string
	for dir := filepath.Clean(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, dir)
	}
	k.mu.Lock()
	k.hostPaths = append(k.hostPaths, missing...)
	k.mu.Unlock()
	return os.MkdirAll(path, 0o755)
}

// keepHostPaths has what was made outlive what comes later.
func (k *keeper) keepHostPaths() {
	k.mu.Lock()
	k.hostPaths = nil
	k.mu.Unlock()
}

// dropHostPaths removes what was made for a launch or a change that is refused,
// but for folders in which there is something now.
func (k *keeper) dropHostPaths() error {
	k.mu.Lock()
	paths := k.hostPaths
	k.hostPaths = nil
	k.mu.Unlock()
	// A folder's path is longer than those of the folders that it lies in.
	slices.SortFunc(paths, func(a, b string) int { return len(b) - len(a) })
	var errs []error
	for _, path := range slices.Compact(paths) {
		if info, err := os.Lstat(path); err != nil || !info.IsDir() {
			continue
		}
		err := os.Remove(path)
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) { // the first is ENOTEMPTY
			errs = append(errs, fmt.Errorf("cannot remove a volume's source again: %w", err))
		}
	}
	return errors.Join(errs...)
}
