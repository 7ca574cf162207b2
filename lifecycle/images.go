package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
	"platelayer/containers/native"
	"platelayer/topology"
)

// Images tells of each image that stations run on, by its digest, the folders
// of its layers below Layout.layers, the topmost first.
type Images map[string][]string

// wantedImage is an image as stations name it.
type wantedImage struct{ name, platform, policy, digest string }

func wantedBy(s *topology.Station) wantedImage {
	return wantedImage{s.Image, s.Platform, s.PullPolicy, s.Digest}
}

// asked tells whether a registry is asked although the image is here.
func (w wantedImage) asked(pull string) bool {
	return !slices.Contains([]string{"", topology.PullMissing, topology.PullNever}, cmp.Or(pull, w.policy))
}

// wanted lists the images of stations, each once.
func wanted(which []*topology.Station, by func(*topology.Station) wantedImage) []wantedImage {
	var all []wantedImage
	for _, s := range which {
		w := by(s)
		if s.Image != "" && !slices.Contains(all, w) {
			all = append(all, w)
		}
	}
	return all
}

// ImageOptions say how images are obtained, and from whom.
type ImageOptions struct {
	Pull     string // instead of the stations' own pull_policy; may be ""
	Registry func() (*image.Registry, error)
	Local    image.Local
	Progress func(image.Progress)         // called from several goroutines; may be nil
	Finished func(name string, err error) // an image is there, or isn't; the same
	Notice   func(string)                 // the same

	carried bool // they are to run elsewhere: what a platform is asked for may be another's

	gate *gate             // what images must pass; nil is none
	stay map[string]string // the digests that stations have and keep, by their ids
}

// wantedBy is what a station's image must be.
func (o *ImageOptions) wantedBy(s *topology.Station) wantedImage {
	w := wantedBy(s)
	w.digest = cmp.Or(w.digest, o.stay[s.ID()])
	return w
}

// staying gives the digests that stations of a topology which is up keep, though
// the names of their images mean others by now, where only some are to be touched.
func staying(l Layout, t *topology.Topology, o UpOptions) map[string]string {
	if o.Only == nil {
		return nil
	}
	found, err := look(l, t.Name)
	if err != nil || !found.running {
		return nil // up tells what it finds
	}
	family := func(s *topology.Station) string { return s.Cluster + "/" + cmp.Or(s.Group, s.Name) }
	stay := map[string]string{}
	for _, s := range t.Stations() {
		if !o.SameImages && slices.Contains(o.Only, s.ID()) {
			continue
		}
		for _, have := range found.intent.Topology.Stations() {
			if have.Image != s.Image || have.Platform != s.Platform {
				continue
			}
			if have.ID() == s.ID() {
				stay[s.ID()] = have.Digest
				break
			}
			if o.SameImages && family(have) == family(s) {
				stay[s.ID()] = have.Digest
			}
		}
	}
	return stay
}

// ForeignImage is an image for machines of another kind.
type ForeignImage struct{ Image, MadeFor, Machine string }

func (e *ForeignImage) Error() string {
	return fmt.Sprintf("cannot run the image %s: it is made for %s, and this machine is %s", e.Image, e.MadeFor, e.Machine)
}

// provideImages makes sure that the machine has the images that stations run on,
// each layer unpacked, and gives the stations what their images say. Nothing of
// them is pruned until done is called; by then they are to be held.
func provideImages(ctx context.Context, l Layout, which []*topology.Station, o ImageOptions) (images Images, done func(), err error) {
	done = func() {}
	if len(wanted(which, wantedBy)) == 0 {
		return nil, done, nil
	}
	store, err := image.OpenStore(l.images())
	if err != nil {
		return nil, done, err
	}
	used, err := store.Use(ctx)
	if err != nil {
		return nil, done, err
	}
	done = sync.OnceFunc(used)
	if images, err = settleImages(ctx, store, which, o); err != nil {
		done()
	}
	return images, done, err
}

// noteImages gives stations what the images say that are here under their names
// now, for a look at what `up` would do. One whose image isn't here is left
// without. A lock is heeded as by up.
func noteImages(l Layout, t *topology.Topology) error {
	which := t.Stations()
	g := &gate{}
	if file := t.File(); file != "" {
		var err error
		if g.lock, err = ReadLock(LockOf(file)); err != nil {
			return err
		}
	}
	if len(wanted(which, wantedBy)) == 0 || !exists(l.images()) {
		return nil
	}
	store, err := image.OpenStore(l.images())
	if err != nil {
		return err
	}
	for _, s := range which {
		if s.Image == "" || s.Digest != "" {
			continue
		}
		p, err := platformOf(s.Platform)
		if err != nil {
			return err
		}
		name, err := g.pinned(wantedBy(s))
		if err != nil {
			return err
		}
		i, err := store.Here(name, p)
		if err != nil {
			return err
		}
		if i == nil {
			continue
		}
		if err := s.WithImage(imageConfig(i)); err != nil {
			return err
		}
	}
	return nil
}

// PlannedImage is an image that `up` needs.
type PlannedImage struct {
	Name     string   `json:"name"`
	Digest   string   `json:"digest,omitempty"` // "" where it isn't here
	Stations []string `json:"stations"`         // ids
}

// PlannedImages lists the images of a topology as they are here now; nobody but
// root can see which.
func PlannedImages(l Layout, t *topology.Topology) ([]PlannedImage, error) {
	all := t.Stations()
	if os.Geteuid() == 0 {
		if err := noteImages(l, t); err != nil {
			return nil, err
		}
	}
	var list []PlannedImage
	for _, s := range all {
		if s.Image == "" {
			continue
		}
		n := slices.IndexFunc(list, func(p PlannedImage) bool { return p.Name == s.Image && p.Digest == s.Digest })
		if n < 0 {
			n = len(list)
			list = append(list, PlannedImage{Name: s.Image, Digest: s.Digest})
		}
		list[n].Stations = append(list[n].Stations, s.ID())
	}
	return list, nil
}

// settleImages finds out which image each station runs on, and gives it what the
// image says.
func settleImages(ctx context.Context, store *image.Store, which []*topology.Station, o ImageOptions) (Images, error) {
	found, err := obtainAll(ctx, store, wanted(which, o.wantedBy), o)
	if err != nil {
		return nil, err
	}
	images := Images{}
	var errs []error
	for _, s := range which {
		i := found[o.wantedBy(s)]
		if i == nil {
			continue
		}
		if s.Digest == "" {
			if err := s.WithImage(imageConfig(i)); err != nil {
				errs = append(errs, err)
			}
		}
		if images[i.Digest.String()] == nil {
			images[i.Digest.String()] = folders(i)
		}
	}
	return images, errors.Join(errors.Join(errs...), topology.CheckHealth(which))
}

// obtainAll obtains several at a time, and tells of all that can't be.
func obtainAll(ctx context.Context, store *image.Store, list []wantedImage, o ImageOptions) (map[wantedImage]*image.Image, error) {
	found := make(map[wantedImage]*image.Image, len(list))
	var mu sync.Mutex
	failed := make([]error, len(list))
	var wait sync.WaitGroup
	const atOnce = 4
	slots := make(chan struct{}, atOnce)
	// What registries are asked for comes first, so that a name means one image for
	// those that take what is here.
	for _, asked := range []bool{true, false} {
		for n, w := range list {
			if w.asked(o.Pull) != asked {
				continue
			}
			slots <- struct{}{}
			wait.Go(func() {
				defer func() { <-slots }()
				i, err := obtain(ctx, store, w, o)
				if o.Finished != nil {
					o.Finished(w.name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				found[w], failed[n] = i, err
			})
		}
		wait.Wait()
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("interrupted while images came, and nothing was touched: the next one goes on from there: %w", context.Cause(ctx))
	}
	return found, errors.Join(slices.CompactFunc(failed, func(a, b error) bool { return a != nil && b != nil && a.Error() == b.Error() })...)
}

// obtain finds an image, or fetches it as its policy says, and unpacks it.
func obtain(ctx context.Context, store *image.Store, w wantedImage, o ImageOptions) (*image.Image, error) {
	i, err := findOrFetch(ctx, store, w, o)
	var none *image.NoPlatformError
	switch {
	case errors.As(err, &none) && len(none.Have) > 0 && w.platform == "":
		return nil, &ForeignImage{w.name, strings.Join(none.Have, ", "), none.Wanted.String()}
	case err != nil:
		return nil, fmt.Errorf("cannot provide the image %s: %w", w.name, err)
	}
	machine := image.MachinePlatform()
	if !i.Fits(machine) && !native.Emulates(i.Config.Architecture) && (!o.carried || w.platform == "") {
		return nil, &ForeignImage{w.name, i.MadeFor(), machine.String()}
	}
	return i, nil
}

func findOrFetch(ctx context.Context, store *image.Store, w wantedImage, o ImageOptions) (*image.Image, error) {
	if w.digest != "" { // it has been up with that one, and is brought up again as it was
		i, err := broughtUpWith(store, w)
		if err == nil {
			err = o.gate.pass(ctx, w, i.Digest, i.Index)
		}
		if err != nil {
			return nil, err
		}
		return i, store.Unpack(ctx, i, image.AddOptions{Name: w.name, Progress: o.Progress})
	}
	how := image.ObtainOptions{Registry: o.Registry, Local: o.Local, Progress: o.Progress, Notice: o.Notice}
	how.Check = func(ctx context.Context, digest, index v1.Hash) error { return o.gate.pass(ctx, w, digest, index) }
	var err error
	if w.platform != "" {
		if how.Platform, err = image.ParsePlatform(w.platform); err != nil {
			return nil, err
		}
	}
	switch policy := cmp.Or(o.Pull, w.policy); policy {
	case "", topology.PullMissing:
	case topology.PullNever:
		how.Never = true
	case topology.PullAlways:
		how.Always = true
	default:
		if how.MaxAge, err = topology.PullAge(policy); err != nil {
			return nil, err
		}
		how.MaxAge = max(how.MaxAge, 1) // every_0s is always, but for a registry that doesn't answer
	}
	name, err := o.gate.pinned(w)
	if err != nil {
		return nil, err
	}
	if name == w.name {
		return image.Obtain(ctx, store, name, how)
	}
	if o.Progress != nil {
		how.Progress = func(p image.Progress) {
			if ref, err := image.ParseReference(w.name); err == nil {
				p.Image = ref.String() // as the file calls it
			}
			o.Progress(p)
		}
	}
	i, err := image.Obtain(ctx, store, name, how)
	if err != nil {
		err = o.gate.explain(store, w, err)
	}
	return i, err
}

// broughtUpWith finds the image that a station has, under the name that the file
// has for it while that still means it: that says of which index it is.
func broughtUpWith(store *image.Store, w wantedImage) (*image.Image, error) {
	p, err := platformOf(w.platform)
	if err != nil {
		return nil, err
	}
	if i, err := store.Here(w.name, p); err == nil && i != nil && i.Digest.String() == w.digest {
		return i, nil
	}
	return store.Find(w.digest)
}

// folders lists where an image's layers are, the topmost first.
func folders(i *image.Image) []string {
	var all []string
	for n := range i.Layers {
		all = append(all, path.Join(i.Layers[n].Key(), image.Tree))
	}
	slices.Reverse(all)
	return all
}

// imageConfig gives an image's configuration in the topology's terms.
func imageConfig(i *image.Image) *topology.ImageConfig {
	c := &i.Config.Config
	out := &topology.ImageConfig{Digest: i.Digest.String(), Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir,
		StopSignal: c.StopSignal, Labels: c.Labels}
	for p := range c.ExposedPorts {
		out.Exposed = append(out.Exposed, p)
	}
	for v := range c.Volumes {
		out.Volumes = append(out.Volumes, v)
	}
	if h := c.Healthcheck; h != nil && len(h.Test) > 0 {
		out.Healthcheck = &topology.Healthcheck{Test: healthTest(h.Test, c.Shell), Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod,
			StartInterval: i.StartInterval, Retries: h.Retries}
	}
	return out
}

// healthTest gives the command of Docker's form of it; nil is none.
func healthTest(test, shell []string) []string {
	switch {
	case test[0] == "CMD":
		return test[1:]
	case test[0] == "CMD-SHELL" && len(test) > 1:
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return append(slices.Clone(shell), test[1])
	}
	return nil
}
