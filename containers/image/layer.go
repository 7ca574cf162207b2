package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// BadImageError says what is wrong with an image, an archive of one or a layer: it comes
// from outside and can't be used as it is.
type BadImageError struct{ Problem string }

func (e *BadImageError) Error() string { return e.Problem }

func bad(format string, args ...any) error { return &BadImageError{fmt.Sprintf(format, args...)} }

// limits bound what a layer may unpack to, and an image; beyond them it is refused.
type limits struct {
	Entries int64 // of a layer
	Bytes   int64 // of a layer's tar stream
	// Ratio is how often its own size a packed layer may unpack to, and all layers
	// of an image together, once they have more than Trusted bytes of content:
	// DEFLATE's own limit is 1032.
	Ratio   int64
	Trusted int64
}

// defaultLimits are far beyond what people's images have.
func defaultLimits() limits {
	return limits{Entries: 5_000_000, Bytes: 256 << 30, Ratio: 1100, Trusted: 64 << 20}
}

// inflated tells whether content is more than what is packed can be trusted to hold.
func (l *limits) inflated(content, packed int64) bool {
	return content > l.Trusted && content/l.Ratio > packed
}

// layerStream is a layer's tar. What is packed is unpacked by one goroutine,
// and what comes out is hashed by a second, ahead of the reader.
type layerStream struct {
	chunks  chan []byte
	free    chan []byte
	stop    chan struct{}
	current []byte // what is left of buffer
	buffer  []byte
	err     error // why chunks was closed; nil at the end of the tar
	sum     hash.Hash
	hashed  chan struct{}
	size    int64
}

var errStopped = errors.New("stopped")

const (
	chunkSize  = 256 << 10
	chunkCount = 16
)

// openLayer reads a layer's tar, packed by gzip, bzip2 or zstd or not at all, whatever
// its media type says, as others do. packed is its size.
func openLayer(blob io.Reader, packed int64, limits limits) *layerStream {
	s := &layerStream{chunks: make(chan []byte, chunkCount), free: make(chan []byte, chunkCount), stop: make(chan struct{}),
		sum: sha256.New(), hashed: make(chan struct{})}
	unhashed := make(chan []byte, chunkCount)
	for range chunkCount {
		s.free <- make([]byte, chunkSize)
	}
	go func() {
		defer close(unhashed)
		s.err = s.unpack(blob, packed, limits, unhashed)
	}()
	go func() {
		defer close(s.hashed)
		defer close(s.chunks)
		for b := range unhashed {
			s.sum.Write(b)
			select {
			case s.chunks <- b:
			case <-s.stop:
			}
		}
	}()
	return s
}

// unpack sends the tar's bytes on until its end.
func (s *layerStream) unpack(blob io.Reader, packed int64, limits limits, to chan<- []byte) error {
	r, err := decompress(blob)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		var b []byte
		select {
		case b = <-s.free:
		case <-s.stop:
			return errStopped
		}
		n, err := fillBuffer(r, b)
		s.size += int64(n)
		switch {
		case s.size > limits.Bytes:
			return bad("the layer holds more than %d bytes", limits.Bytes)
		case limits.inflated(s.size, packed):
			return bad("the layer of %d bytes unpacks to more than %d times that", packed, limits.Ratio)
		}
		if n > 0 {
			select {
			case to <- b[:n]:
			case <-s.stop:
				return errStopped
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return bad("the layer is damaged: %v", err)
		}
	}
}

// fillBuffer reads until the buffer is full; io.EOF is the stream's own end only.
func fillBuffer(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

func (s *layerStream) Read(p []byte) (int, error) {
	for len(s.current) == 0 {
		b, ok := <-s.chunks
		if !ok {
			if s.err != nil {
				return 0, s.err
			}
			return 0, io.EOF
		}
		s.current, s.buffer = b, b
	}
	n := copy(p, s.current)
	if s.current = s.current[n:]; len(s.current) == 0 {
		s.free <- s.buffer[:chunkSize]
	}
	return n, nil
}

// finish reads what lies behind the tar's end and gives the whole's digest.
func (s *layerStream) finish() (v1.Hash, error) {
	if _, err := io.Copy(io.Discard, s); err != nil {
		return v1.Hash{}, err
	}
	<-s.hashed
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(s.sum.Sum(nil))}, nil
}

// close ends the stream early, too.
func (s *layerStream) close() {
	close(s.stop)
	for range s.chunks { // until both goroutines have ended
	}
}

type packing int

const (
	notPacked packing = iota
	gzipped
	zstandard
	bzipped
	xzPacked // which nothing here unpacks
)

// packingOf looks at the first bytes (RFC 1952, RFC 8878, bzip2).
func packingOf(head []byte) packing {
	for _, k := range []struct {
		magic string
		is    packing
	}{{"\x1f\x8b\x08", gzipped}, {"\x28\xb5\x2f\xfd", zstandard}, {"BZh", bzipped}, {"\xfd7zXZ\x00", xzPacked}} {
		if bytes.HasPrefix(head, []byte(k.magic)) {
			return k.is
		}
	}
	// A zstd stream may begin with frames to be skipped.
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte("\x2a\x4d\x18")) {
		return zstandard
	}
	return notPacked
}

func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, chunkSize)
	head, err := b.Peek(6)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("cannot read the layer: %w", err)
	}
	switch packingOf(head) {
	case gzipped:
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, bad("the layer is damaged: %v", err)
		}
		return z, nil
	case zstandard:
		const window = 128 << 20 // zstd's own limit without --long
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(window), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, bad("the layer is damaged: %v", err)
		}
		return z.IOReadCloser(), nil
	case bzipped:
		return io.NopCloser(bzip2.NewReader(b)), nil
	case xzPacked:
		return nil, bad("it is packed with xz, which is not supported: unpack it with xz -d first")
	}
	return io.NopCloser(b), nil
}
