package lifecycle

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestReadSource(t *testing.T) {
	dir := t.TempDir()
	file, large, fifo, link := filepath.Join(dir, "file"), filepath.Join(dir, "large"), filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	for _, err := range []error{
		os.WriteFile(file, []byte("text"), 0o600), os.WriteFile(large, nil, 0o600), os.Truncate(large, maxSource+1),
		syscall.Mkfifo(fifo, 0o600), os.Symlink("/dev/zero", link),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if text, err := ReadSource(file); err != nil || string(text) != "text" {
		t.Errorf("got %q, %v", text, err)
	}
	for path, want := range map[string]string{
		large: "is larger than 16 MiB", fifo: "is not a regular file", link: "is not a regular file", dir: "is not a regular file", "/dev/tty": "",
		filepath.Join(dir, "none"): "no such file",
	} {
		if text, err := ReadSource(path); err == nil || !strings.Contains(err.Error(), want) || len(text) > maxSource+1 {
			t.Errorf("%s: got %d bytes, %v", path, len(text), err)
		}
	}
}
