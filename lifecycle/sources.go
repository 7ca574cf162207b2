package lifecycle

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// maxSource bounds a file that a topology has read, in bytes.
const maxSource = 16 << 20

// ReadSource reads a file that a topology file names. Reading must harm nobody,
// whatever is named: a FIFO does not block, a device is not read, and memory is
// not filled.
func ReadSource(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err == nil && len(data) > maxSource {
		err = fmt.Errorf("%s is larger than %d MiB", path, maxSource>>20)
	}
	return data, err
}
