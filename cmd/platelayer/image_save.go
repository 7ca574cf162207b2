package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"platelayer/containers/image"
)

func (a *app) imageSaveCommand() *cobra.Command {
	var output, format string
	c := &cobra.Command{
		Use:   "save IMAGE... [-o FILE|FOLDER/]",
		Short: "Save images to an archive that docker, podman, skopeo and this program load",
		Long: `Save images to an OCI archive, their blobs as they are: what was pulled keeps its
digests, and the same images give the same archive, byte for byte. --format docker
adds what docker load wants before Docker 25. An output that ends with / or is a
folder gets an OCI layout; it must be new or empty.`,
		Example: `  platelayer image save shop/web shop/db -o shop.tar
  platelayer image save --format docker shop/web | docker load`,
		Args:              atLeast(1, "image save needs an image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(c *cobra.Command, args []string) error {
			if format != "oci" && format != "docker" {
				return &usageError{fmt.Errorf("--format is oci or docker, not %q", format)}
			}
			return a.imageSave(c.Context(), args, output, image.SaveOptions{Docker: format == "docker"})
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "-", "the file or folder to write; - is stdout")
	c.Flags().StringVar(&format, "format", "oci", "oci or docker")
	return c
}

func (a *app) imageSave(ctx context.Context, refs []string, output string, o image.SaveOptions) error {
	s, err := a.images("save images")
	if err != nil {
		return err
	}
	done, err := s.Use(ctx)
	if err != nil {
		return err
	}
	defer done()
	images, err := imagesCalled(s, refs)
	if err != nil {
		return err
	}
	view := newTransfers(a, "save")
	defer view.done()
	o.Progress = view.tell
	folder := strings.HasSuffix(output, "/")
	if st, err := os.Stat(output); err == nil && st.IsDir() {
		folder = true
	}
	switch {
	case output == "-" && term.IsTerminal(int(a.stdout.Fd())):
		return &usageError{errors.New("an archive is not for a terminal: redirect stdout, or name a file with -o")}
	case output == "-":
		err = s.Save(ctx, a.stdout, images, o)
	case folder:
		err = s.SaveFolder(ctx, output, invoker(), images, o)
	default:
		err = s.SaveFile(ctx, output, invoker(), images, o)
	}
	view.done()
	if err != nil {
		return fmt.Errorf("cannot save to %s: %w", output, err)
	}
	different := map[v1.Hash]bool{}
	for _, i := range images {
		different[i.Digest] = true
	}
	if output == "-" {
		output = "stdout"
	}
	view.summed(fmt.Sprintf("%s: %s saved", output, plural(len(different), "image")))
	return nil
}
