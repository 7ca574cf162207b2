package image

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Store is the images of a machine: an OCI image layout (OCI image-layout.md),
// and beside it the layers unpacked, each once for all that use it. Any number
// of processes may use it at a time, and any may be killed: what counts appears
// by one rename.
//
//	oci-layout, index.json     the names of the images
//	blobs/sha256/HEX           manifests, configurations, packed layers
//	ingest/                    what is being fetched or unpacked, one file or folder and its lock each
//	layers/KEY/                a layer, unpacked; KEY is of its chain id
//	holds/NAME                 the images that a topology runs
//	empty/                     what an image without layers has
type Store struct {
	dir    string
	limits limits
}

// OpenStore gives the store in a folder, and makes it where there is none.
func OpenStore(dir string) (*Store, error) {
	for _, d := range []string{"blobs/sha256", "ingest", "layers", "holds"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("cannot make the image store: %w", err)
		}
	}
	err := os.Mkdir(filepath.Join(dir, NoLayers), 0o755)
	if err == nil {
		err = os.Chmod(filepath.Join(dir, NoLayers), 0o755) // whatever the umask is
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot make the image store: %w", err)
	}
	s := &Store{dir: dir, limits: defaultLimits()}
	if _, err := os.Lstat(s.path("oci-layout")); errors.Is(err, fs.ErrNotExist) {
		if err := s.write("oci-layout", []byte(layoutVersion)); err != nil {
			return nil, fmt.Errorf("cannot make the image store: %w", err)
		}
	}
	if err := s.beginIndex(); err != nil {
		return nil, fmt.Errorf("cannot make the image store: %w", err)
	}
	return s, nil
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (s *Store) blobPath(h v1.Hash) string { return s.path("blobs", h.Algorithm, h.Hex) }

// write replaces a small file of the store at once.
func (s *Store) write(name string, text []byte) error {
	f, err := os.CreateTemp(s.path("ingest"), tempPrefix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), s.path(name))
}

// checkHash refuses what is no SHA-256 digest before it becomes part of a path.
func checkHash(h v1.Hash) error {
	if b, err := hex.DecodeString(h.Hex); h.Algorithm != "sha256" || err != nil || len(b) != 32 || strings.ToLower(h.Hex) != h.Hex {
		return bad("%q is not a SHA-256 digest", shorten(h.String()))
	}
	return nil
}

// lockFile waits for the lock on a file below the store, which it makes. The
// kernel gives it back when the process dies.
func (s *Store) lockFile(ctx context.Context, name string, how int) (*os.File, error) {
	for {
		f, err := os.OpenFile(s.path(name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := waitLock(ctx, f, how); err != nil {
			f.Close()
			return nil, fmt.Errorf("cannot lock %s: %w", f.Name(), err)
		}
		// Whoever had it may have removed the file.
		if mine, err := f.Stat(); err == nil {
			if there, err := os.Lstat(f.Name()); err == nil && os.SameFile(mine, there) {
				return f, nil
			}
		}
		f.Close()
	}
}

func waitLock(ctx context.Context, f *os.File, how int) error {
	const pause = 20 * time.Millisecond
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
		default:
			return err
		}
	}
}

// Use keeps Prune away while what is fetched, or about to be run, has no name
// and no hold yet.
func (s *Store) Use(ctx context.Context) (done func(), err error) {
	f, err := s.lockFile(ctx, ".use", unix.LOCK_SH)
	if errors.Is(err, unix.EROFS) { // nobody can
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// hasBlob tells whether the store has a blob, by its name.
func (s *Store) hasBlob(h v1.Hash) bool {
	if checkHash(h) != nil {
		return false
	}
	_, err := os.Lstat(s.blobPath(h))
	return err == nil
}

// openBlob opens a blob of the store. Its content was right when it was stored.
func (s *Store) openBlob(h v1.Hash) (*os.File, error) {
	if err := checkHash(h); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.blobPath(h), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &MissingError{h}
	}
	if errors.Is(err, unix.ELOOP) {
		return nil, &CorruptError{What: "blob", Digest: h, Detail: "it is a link"}
	}
	return f, err
}

// MissingError is a blob that an image names and the store doesn't have.
type MissingError struct{ Digest v1.Hash }

func (e *MissingError) Error() string {
	return fmt.Sprintf("the store has no %s", e.Digest)
}

// UnfitError is a store on a file system that can't hold what images are of:
// another overlay, or one without attributes.
type UnfitError struct {
	What string
	Err  error
}

func (e *UnfitError) Error() string {
	return fmt.Sprintf("the image store's file system can't hold %s: %v", e.What, e.Err)
}

func (e *UnfitError) Unwrap() error { return e.Err }

func unfit(what string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) {
		return &UnfitError{what, err}
	}
	return err
}

// CorruptError is a blob or an unpacked layer that isn't what its digest says.
type CorruptError struct {
	What   string // "blob" or "layer"
	Digest v1.Hash
	Detail string
}

func (e *CorruptError) Error() string {
	text := fmt.Sprintf("the %s %s is damaged", e.What, e.Digest)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// checkBlob compares a blob with its digest. tell may be nil.
func (s *Store) checkBlob(ctx context.Context, h v1.Hash, tell func(Progress)) error {
	f, err := s.openBlob(h)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return &CorruptError{What: "blob", Digest: h, Detail: "it is not a file"}
	}
	sum, _, err := v1.SHA256(&toldReader{Reader: &untilDone{ctx, f}, at: Progress{Digest: h, Total: st.Size(), Stage: StageChecking}, tell: tell})
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", h, err)
	}
	if sum != h {
		return &CorruptError{What: "blob", Digest: h, Detail: "it has the digest " + sum.String()}
	}
	return nil
}

// maxDocument bounds manifests and configurations; registries take no more
// (OCI distribution, "Pushing Manifests").
const maxDocument = 4 << 20

// document reads a manifest or a configuration, and checks it against its digest.
func (s *Store) document(h v1.Hash) ([]byte, error) {
	f, err := s.openBlob(h)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", h, err)
	}
	if len(text) > maxDocument {
		return nil, bad("%s is larger than a manifest may be", h)
	}
	if hashOf(text) != h {
		return nil, &CorruptError{What: "blob", Digest: h}
	}
	return text, nil
}
