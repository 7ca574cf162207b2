package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"platelayer/containers"
	"platelayer/containers/image"
)

func (a *app) imageCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "Pull, load, list, check and save the images that stations run",
		Args:  subcommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.imageLsCommand(), a.imageInspectCommand(), a.imagePullCommand(), a.imagePushCommand(), a.imageLoadCommand(), a.imageImportCommand(), a.imageSaveCommand(),
		a.imageTagCommand(), a.imageRmCommand(), a.imagePruneCommand(), a.imageVerifyCommand())
	return c
}

// images opens the image store.
func (a *app) images(what string) (*image.Store, error) {
	if os.Geteuid() != 0 {
		return nil, &containers.Unsupported{Feature: "root privilege", Err: fmt.Errorf("only root can %s", what)}
	}
	return image.OpenStore(filepath.Join(a.layout().Lib, "images"))
}

// completeImages offers the names of the images that are here, to who may see
// them.
func (a *app) completeImages(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	if _, err := os.Stat(filepath.Join(a.layout().Lib, "images")); err != nil {
		return nil, none // which opening it would make
	}
	s, err := a.images("see the images of this machine")
	if err != nil {
		return nil, none
	}
	all, _ := s.List() // what is damaged has no name to offer
	var names []string
	for _, i := range all {
		for _, name := range []string{shortName(i.Name), i.Name} {
			if name != "" && strings.HasPrefix(name, begun) && !slices.Contains(args, name) {
				names = append(names, name)
				break
			}
		}
	}
	return names, none
}

// completeSecond offers them for all but the first argument.
func (a *app) completeSecond(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeImages(c, args, begun)
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

// newName completes a name that an image is to get.
func newName(text string) (string, error) {
	ref, err := image.ParseReference(text)
	if err != nil {
		return "", &usageError{err}
	}
	if ref.Digest != "" || strings.HasPrefix(text, "sha256:") {
		return "", &usageError{fmt.Errorf("%s is a digest, which no image can be given", text)}
	}
	return ref.String(), nil
}

// shortName is an image's name as people write it.
func shortName(name string) string {
	if ref, err := image.ParseReference(name); err == nil {
		return ref.Short()
	}
	return name
}

// imagesCalled finds images by what the user calls them. One that is called by a name
// has it; one by its digest has all of its own.
func imagesCalled(s *image.Store, refs []string) ([]image.Named, error) {
	var all []image.Named
	var list []image.Named
	for _, text := range refs {
		i, err := s.Find(text)
		if err != nil {
			return nil, err
		}
		if list == nil {
			list, _ = s.List() // others that are damaged are of no matter
		}
		ref, parseErr := image.ParseReference(text)
		found := false
		for _, n := range list {
			if n.Digest == i.Digest && parseErr == nil && ref.Digest == "" && n.Name == ref.String() {
				all, found = append(all, n), true
			}
		}
		for _, n := range list {
			if n.Digest == i.Digest && !found {
				all = append(all, n)
			}
		}
	}
	return all, nil
}
