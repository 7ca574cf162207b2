package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
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

// wanted lists the images of stations, each once.
func wanted(which []*topology.Station) []wantedImage {
	var all []wantedImage
	for _, s := range which {
		w := wantedBy(s)
		if s.Image != "" && !slices.Contains(all, w) {
			all = append(all, w)
		}
	}
	return all
}

// provideImages makes sure that the machine has the images that stations of a
// topology run on, each layer unpacked, holds them, and gives the stations what
// their images say.
func provideImages(ctx context.Context, l Layout, name string, which []*topology.Station, o ImageOptions) (Images, error) {
	list := wanted(which)
	if len(list) == 0 {
		return nil, nil
	}
	store, err := image.OpenStore(l.images())
	if err != nil {
		return nil, err
	}
	done, err := store.Use(ctx) // until they are held
	if err != nil {
		return nil, err
	}
	defer done()
	found := make(map[wantedImage]*image.Image, len(list))
	var mu sync.Mutex
	var errs []error
	var wait sync.WaitGroup
	slots := make(chan struct{}, 4)
	for _, w := range list {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			i, err := obtain(ctx, store, w, o)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("cannot provide the image %s: %w", w.name, err))
			}
			found[w] = i
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	images := Images{}
	for _, s := range which {
		if s.Image == "" {
			continue
		}
		i := found[wantedBy(s)]
		if s.Digest == "" {
			if err := s.WithImage(imageConfig(i)); err != nil {
				errs = append(errs, err)
			}
		}
		if images[i.Digest.String()] == nil {
			images[i.Digest.String()] = folders(i)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return images, holdImages(ctx, l, name, images, true)
}

// ImageOptions say how images are obtained.
type ImageOptions struct {
	Pull     string // instead of the stations' own pull_policy; may be ""
	Progress func(image.Progress)
	Notice   func(string)
}

// obtain finds an image, or fetches it as its policy says, and unpacks it.
func obtain(ctx context.Context, store *image.Store, w wantedImage, o ImageOptions) (*image.Image, error) {
	if w.digest != "" { // it has been up with that one, and is brought up again as it was
		i, err := store.Find(w.digest)
		if err != nil {
			return nil, err
		}
		return i, store.Unpack(ctx, i, image.AddOptions{Name: w.name, Progress: o.Progress})
	}
	how := image.ObtainOptions{Platform: w.platform, Progress: o.Progress, Notice: o.Notice}
	switch policy := cmp.Or(o.Pull, w.policy); policy {
	case "", topology.PullMissing:
	case topology.PullNever:
		how.Never = true
	case topology.PullAlways:
		how.Always = true
	default:
		var err error
		if how.Age, err = topology.PullAge(policy); err != nil {
			return nil, err
		}
	}
	i, err := image.Obtain(ctx, store, w.name, how)
	if err != nil {
		return nil, err
	}
	return i, store.Unpack(ctx, i, image.AddOptions{Name: w.name, Progress: o.Progress})
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
	for v := range c.Volumes {
		out.Volumes = append(out.Volumes, v)
	}
	if h := c.Healthcheck; h != nil && len(h.Test) > 0 {
		out.Healthcheck = &topology.Healthcheck{Test: healthTest(h.Test), Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries}
	}
	return out
}

// healthTest gives the command of Docker's form of it.
func healthTest(test []string) []string {
	switch {
	case test[0] == "CMD":
		return test[1:]
	case test[0] == "CMD-SHELL" && len(test) > 1:
		return []string{"/bin/sh", "-c", test[1]}
	}
	return nil
}

// holdImages keeps what a topology runs on from being pruned; besides what it
// ran on, or instead.
func holdImages(ctx context.Context, l Layout, name string, images Images, besides bool) error {
	if len(images) == 0 && !exists(l.images()) {
		return nil
	}
	store, err := image.OpenStore(l.images())
	if err != nil {
		return err
	}
	var digests []v1.Hash
	for d := range images {
		h, err := v1.NewHash(d)
		if err != nil {
			return fmt.Errorf("cannot keep the images of %q: %w", name, err)
		}
		digests = append(digests, h)
	}
	return store.Hold(ctx, name, digests, besides)
}

// releaseImages lets go of what a topology ran on.
func releaseImages(l Layout, name string) error {
	if !exists(l.images()) {
		return nil
	}
	store, err := image.OpenStore(l.images())
	if err != nil {
		return err
	}
	return store.Release(name)
}

// dropStrayHold lets go of what a launch that never began would have run on.
func dropStrayHold(l Layout, name string) {
	if !exists(l.intent(name)) {
		_ = releaseImages(l, name) // it only takes room
	}
}

// named is one value, or none.
func named(text string) []part {
	if text == "" {
		return nil
	}
	return single(word(text))
}

// shortDigest gives as much of a digest as people compare.
func shortDigest(d string) string {
	const shown = len("sha256:") + 12
	return d[:min(shown, len(d))]
}
