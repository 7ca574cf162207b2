package main

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"platelayer/containers/image"
)

func (a *app) imageLoadCommand() *cobra.Command {
	var input, name string
	c := a.jsonFlag(&cobra.Command{
		Use:   "load [-i FILE|FOLDER] [IMAGE]",
		Short: "Load images from an archive: docker save's, podman save's, OCI archives and folders",
		Long: `Load images from an archive, under the names that it gives them, and unpack them:
what docker save and podman save write, an OCI archive, or a folder with an OCI
layout; packed by gzip, zstd or bzip2 or not, from a pipe too. IMAGE, a name or
digest of the archive's, loads this one of several. All of them are loaded, or none.`,
		Example: `  platelayer image load -i shop.tar
  docker save shop/web | platelayer image load
  platelayer image load -i layout/ --tag shop/web:1.2`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			o := image.LoadOptions{}
			if len(args) > 0 {
				o.Only = args[0]
			}
			if name != "" {
				var err error
				if o.Name, err = newName(name); err != nil {
					return err
				}
			}
			return a.imageLoad(c.Context(), input, o)
		},
	})
	c.Flags().StringVarP(&input, "input", "i", "-", "the archive or folder; - is stdin")
	c.Flags().StringVarP(&name, "tag", "t", "", "give the one image this name instead")
	return c
}

func (a *app) imageLoad(ctx context.Context, input string, o image.LoadOptions) error {
	s, err := a.images("load images")
	if err != nil {
		return err
	}
	f, err := a.archiveFile(input, "image load -i FILE")
	if err != nil {
		return err
	}
	view := newTransfers(a, "load")
	defer view.done()
	o.Progress = view.tell
	loaded, err := s.Load(ctx, f, o)
	view.done()
	if err != nil {
		return fmt.Errorf("cannot load images from %s: %w", f.Name(), err)
	}
	type result struct {
		Names  []string `json:"names"`
		Digest string   `json:"digest"`
	}
	results := []result{}
	for _, l := range loaded {
		results = append(results, result{append([]string{}, l.Names...), l.Digest.String()})
	}
	view.summed(fmt.Sprintf("%s: %s loaded", f.Name(), plural(len(results), "image")))
	if a.json {
		return a.printJSON(results)
	}
	for _, r := range results {
		if len(r.Names) == 0 {
			fmt.Fprintf(a.stdout, "%s (no name)\n", r.Digest)
		}
		for _, name := range r.Names {
			fmt.Fprintf(a.stdout, "%s %s\n", shortName(name), r.Digest)
		}
	}
	return nil
}

// archiveFile opens what a command reads; - is stdin, which is no terminal.
func (a *app) archiveFile(name, usage string) (*os.File, error) {
	if name != "-" {
		return os.OpenFile(name, os.O_RDONLY|syscall.O_NOCTTY, 0)
	}
	if term.IsTerminal(int(a.stdin.Fd())) {
		return nil, &usageError{fmt.Errorf("an archive does not come from a terminal: %s", usage)}
	}
	fd, err := syscall.Dup(int(a.stdin.Fd()))
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "stdin"), nil
}
