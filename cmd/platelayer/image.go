package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"platelayer/containers"
	"platelayer/containers/image"
)

func (a *app) imageCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "Pull and push the images that stations run",
		Args:  atMost(0),
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.imagePullCommand(), a.imagePushCommand())
	return c
}

// images opens the image store.
func (a *app) images(what string) (*image.Store, error) {
	if os.Geteuid() != 0 {
		return nil, &containers.Unsupported{Feature: "root privilege", Err: fmt.Errorf("only root can %s", what)}
	}
	return image.OpenStore(filepath.Join(a.layout().Lib, "images"))
}

// atLeast checks the number of arguments; too few are wrong usage.
func atLeast(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n {
			return &usageError{errors.New(what)}
		}
		return nil
	}
}
