package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"platelayer/containers/image"
	"platelayer/lifecycle"
	"platelayer/topology"
)

func (a *app) bundleCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bundle",
		Short: "Carry a topology with its files and images to another machine",
		Args:  subcommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.bundleSaveCommand(), a.bundleLoadCommand())
	return c
}

func (a *app) bundleSaveCommand() *cobra.Command {
	var output string
	var volumes bool
	c := a.jsonFlag(&cobra.Command{
		Use:   "save [FILE] -o BUNDLE",
		Short: "Write a topology file with all that it needs to one archive",
		Long: `Write a topology file with all that it needs to one archive: the files that it
names (include, env_file, configs, secrets, seals, .env), what stations mount of the
project's folder, the images, a lock of them, and with --volumes what is in the named
volumes. Images that are not here are pulled. The archive is an OCI one: image
load, docker and podman take the images from it.

What lies outside the project's folder is refused. Secrets are in the bundle as they
are: guard it like them. The authority of the topology's TLS is not in it. Stations
that run are paused while volumes are read.`,
		Example: `  platelayer bundle save -o shop.bundle
  platelayer bundle save shop/platelayer.yaml --volumes -o - | ssh test platelayer bundle load -`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				return &usageError{errors.New("bundle save needs -o BUNDLE")}
			}
			return a.bundleSave(c.Context(), a.path(args), output, volumes)
		},
	})
	c.Flags().StringVarP(&output, "output", "o", "", "the file to write; - is stdout")
	c.Flags().BoolVar(&volumes, "volumes", false, "take named volumes along, too")
	return c
}

func (a *app) bundleSave(ctx context.Context, path, output string, volumes bool) error {
	var variables []string
	o := lifecycle.BundleSaveOptions{Volumes: volumes}
	a.noteFile = func(path string) { o.Read = append(o.Read, path) }
	a.noteVariable = func(name string) {
		if !slices.Contains(variables, name) {
			variables = append(variables, name)
		}
	}
	t, err := a.load(path)
	if err != nil {
		return err
	}
	view := newProgress(a, t.Name, "bundle")
	defer view.done("")
	o.Images = a.imageOptions(view)
	o.Notice = func(text string) { view.tell(lifecycle.Progress{Notice: text}) }
	if len(variables) > 0 {
		slices.Sort(variables)
		o.Notice("it takes from the environment what is not in the bundle: " + strings.Join(variables, ", "))
	}
	var done *lifecycle.Bundled
	save := func(to io.Writer, temporary string) (err error) {
		for _, path := range []string{output, temporary} {
			if abs, err := filepath.Abs(path); err == nil && path != "" {
				o.Output = append(o.Output, abs)
			}
		}
		done, err = lifecycle.SaveBundle(ctx, a.layout(), t, to, o)
		return err
	}
	switch {
	case output == "-" && term.IsTerminal(int(a.stdout.Fd())):
		return &usageError{errors.New("a bundle is not for a terminal: redirect stdout, or name a file with -o")}
	case output == "-" && a.json:
		return &usageError{errors.New("--json and the bundle can't both go to stdout")}
	case output == "-":
		err = save(a.stdout, "")
	default:
		err = image.WriteFile(output, 0o600, invoker(), save) // it may hold secrets
	}
	if err != nil {
		return fmt.Errorf("cannot bundle %s: %w", t.Name, err)
	}
	where := "in " + output
	if output == "-" { // the digest can't be there, too
		where = "in " + done.Digest
	}
	view.done(fmt.Sprintf("%s: %s, %s %s", done.Name, plural(len(done.Images), "image"), plural(len(done.Volumes), "volume"), where))
	if a.json {
		return a.printJSON(done)
	}
	if output != "-" {
		fmt.Fprintln(a.stdout, done.Digest)
	}
	return nil
}

func (a *app) bundleLoadCommand() *cobra.Command {
	var o lifecycle.BundleLoadOptions
	c := a.jsonFlag(&cobra.Command{
		Use:   "load BUNDLE|- [FOLDER]",
		Short: "Make a project's folder, images and volumes of a bundle, without network",
		Long: `Make a project's folder of a bundle, new or empty, and load the images and volumes
in it; all of that, or nothing. Without a folder it is one in this folder with the topology's
name. Everything is compared with its digest, and --digest says which digest the bundle
must have: the one that bundle save printed. Nothing runs until up.

The folder belongs to you, and nobody else may enter it. A bundle may ask for
anything that a topology file can: look at it before up, or have a policy
(docs/policy.md).`,
		Example: `  platelayer bundle load shop.bundle && cd shop && platelayer up`,
		Args:    atLeast(1, "which bundle? platelayer bundle load BUNDLE"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := atMost(2)(c, args); err != nil {
				return err
			}
			if _, err := image.ParseReference("bundle@" + o.Digest); err != nil && o.Digest != "" {
				return &usageError{fmt.Errorf("--digest is sha256: and 64 hexadecimal digits, not %q", o.Digest)}
			}
			if len(args) > 1 {
				o.Dir = args[1]
			}
			f, err := a.archiveFile(args[0], "bundle load BUNDLE")
			if err != nil {
				return err
			}
			o.Load = func(file string) (t *topology.Topology, read []string, err error) {
				a.noteFile = func(path string) { read = append(read, path) }
				t, err = a.load(file)
				return t, read, err
			}
			view := newTransfers(a, "load")
			defer view.done()
			o.Progress = view.tell
			done, dir, err := lifecycle.LoadBundle(c.Context(), a.layout(), f, o)
			view.done()
			if err != nil {
				return fmt.Errorf("cannot load the bundle %s: %w", f.Name(), err)
			}
			if a.json {
				return a.printJSON(struct {
					*lifecycle.Bundled
					Dir string `json:"dir"`
				}{done, dir})
			}
			fmt.Fprintf(a.stdout, "%s %s\n", dir, done.Digest)
			if !a.quiet {
				fmt.Fprintf(a.stderr, "%s: %s, %s; bring it up with: platelayer up %s\n", done.Name, plural(len(done.Images), "image"), plural(len(done.Volumes), "volume"),
					filepath.Join(dir, done.File))
			}
			return nil
		},
	})
	c.Flags().StringVar(&o.Digest, "digest", "", "refuse a bundle that has another digest, sha256:HEX")
	return c
}
