package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// ingest is a blob on its way into the store. A killed process leaves what it
// had, and the next goes on behind it; two that want the same wait for each
// other.
type ingest struct {
	store  *Store
	digest v1.Hash
	size   int64 // -1: not known
	file   *os.File
	sum    hash.Hash
	have   int64
	stored bool
}

// ingest begins or resumes a blob of a size in bytes, or -1. It gives nil when
// the store has it already, perhaps since another process has just fetched it.
func (s *Store) ingest(ctx context.Context, h v1.Hash, size int64) (*ingest, error) {
	if err := checkHash(h); err != nil {
		return nil, err
	}
	if s.hasBlob(h) {
		return nil, nil
	}
	f, err := s.lockFile(ctx, "ingest/"+h.Hex, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	if s.hasBlob(h) {
		os.Remove(f.Name())
		f.Close()
		return nil, nil
	}
	i := &ingest{store: s, digest: h, size: size, file: f, sum: sha256.New()}
	if i.have, err = io.Copy(i.sum, f); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot read what there is of %s: %w", h, err)
	}
	if size >= 0 && i.have > size {
		if err := i.Restart(); err != nil {
			f.Close()
			return nil, err
		}
	}
	return i, nil
}

// Have is how many bytes there are already.
func (i *ingest) Have() int64 { return i.have }

// Restart throws away what there is.
func (i *ingest) Restart() error {
	i.sum.Reset()
	i.have = 0
	if _, err := i.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return i.file.Truncate(0)
}

func (i *ingest) Write(p []byte) (int, error) {
	if i.size >= 0 && i.have+int64(len(p)) > i.size {
		return 0, bad("%s is longer than the %d bytes that it is said to have", i.digest, i.size)
	}
	n, err := i.file.Write(p)
	i.sum.Write(p[:n])
	i.have += int64(n)
	return n, err
}

// Commit puts the blob into the store if it is what its digest says. If not, it
// is a BadImageError and nothing is kept.
func (i *ingest) Commit() error {
	if i.size >= 0 && i.have != i.size {
		return fmt.Errorf("%s has %d bytes of %d: %w", i.digest, i.have, i.size, io.ErrUnexpectedEOF)
	}
	if sum := hex.EncodeToString(i.sum.Sum(nil)); sum != i.digest.Hex {
		return errors.Join(bad("what came for %s has the digest sha256:%s", i.digest, sum), i.Restart())
	}
	// A name says that the content is right: after a power cut, too.
	if err := i.file.Sync(); err != nil {
		return fmt.Errorf("cannot write %s to the disk: %w", i.digest, err)
	}
	err := os.Rename(i.file.Name(), i.store.blobPath(i.digest))
	i.stored = err == nil
	return err
}

// Close ends the work; what isn't committed is left for the next.
func (i *ingest) Close() error {
	if i.have == 0 && !i.stored {
		os.Remove(i.file.Name())
	}
	return i.file.Close()
}

// sum is a digest in the making.
type sum struct{ hash.Hash }

func newSum() sum { return sum{sha256.New()} }

func (s sum) hash() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(s.Sum(nil))}
}

// putBlob stores a blob that is read whole.
func (s *Store) putBlob(ctx context.Context, h v1.Hash, size int64, r io.Reader) error {
	i, err := s.ingest(ctx, h, size)
	if err != nil || i == nil {
		return err
	}
	defer i.Close()
	if err := i.Restart(); err != nil {
		return err
	}
	if _, err := io.Copy(i, r); err != nil {
		return err
	}
	return i.Commit()
}
