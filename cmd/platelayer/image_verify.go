package main

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"platelayer/containers/image"
)

func (a *app) imageVerifyCommand() *cobra.Command {
	var o image.VerifyOptions
	c := a.jsonFlag(&cobra.Command{
		Use:   "verify [IMAGE...]",
		Short: "Compare what the image store has with its digests, file by file",
		Long: `Compare blobs with their digests, and each unpacked layer with its tar, which is
unpacked anew beside it: type, mode, owner, size, time, extended attributes, hard
links and content of each file, and that none is missing and none too many. Without
IMAGE, all that the store has. Damage ends it with code 4.

--repair puts a fresh layer into the place of a damaged one that no topology runs
on, and takes damaged blobs away, which are then to be pulled or loaded again. Where
index.json is damaged or lost, it lists the images anew, without their names.`,
		Example: `  platelayer image verify
  platelayer image verify --repair shop/web`,
		ValidArgsFunction: a.completeImages,
		RunE: func(c *cobra.Command, args []string) error {
			return a.imageVerify(c.Context(), args, o)
		},
	})
	c.Flags().BoolVar(&o.Repair, "repair", false, "unpack damaged layers again, take damaged blobs away")
	return c
}

func (a *app) imageVerify(ctx context.Context, refs []string, o image.VerifyOptions) error {
	s, err := a.images("verify images")
	if err != nil {
		return err
	}
	var images []image.Named
	if len(refs) > 0 {
		if images, err = imagesCalled(s, refs); err != nil {
			return err
		}
	}
	view := newTransfers(a, "verify")
	defer view.done()
	o.Progress = view.tell
	v, err := s.Verify(ctx, images, o)
	view.done()
	if err != nil {
		return fmt.Errorf("cannot verify the images: %w", err)
	}
	if a.json {
		if err := a.printJSON(v); err != nil {
			return err
		}
	} else {
		a.printDamage(v)
	}
	left := 0
	for _, d := range v.Damage {
		if !d.Repaired {
			left++
		}
	}
	if left > 0 {
		return &image.DamageError{Found: left + v.More, Repaired: o.Repair}
	}
	return nil
}

func (a *app) printDamage(v *image.Verified) {
	for _, d := range v.Damage {
		var words []string
		if d.Image != "" {
			words = append(words, shortName(d.Image))
		}
		if d.Blob.Hex != "" {
			words = append(words, d.Blob.String())
		}
		if d.Path != "" {
			words = append(words, path.Join("/", d.Path))
		}
		problem := d.Problem
		if d.Repaired {
			problem += " (repaired)"
		}
		fmt.Fprintln(a.stdout, harmless(strings.ReplaceAll(strings.Join(append(words, problem), ": "), "\n", "?")))
	}
	if v.More > 0 {
		fmt.Fprintf(a.stdout, "and %d more\n", v.More)
	}
	if len(v.Damage) == 0 {
		fmt.Fprintf(a.stdout, "%s and %s are as they were stored\n", plural(v.Blobs, "blob"), plural(v.Layers, "unpacked layer"))
	}
}
