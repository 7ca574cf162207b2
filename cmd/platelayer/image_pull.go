package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"platelayer/containers/image"
	"platelayer/lifecycle"
)

func (a *app) imagePullCommand() *cobra.Command {
	var platform string
	var plainHTTP bool
	c := a.jsonFlag(&cobra.Command{
		Use:   "pull IMAGE...",
		Short: "Fetch images from registries, and unpack them",
		Long: `Fetch images from registries, and unpack them. What the store has is not fetched
again; a transfer that breaks off goes on where it was, in the next pull too.

Credentials are those that the invoking user has given docker or podman, under
sudo too. /etc/platelayer/registries.yaml names mirrors, and registries without
TLS. The digest of each image is printed, alone with --quiet.`,
		Example: `  platelayer image pull postgres:17
  platelayer image pull registry.example:5000/shop/web@sha256:...`,
		Args:              atLeast(1, "which image? platelayer image pull IMAGE..."),
		ValidArgsFunction: a.completeImages,
		RunE: func(c *cobra.Command, args []string) error {
			p := image.MachinePlatform()
			if platform != "" {
				var err error
				if p, err = image.ParsePlatform(platform); err != nil {
					return &usageError{err}
				}
			}
			var refs []image.Reference
			for _, arg := range args {
				ref, err := image.ParseReference(arg)
				if err != nil {
					return &usageError{err}
				}
				if !slices.Contains(refs, ref) {
					refs = append(refs, ref)
				}
			}
			return a.imagePull(c.Context(), refs, p, plainHTTP)
		},
	})
	c.Flags().StringVar(&platform, "platform", "", "fetch the image for this platform, like linux/arm64, instead of the machine's")
	c.Flags().BoolVar(&plainHTTP, "plain-http", false, "speak to the registries without TLS")
	return c
}

func (a *app) imagePull(ctx context.Context, refs []image.Reference, p image.Platform, plainHTTP bool) error {
	store, err := a.images("pull images")
	if err != nil {
		return err
	}
	view := newTransfers(a, "pull")
	defer view.done()
	registry, err := a.registry(plainHTTP, view.notice)
	if err != nil {
		return err
	}
	defer registry.Close()
	const atOnce = 3 // images; each has several transfers
	slots := make(chan struct{}, atOnce)
	images, errs := make([]*image.Image, len(refs)), make([]error, len(refs))
	var wait sync.WaitGroup
	for n, ref := range refs {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			i, err := a.pullAdmitted(ctx, registry, store, ref, p, view.tell)
			if err == nil {
				var o image.AddOptions
				o.Progress = func(p image.Progress) {
					p.Image = ref.String()
					view.tell(p)
				}
				err = store.Unpack(ctx, i, o)
			}
			if err != nil {
				errs[n] = fmt.Errorf("cannot pull %s: %w", ref.Short(), err)
				return
			}
			images[n] = i
			view.finished(ref.String(), ref.Short())
		})
	}
	wait.Wait()
	view.done()
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: the next pull goes on from there: %w", context.Cause(ctx))
	}
	results := []transferred{}
	for n, ref := range refs {
		if images[n] != nil {
			results = append(results, newTransferred(ref.String(), images[n]))
		}
	}
	return errors.Join(a.printTransferred(results), errors.Join(errs...))
}

// pullAdmitted pulls what the machine's policy allows.
func (a *app) pullAdmitted(ctx context.Context, r *image.Registry, s *image.Store, ref image.Reference, p image.Platform, tell func(image.Progress)) (*image.Image, error) {
	check, err := lifecycle.AdmitImage(a.layout(), ref, func() (*image.Registry, error) { return r, nil })
	if err != nil {
		return nil, err
	}
	i, err := r.Pull(ctx, s, ref, p, image.AddOptions{Progress: tell, Check: check, Unpack: true})
	if err != nil {
		return nil, err
	}
	return i, check(ctx, i.Digest, i.Index) // one that was here has passed nothing yet
}

func (a *app) printTransferred(all []transferred) error {
	if a.json {
		return a.printJSON(all)
	}
	for _, t := range all {
		line := t.Digest
		if !a.quiet {
			line = t.Name + " " + line
		}
		if _, err := fmt.Fprintln(a.stdout, line); err != nil {
			return err
		}
	}
	return nil
}
