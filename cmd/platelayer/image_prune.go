package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"platelayer/containers/image"
	"platelayer/lifecycle"
)

func (a *app) imagePruneCommand() *cobra.Command {
	var all bool
	c := a.jsonFlag(&cobra.Command{
		Use:   "prune",
		Short: "Remove images without a name, and what no image has",
		Long: `Remove images without a name that no topology runs, blobs and unpacked layers
that no image has, and what broken transfers left. It waits for processes that work
with the images.`,
		Example: `  platelayer image prune
  platelayer image prune -a`,
		Args: atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.images("remove images")
			if err != nil {
				return err
			}
			if err := lifecycle.ReleaseGone(a.layout()); err != nil {
				return fmt.Errorf("cannot prune the images: %w", err)
			}
			p, err := s.Prune(c.Context(), func(n image.Named) bool { return all || n.Name == "" })
			if err != nil {
				return fmt.Errorf("cannot prune the images: %w", err)
			}
			if a.json {
				return a.printJSON(p)
			}
			fmt.Fprintf(a.stdout, "removed %s, %s and %s: %s\n", plural(len(p.Images), "image"), plural(p.Blobs, "blob"),
				plural(p.Layers, "unpacked layer"), size(uint64(p.Bytes)))
			return nil
		},
	})
	c.Flags().BoolVarP(&all, "all", "a", false, "those with names, too, that no topology runs")
	return c
}
