package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"platelayer/containers/image"
	"platelayer/lifecycle"
)

func (a *app) lockCommand() *cobra.Command {
	var o lifecycle.LockOptions
	c := a.jsonFlag(&cobra.Command{
		Use:   "lock [FILE]",
		Short: "Write the digest of every image of a topology file, so that up takes no other",
		Long: `Write the digest of every image of a topology file to a lock beside it,
platelayer.lock for platelayer.yaml: of the image that is here under the name, as
up would take it, otherwise of the one in its registry, which is not pulled. up then
takes those images only, whatever their names mean by then, and refuses an image
that is not in the lock.

--remote asks the registries for all of them. --check writes nothing and ends with
code 4 where the lock and the file differ, with --remote where a registry has
another image by now; it needs no privilege.`,
		Example: `  platelayer lock
  platelayer lock --remote --platform linux/arm64
  platelayer lock --check`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			for _, p := range o.Platforms {
				if _, err := image.ParsePlatform(p); err != nil {
					return &usageError{err}
				}
			}
			t, err := a.load(a.path(args))
			if err != nil {
				return err
			}
			images := a.imageOptions(nil)
			o.Registry, o.Notice = images.Registry, images.Notice
			done, err := lifecycle.MakeLock(c.Context(), a.layout(), t, o)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(done)
			}
			what := "locked in"
			if o.Check {
				what = "as in"
			}
			fmt.Fprintf(a.stdout, "%s: %s %s %s\n", t.Name, plural(done.Images, "image"), what, done.Path)
			return nil
		},
	})
	c.Flags().BoolVar(&o.Check, "check", false, "only tell where the lock differs")
	c.Flags().BoolVar(&o.Remote, "remote", false, "ask the registries, though images are here")
	c.Flags().StringArrayVar(&o.Platforms, "platform", nil, "lock the images for this platform too, like linux/arm64")
	return c
}
