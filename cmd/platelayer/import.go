package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/topology"
)

// composeNames are the files that compose looks for, in its order.
var composeNames = [...]string{"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}

func (a *app) importCommand() *cobra.Command {
	var out string
	var force bool
	c := &cobra.Command{
		Use:   "import [COMPOSEFILE...]",
		Short: "Write a topology file from a compose file",
		Long: `Write a topology file from a compose file: each of its networks becomes a
cluster, each service a station. What can't be carried over is left out and
listed on stderr, with what to do instead.

Of several files each is laid over those before it, as docker compose -f does;
without any the one in this folder is taken, and its override file.`,
		Example: `  platelayer import compose.yaml compose.override.yaml -o platelayer.yaml`,
		RunE: func(_ *cobra.Command, args []string) error {
			paths, err := composeFiles(args)
			if err != nil {
				return err
			}
			path := paths[0]
			data, err := readFile(path)
			if err != nil {
				return &fileError{path: path, err: err, compose: true}
			}
			opt := topology.ImportOptions{ReadFile: lifecycle.ReadSource}
			if opt.Dir, err = filepath.Abs(filepath.Dir(out)); err != nil {
				return fmt.Errorf("cannot tell the folder of %s: %w", out, err)
			}
			for _, over := range paths[1:] {
				if over, err = filepath.Abs(over); err != nil {
					return fmt.Errorf("cannot tell the folder of %s: %w", over, err)
				}
				opt.Over = append(opt.Over, over)
			}
			text, left, err := topology.Import(path, data, opt)
			if err != nil {
				return err
			}
			if out == "-" {
				_, err = a.stdout.Write(text)
			} else {
				err = a.writeNew(out, text, force)
			}
			if err != nil {
				return err
			}
			if !a.quiet {
				a.tellLeft(left)
			}
			return nil
		},
	}
	c.Flags().StringVarP(&out, "output", "o", defaultFile, "the file to write; - is stdout")
	c.Flags().BoolVar(&force, "force", false, "replace a file that is there")
	return c
}

// composeFiles are those named, or the one in this folder, or in the one that
// is named, with its override.
func composeFiles(args []string) ([]string, error) {
	folder := "."
	if len(args) > 0 {
		if info, err := os.Stat(args[0]); err != nil || !info.IsDir() || len(args) > 1 {
			return args, nil
		}
		folder = args[0]
	}
	for _, name := range composeNames {
		name = filepath.Join(folder, name)
		if _, err := os.Stat(name); err != nil {
			continue
		}
		files := []string{name}
		for _, over := range composeNames {
			over = filepath.Join(folder, strings.Replace(over, "compose.", "compose.override.", 1))
			if _, err := os.Stat(over); err == nil {
				return append(files, over), nil
			}
		}
		return files, nil
	}
	return nil, &usageError{fmt.Errorf("no compose file in %s (%s): name one", folder, strings.Join(composeNames[:], ", "))}
}

// tellLeft lists what was left out, and each hint where it is first of use.
func (a *app) tellLeft(left topology.Problems) {
	told := map[string]bool{}
	for _, p := range left {
		fmt.Fprintln(a.stderr, p)
		if p.Hint != "" && !told[p.Hint] {
			told[p.Hint] = true
			fmt.Fprintln(a.stderr, "  hint: "+topology.OneLine(p.Hint))
		}
	}
}

// writeNew writes a file for the invoking user, and not over another.
func (a *app) writeNew(path string, text []byte, force bool) error {
	flags := os.O_CREATE | os.O_WRONLY | os.O_EXCL
	if force {
		flags = os.O_CREATE | os.O_WRONLY | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &usageError{fmt.Errorf("%s is there already: write another with -o, or replace it with --force", path)}
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, invoker().Give(f), f.Close()); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	abs, err := filepath.Abs(path)
	if err == nil && !a.quiet {
		fmt.Fprintf(a.stderr, "wrote %s\n", abs)
	}
	return nil
}
