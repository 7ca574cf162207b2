package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"platelayer/containers/image"
)

func (a *app) imageRmCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:        "rm IMAGE...",
		SuggestFor: []string{"rmi"},
		Short:      "Take names of images away, and the images that have no more",
		Long: `Take names of images away, and with its last name the image. A digest means an
image with all its names. One that a topology runs is refused; with -f it loses
its names only, and goes with the first image prune after the topology is down.`,
		Example:           `  platelayer image rm shop/web:1.1 9f66d6f44a31`,
		Args:              atLeast(1, "image rm needs an image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.images("remove images")
			if err != nil {
				return err
			}
			var problems []error
			for _, text := range args {
				if err := a.imageRm(c.Context(), s, text, force); err != nil {
					problems = append(problems, fmt.Errorf("cannot remove %s: %w", text, err))
				}
			}
			return errors.Join(problems...)
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "take the names of one that a topology runs")
	return c
}

func (a *app) imageRm(ctx context.Context, s *image.Store, text string, force bool) error {
	names, err := s.NamesOf(text)
	if err != nil {
		return err
	}
	if len(names.Others) == 0 {
		if err := s.Remove(ctx, names.Digest); err != nil {
			held := new(image.HeldError)
			if !force || !errors.As(err, &held) {
				return err
			}
		} else {
			a.say("removed " + names.Digest.String())
			return nil
		}
	}
	for _, name := range names.Meant {
		if err := s.Unname(ctx, name); err != nil {
			return err
		}
		a.say("took the name " + shortName(name) + " away")
	}
	return nil
}

// say prints what was done, on stderr.
func (a *app) say(text string) {
	if !a.quiet {
		fmt.Fprintln(a.stderr, harmless(text))
	}
}
