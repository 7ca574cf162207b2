package image

import (
	"context"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Key is the name of a layer's folder below `layers`: short, as the names of
// all layers of an image go into one mount option of 4096 bytes on kernels
// before 6.5.
func (l *Layer) Key() string {
	sum, _ := hex.DecodeString(l.ChainID.Hex) // checked by assemble
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:8])
}

// Tree is the name of an unpacked layer's tree in the layer's folder.
const Tree = "fs"

// NoLayers is the name of an empty folder of the store, the root of images that have
// no layers.
const NoLayers = "empty"

const (
	layerInfo   = "layer.json"
	asideSuffix = ".aside" // of a damaged layer in ingest that another has replaced
)

// unpacked describes an unpacked layer. The whole chain id stands here, as the
// folder's name has a part of it.
type unpacked struct {
	Version int     `json:"version"`
	ChainID v1.Hash `json:"chain_id"`
	DiffID  v1.Hash `json:"diff_id"`
	Entries int64   `json:"entries"`
	Size    int64   `json:"size"`               // of the tar, in bytes
	LeftOut int     `json:"left_out,omitempty"` // device nodes
}

const layerVersion = 1

// Tree is the folder of an unpacked layer's tree.
func (s *Store) Tree(l *Layer) string { return s.path("layers", l.Key(), Tree) }

// isUnpacked tells whether a layer is there whole.
func (s *Store) isUnpacked(l *Layer) (bool, error) {
	info, err := s.readInfo(l)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.ChainID != l.ChainID {
		return false, fmt.Errorf("the layers %s and %s have the same name in the store", info.ChainID, l.ChainID)
	}
	return info.Version == layerVersion, nil
}

// Unpacked tells whether a layer is unpacked, by what it says of itself.
func (s *Store) Unpacked(l *Layer) bool {
	there, err := s.isUnpacked(l)
	return err == nil && there
}

func (s *Store) readInfo(l *Layer) (*unpacked, error) {
	text, err := os.ReadFile(s.path("layers", l.Key(), layerInfo))
	if err != nil {
		return nil, err
	}
	info := new(unpacked)
	if err := json.Unmarshal(text, info); err != nil {
		return nil, &CorruptError{What: "layer", Digest: l.ChainID, Detail: err.Error()}
	}
	return info, nil
}

// Unpack makes sure that an image's layers are unpacked, each once for all
// images that have it. Two processes that want the same layer wait for each
// other: each locks an image's layers from the lowest up.
func (s *Store) Unpack(ctx context.Context, i *Image, o AddOptions) error {
	done, err := s.Use(ctx)
	if err != nil {
		return err
	}
	defer done()
	return s.unpack(ctx, i, &o, &batch{}, func(v1.Hash) error { return nil })
}

// unpack waits for each layer's blob before it opens it.
func (s *Store) unpack(ctx context.Context, i *Image, o *AddOptions, b *batch, wait func(v1.Hash) error) error {
	var fresh []string // folders to be published
	var locks []*os.File
	defer func() {
		// Whoever gets a lock next unpacks into the folder that it is for.
		for _, dir := range fresh {
			os.RemoveAll(dir)
		}
		for _, lock := range locks {
			os.Remove(lock.Name())
			lock.Close()
		}
	}()
	var below []string // trees, the nearest first
	var content, packed int64
	counted := map[v1.Hash]bool{}
	for n := range i.Layers {
		l := &i.Layers[n]
		there, err := s.isUnpacked(l)
		if err != nil {
			return err
		}
		if !there {
			lock, err := s.lockFile(ctx, "ingest/"+l.Key()+".lock", unix.LOCK_EX)
			if err != nil {
				return err
			}
			locks = append(locks, lock)
			if there, err = s.isUnpacked(l); err != nil {
				return err
			}
		}
		tree := s.Tree(l)
		if !there {
			if err := wait(l.Digest); err != nil {
				return err
			}
			dir := s.path("ingest", l.Key()+".layer")
			fresh, b.layers = append(fresh, dir), append(b.layers, l.Key())
			size, err := s.unpackLayer(ctx, l, dir, below, o)
			if err != nil {
				if wrong := new(BadImageError); errors.As(err, &wrong) {
					err = s.whoseFault(ctx, l, err)
				}
				return fmt.Errorf("cannot unpack the layer %s: %w", l.Digest, err)
			}
			if content += size; !counted[l.Digest] {
				counted[l.Digest], packed = true, packed+l.Size
			}
			if s.limits.inflated(content, packed) {
				return bad("its layers of %d bytes unpack to more than %d times that", packed, s.limits.Ratio)
			}
			tree = filepath.Join(dir, Tree)
		}
		below = append([]string{tree}, below...)
	}
	if len(fresh) == 0 {
		return nil
	}
	return s.publish(fresh)
}

// publish gives unpacked layers their names, after all is on the disk. A
// damaged one that has the name moves aside.
func (s *Store) publish(fresh []string) error {
	if err := syncFS(s.dir); err != nil {
		return err
	}
	for _, dir := range fresh {
		key, _, _ := strings.Cut(filepath.Base(dir), ".")
		to := s.path("layers", key)
		err := os.Rename(dir, to)
		if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
			// Stations may have the old one mounted, and whoever is about to mount it
			// finds one of the two. Prune removes it.
			aside := s.path("ingest", fmt.Sprintf("%s.%x%s", key, rand.Uint64(), asideSuffix))
			if err = os.Rename(dir, aside); err == nil {
				err = unix.Renameat2(unix.AT_FDCWD, aside, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
			}
		}
		if err != nil {
			return err
		}
	}
	return syncDir(s.path("layers"))
}

func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("cannot write the images to disk: %w", err)
	}
	return nil
}

// unpackLayer unpacks a layer into a folder of its own. below are the trees of
// the layers under it, the nearest first. It gives the size of the tar, in bytes.
func (s *Store) unpackLayer(ctx context.Context, l *Layer, dir string, below []string, o *AddOptions) (int64, error) {
	blob, err := s.openBlob(l.Digest)
	if err != nil {
		return 0, err
	}
	defer blob.Close()
	if err := os.RemoveAll(dir); err != nil { // of a process that was killed
		return 0, err
	}
	tree := filepath.Join(dir, Tree)
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return 0, err
	}
	u := &unpacker{root: -1, limits: s.limits}
	defer u.close()
	if u.root, err = unix.Open(tree, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return 0, err
	}
	for _, b := range below {
		fd, err := unix.Open(b, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		u.parents = append(u.parents, fd)
	}
	if err := u.rootAsBelow(); err != nil {
		return 0, err
	}
	o.tell(Progress{Digest: l.Digest, Total: l.Size, Stage: StageUnpacking})
	sum, size, err := u.unpackBlob(ctx, blob, l.Size)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%w in %s", err, s.dir)
	}
	if err != nil {
		return 0, err
	}
	if sum != l.DiffID {
		return 0, bad("its content has the digest %s; the image's configuration says %s", sum, l.DiffID)
	}
	o.tell(Progress{Digest: l.Digest, Done: l.Size, Total: l.Size, Stage: StageDone})
	text, err := json.Marshal(unpacked{layerVersion, l.ChainID, l.DiffID, u.entries, size, u.leftOut})
	if err != nil {
		return 0, err
	}
	return size, os.WriteFile(filepath.Join(dir, layerInfo), text, 0o600)
}

// unpackBlob unpacks a layer's blob of a size in bytes, packed or not, and gives
// the digest and the size of the tar in it.
func (u *unpacker) unpackBlob(ctx context.Context, blob io.Reader, size int64) (v1.Hash, int64, error) {
	stream := openLayer(blob, size, u.limits)
	defer stream.close()
	if err := u.unpackTar(ctx, stream); err != nil {
		return v1.Hash{}, 0, err
	}
	sum, err := stream.finish()
	return sum, stream.size, err
}

// whoseFault tells an image that was made wrong from one that was damaged in
// the store.
func (s *Store) whoseFault(ctx context.Context, l *Layer, err error) error {
	if damaged := s.checkBlob(ctx, l.Digest, nil); damaged != nil {
		return damaged
	}
	return err
}

func (u *unpacker) close() {
	for _, fd := range append(u.parents, u.root) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// rootAsBelow gives the root folder what the layer below says of it: the
// archive needn't have an entry for it.
func (u *unpacker) rootAsBelow() error {
	if len(u.parents) == 0 {
		u.folders = append(u.folders, folderTimes{name: "."})
		return unix.Fchmod(u.root, 0o755) // whatever the umask is
	}
	var st unix.Stat_t
	if err := unix.Fstat(u.parents[0], &st); err != nil {
		return err
	}
	if err := copyNodeAttributes(u.parents[0], u.root, &st); err != nil {
		return err
	}
	u.folders = append(u.folders, timesIn(".", &st))
	return nil
}
