package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// A blob has its name only once its content is on the disk: after a power cut
// nobody would look into it.
func TestBlobsAreOnDisk(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	text := bytes.Repeat([]byte("content "), 1<<16)
	unwritten := filepath.Join(s.dir, "unwritten")
	if err := os.WriteFile(unwritten, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if !delayed(t, unwritten) {
		t.Skip("this file system doesn't tell what is on the disk")
	}
	h, n, _ := v1.SHA256(bytes.NewReader(text))
	if err := s.putBlob(ctx, h, n, bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	spooled, err := s.spool()
	if err != nil {
		t.Fatal(err)
	}
	defer spooled.Close()
	text[0] = 'C'
	adopted, _, _ := v1.SHA256(bytes.NewReader(text))
	if _, err := spooled.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := s.adopt(ctx, spooled, adopted); err != nil {
		t.Fatal(err)
	}
	packed, _, err := s.pack(ctx, v1.Descriptor{Digest: h, Size: n}, func(Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []v1.Hash{h, adopted, packed} {
		if delayed(t, s.blobPath(h)) {
			t.Errorf("%s is not on the disk", h)
		}
	}
}

// delayed tells whether a file's content has no place on the disk yet
// (Documentation/filesystems/fiemap.rst: FIEMAP_EXTENT_DELALLOC).
func delayed(t *testing.T, name string) bool {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const request, headSize, extentSize, extents = 0xc020660b, 32, 56, 16
	b := make([]byte, headSize+extents*extentSize)
	binary.NativeEndian.PutUint64(b[8:], 1<<40)
	binary.NativeEndian.PutUint32(b[24:], extents)
	if err := ioctl(f, request, b); err != nil {
		return false
	}
	for n := range binary.NativeEndian.Uint32(b[20:]) {
		const delalloc = 4
		if binary.NativeEndian.Uint32(b[headSize+n*extentSize+40:])&delalloc != 0 {
			return true
		}
	}
	return false
}

func ioctl(f *os.File, request uintptr, b []byte) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return errno
	}
	return nil
}
