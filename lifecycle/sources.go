package lifecycle

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"platelayer/containers/native"
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
	return readSource(f)
}

// read reads a file for a station, where policies let its path lead.
func (r *root) read(path string) ([]byte, error) {
	real, limited := r.real[path]
	if !limited {
		return ReadSource(path)
	}
	f, err := native.OpenPlain(real)
	if err != nil {
		return nil, err
	}
	return readSource(f)
}

func readSource(f *os.File) ([]byte, error) {
	defer f.Close()
	path := f.Name()
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
