package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
	"platelayer/containers/native"
	"platelayer/policy"
	"platelayer/topology"
)

// BundleLoadOptions are the choices of `bundle load`.
type BundleLoadOptions struct {
	Dir      string // the project's folder; "" is the topology's name
	Digest   string // that the bundle must have; "" is any
	Progress func(image.Progress)
	// Load reads the topology file when it is there, and lists what else it read.
	Load func(file string) (t *topology.Topology, read []string, err error)
}

// OtherBundle is not the bundle that was asked for.
type OtherBundle struct{ Got, Wanted string }

func (e *OtherBundle) Error() string {
	return fmt.Sprintf("the bundle is %s, not %s", e.Got, e.Wanted)
}

// LoadBundle makes a project's folder of a bundle, and brings its images and
// volumes. It closes r. Nothing is written but below the folder, which is new or
// empty, and in the program's own state; all of it is there then, or nothing.
func LoadBundle(ctx context.Context, l Layout, r *os.File, o BundleLoadOptions) (*Bundled, string, error) {
	if err := needRoot("load a bundle"); err != nil {
		r.Close()
		return nil, "", err
	}
	store, err := image.OpenStore(l.images())
	if err != nil {
		r.Close()
		return nil, "", err
	}
	b, err := store.OpenBundle(ctx, r)
	if err != nil {
		return nil, "", err
	}
	defer b.Close()
	b.Progress = o.Progress
	if o.Digest != "" && o.Digest != b.Digest.String() {
		return nil, "", &OtherBundle{b.Digest.String(), o.Digest}
	}
	c, images, err := readBundleConfig(b)
	if err != nil {
		return nil, "", err
	}
	dir := o.Dir
	if dir == "" {
		dir = c.Name
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, "", err
	}
	place, err := vacant(dir)
	if err != nil {
		return nil, "", err
	}
	// Beside its place, under the same name: that may become the topology's.
	temp, drop, err := newTemp(filepath.Dir(dir), ".platelayer-bundle-")
	if err != nil {
		return nil, "", err
	}
	defer drop()
	project := filepath.Join(temp, filepath.Base(dir))
	if err := fillProject(ctx, b, c, project); err != nil {
		return nil, "", err
	}
	t, read, err := o.Load(filepath.Join(project, c.File))
	if err != nil {
		return nil, "", err
	}
	if err := staysInside(t, project, read); err != nil {
		return nil, "", err
	}
	volumes, dropVolumes, err := fillVolumes(ctx, l, b, c, t)
	defer dropVolumes()
	if err != nil {
		return nil, "", err
	}
	if err := b.LoadImages(ctx, images, o.Progress); err != nil {
		return nil, "", err
	}
	if len(volumes) > 0 { // which another load of it may have made meanwhile
		unlock, err := lockSoon(ctx, l, t.Name)
		if err != nil {
			return nil, "", err
		}
		defer unlock()
	}
	for _, v := range volumes {
		if err := v.free(); err != nil {
			return nil, "", err
		}
	}
	if err := place(project); err != nil {
		return nil, "", err
	}
	for _, v := range volumes {
		if err := os.Rename(v.from, v.to); err != nil {
			return nil, "", err
		}
	}
	return c.bundled(b.Digest), dir, nil
}

// readBundleConfig reads what a bundle says of itself, and checks it.
func readBundleConfig(b *image.Bundle) (*bundleConfig, map[string]v1.Hash, error) {
	refuse := func(format string, args ...any) (*bundleConfig, map[string]v1.Hash, error) {
		return nil, nil, &image.BadImageError{Problem: "the bundle is not valid: " + fmt.Sprintf(format, args...)}
	}
	c := new(bundleConfig)
	d := json.NewDecoder(bytes.NewReader(b.Config))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return refuse("%v", err)
	}
	if c.Version != bundleVersion {
		return refuse("it has version %d, this program knows %d", c.Version, bundleVersion)
	}
	if checkName(c.Name) != nil {
		return refuse("%.60q is not a topology's name", c.Name)
	}
	if c.File == "" || filepath.Base(c.File) != c.File || !filepath.IsLocal(c.File) || c.File == "." || topology.OneLine(c.File) != c.File {
		return refuse("%.60q is not a topology file's name", c.File)
	}
	images := map[string]v1.Hash{}
	for _, i := range c.Images {
		ref, err := image.ParseReference(i.Name)
		h, hashErr := v1.NewHash(i.Digest)
		if err != nil || hashErr != nil || ref.String() != i.Name {
			return refuse("%.100q is not an image with its digest", i.Name+" "+i.Digest)
		}
		if ref.Digest != "" && ref.Digest != i.Digest {
			return refuse("the image %s is said to be %s", i.Name, i.Digest)
		}
		if _, twice := images[i.Name]; twice {
			return refuse("the image %s is in it twice", i.Name)
		}
		images[i.Name] = h
	}
	wanted := []string{partFiles}
	for _, key := range c.Volumes {
		wanted = append(wanted, partVolume+key)
	}
	have := slices.DeleteFunc(b.Parts(), func(title string) bool { return title == partFolders })
	slices.Sort(have)
	slices.Sort(wanted)
	if !slices.Equal(have, wanted) || len(b.Parts()) > len(wanted)+1 {
		return refuse("it has the parts %.200q", b.Parts())
	}
	return c, images, nil
}

// vacant makes sure that a folder is new or empty, and gives what puts another
// in its place.
func vacant(dir string) (place func(string) error, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case len(entries) > 0:
		return nil, fmt.Errorf("the folder %s is not empty", dir)
	}
	return func(made string) error {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) { // only an empty one goes
			return err
		}
		return os.Rename(made, dir)
	}, nil
}

// fillProject unpacks a project's folder. It belongs to the invoking user, and
// nobody else may enter it: what stations have of it may be programs with
// set-user-ID bits that the bundle's maker chose.
func fillProject(ctx context.Context, b *image.Bundle, c *bundleConfig, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	uid, gid := Invoker()
	if slices.Contains(b.Parts(), partFolders) {
		if err := b.Unpack(ctx, partFolders, dir, nil); err != nil {
			return fmt.Errorf("cannot unpack the project: %w", err)
		}
	}
	if err := b.Unpack(ctx, partFiles, dir, &image.Owner{UID: uid, GID: gid}); err != nil {
		return fmt.Errorf("cannot unpack the project: %w", err)
	}
	if err := errors.Join(os.Chown(dir, uid, gid), os.Chmod(dir, 0o700)); err != nil {
		return err
	}
	info, err := os.Lstat(filepath.Join(dir, c.File))
	if err != nil || !info.Mode().IsRegular() {
		return &image.BadImageError{Problem: fmt.Sprintf("the bundle has no topology file %q", c.File)}
	}
	return nil
}

// filledVolume is a volume of a bundle's under a name that nobody looks for yet.
type filledVolume struct{ from, to string }

func (v filledVolume) free() error {
	if !exists(v.to) {
		return nil
	}
	name := filepath.Base(v.to)
	if owner, err := os.ReadFile(filepath.Join(v.to, volumeOwner)); err == nil && len(owner) > 0 {
		return fmt.Errorf("there is a volume %q already: platelayer down --volumes %s removes it", name, owner)
	}
	return fmt.Errorf("there is a volume %q already", name)
}

// staysInside refuses what looks like a part of the project and is, through a link
// of the bundle's, the machine's: nobody who reads the topology file sees that.
// Links that only stations come upon lead to files of their own.
func staysInside(t *topology.Topology, project string, read []string) error {
	paths := append(read, filepath.Join(project, ".env"), LockOf(t.File()))
	for _, s := range t.Stations() {
		paths = append(paths, s.Rootfs, s.Security.Seccomp, s.Integrity.Manifest)
		for _, v := range s.Volumes {
			paths = append(paths, v.Source)
		}
		for _, f := range s.Files {
			paths = append(paths, f.Source)
		}
	}
	top := realFolder(project)
	for _, path := range paths {
		rel, err := filepath.Rel(project, path)
		if err != nil || !filepath.IsLocal(rel) {
			continue // it says so itself
		}
		real, err := policy.Resolve(path)
		if err != nil || real != top && !strings.HasPrefix(real, top+"/") {
			return &image.BadImageError{Problem: fmt.Sprintf("the bundle's %.200q is a link that leads out of it, or behind one", rel)}
		}
	}
	return nil
}

// fillVolumes unpacks volumes; drop removes those that are not put into their
// places.
func fillVolumes(ctx context.Context, l Layout, b *image.Bundle, c *bundleConfig, t *topology.Topology) (filled []filledVolume, drop func(), err error) {
	var drops []func()
	var places []string
	drop = func() {
		for _, one := range drops {
			one()
		}
	}
	for _, key := range c.Volumes {
		if !slices.ContainsFunc(t.Volumes, func(v topology.NamedVolume) bool { return v.Key == key && !v.External }) {
			return nil, drop, &image.BadImageError{Problem: fmt.Sprintf("the bundle's topology file has no volume %.60q", key)}
		}
		name := volumeName(t, key)
		to := filepath.Join(l.volumes(), name)
		if name == "" || strings.ContainsRune(name, '/') || strings.HasPrefix(name, ".") {
			return nil, drop, &image.BadImageError{Problem: fmt.Sprintf("%.60q is not a volume's name", name)}
		}
		if slices.Contains(places, to) {
			return nil, drop, &image.BadImageError{Problem: fmt.Sprintf("the volume %.60q is in it twice", name)}
		}
		places = append(places, to)
		v := filledVolume{to: to}
		if err := v.free(); err != nil {
			return nil, drop, err
		}
		if err := os.MkdirAll(l.volumes(), 0o700); err != nil {
			return nil, drop, err
		}
		temp, dropOne, err := newTemp(l.volumes(), ".bundle-")
		if err != nil {
			return nil, drop, err
		}
		drops = append(drops, dropOne)
		data := filepath.Join(temp, volumeData)
		if err := os.Mkdir(data, 0o755); err != nil {
			return nil, drop, err
		}
		if err := b.Unpack(ctx, partVolume+key, data, nil); err != nil {
			return nil, drop, fmt.Errorf("cannot unpack the volume %q: %w", key, err)
		}
		if err := os.WriteFile(filepath.Join(temp, volumeOwner), []byte(t.Name), 0o600); err != nil {
			return nil, drop, err
		}
		v.from = temp
		filled = append(filled, v)
	}
	return filled, drop, nil
}

// newTemp makes a folder in another until drop removes it, and removes those of
// processes that were killed: the lock of its maker is on each.
func newTemp(in, prefix string) (dir string, drop func(), err error) {
	entries, err := os.ReadDir(in)
	if err != nil {
		return "", nil, err
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		old := filepath.Join(in, e.Name())
		// The folder may be one that others may write to.
		if f, err := os.OpenFile(old, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0); err == nil {
			info, err := f.Stat()
			own := err == nil && info.Sys().(*syscall.Stat_t).Uid == uint32(os.Geteuid())
			if own && syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
				_ = native.RemoveAll(old) // it only takes room
			}
			f.Close()
		}
	}
	for {
		if dir, err = os.MkdirTemp(in, prefix); err != nil {
			return "", nil, err
		}
		f, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // another has taken it for a dead one's
		}
		if err == nil {
			err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		}
		if err != nil {
			return "", nil, err
		}
		if !exists(dir) {
			f.Close()
			continue
		}
		return dir, func() {
			_ = native.RemoveAll(dir)
			f.Close()
		}, nil
	}
}
