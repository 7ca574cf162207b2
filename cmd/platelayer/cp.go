package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"platelayer/lifecycle"
)

func (a *app) cpCommand() *cobra.Command {
	var o lifecycle.CopyOptions
	c := &cobra.Command{
		Use:   "cp [STATION:]SOURCE|- [STATION:]DESTINATION|-",
		Short: "Copy files and folders out of and into stations",
		Long: `Copy a file, or a folder with all that is in it, out of or into a station. A
path of a station begins at its root, which no link leads out of. "-" is a tar
archive on stdin or stdout. A path of the machine with a colon in it is written
with ./ or / before it.

Into a folder that is there, the source is copied under its own name; SOURCE/.
means what is in the folder. Otherwise it gets the destination's name; the folder
before that must be there. What is copied belongs to root in a station and to you
on the machine, unless -a keeps the owners.` + stationHelp,
		Example: `  platelayer cp www1:/var/log/nginx/access.log .
  platelayer cp -a ./site/. web/www1:/srv/www
  platelayer cp db:/etc - | tar -t`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return &usageError{errors.New("cp needs a source and a destination")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return a.cp(c.Context(), args[0], args[1], o)
		},
	}
	c.Flags().BoolVarP(&o.Archive, "archive", "a", false, "keep owners and extended attributes")
	c.Flags().BoolVarP(&o.Follow, "follow-link", "L", false, "copy what SOURCE leads to where it is a link")
	return c
}

func (a *app) cp(ctx context.Context, source, destination string, o lifecycle.CopyOptions) error {
	from, err := a.copySide(source)
	if err != nil {
		return err
	}
	to, err := a.copySide(destination)
	if err != nil {
		return err
	}
	if from.Station == nil && to.Station == nil {
		return &usageError{errors.New("neither side of cp is STATION:PATH")}
	}
	if source == "-" {
		from.Reader = untilDone(ctx, a.stdin)
	}
	if destination == "-" {
		if term.IsTerminal(int(a.stdout.Fd())) {
			return &usageError{errors.New("a tar archive is not for a terminal: redirect stdout")}
		}
		to.Writer = a.stdout
	}
	view := a.newCopyView()
	o.Progress, o.Notice = view.progress, view.notice
	so, err := lifecycle.Copy(ctx, a.layout(), from, to, o)
	view.clear()
	if err == nil && source == "-" {
		// What follows an archive is padding; who writes it is not to fail.
		_, err = io.Copy(io.Discard, from.Reader)
	}
	if err != nil && destination != "-" && so.Files+so.Folders > 0 {
		return fmt.Errorf("%w; what was copied before that stays: %s, %s", err, plural(so.Files, "file"), plural(so.Folders, "folder"))
	}
	if err == nil && !a.quiet {
		fmt.Fprintf(a.stderr, "copied %s, %s\n", plural(so.Files, "file"), size(uint64(so.Bytes)))
	}
	return err
}

// untilDone reads what r has until ctx ends: a read of r itself might last.
func untilDone(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { in.CloseWithError(fmt.Errorf("interrupted: %w", context.Cause(ctx))) })
	return out
}

// copySide reads a side of cp: as in docker, one that begins with a dot or a
// slash is the machine's, whatever follows.
func (a *app) copySide(arg string) (s lifecycle.CopySide, err error) {
	ref, path, found := strings.Cut(arg, ":")
	if !found || strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".") {
		if arg == "" {
			return s, &usageError{errors.New("a path of cp is empty")}
		}
		return lifecycle.CopySide{Path: arg}, nil
	}
	if ref == "" || path == "" {
		return s, &usageError{fmt.Errorf("%s is not STATION:PATH", arg)}
	}
	name, err := a.targetOf(ref)
	if err != nil {
		return s, err
	}
	a.tend(name)
	t, err := lifecycle.Recorded(a.layout(), name)
	if err != nil {
		return s, err
	}
	station, err := t.Lookup(ref)
	return lifecycle.CopySide{Topology: name, Station: station, Path: path}, err
}

// copyView shows how far a copy is: on a terminal only.
type copyView struct {
	a    *app
	area *liveArea // nil elsewhere
}

func (a *app) newCopyView() *copyView {
	v := &copyView{a: a}
	if !a.quiet && terminalOf(a.stderr) {
		v.area = &liveArea{out: a.stderr, size: func() (int, int) { return terminalSize(a.stderr) }}
	}
	return v
}

func (v *copyView) progress(so lifecycle.Copied, next string) {
	if v.area == nil {
		return
	}
	width, _ := v.area.size()
	line := []rune(fmt.Sprintf("%s, %s  %s", plural(so.Files, "file"), size(uint64(so.Bytes)), printable(next)))
	v.area.frame("", []string{string(line[:min(len(line), width-1)])})
}

func (v *copyView) notice(text string) {
	if v.a.quiet {
		return
	}
	if text = harmless(strings.ReplaceAll(text, "\n", "?")) + "\n"; v.area != nil {
		v.area.frame(text, nil)
		return
	}
	fmt.Fprint(v.a.stderr, text)
}

func (v *copyView) clear() {
	if v.area != nil {
		v.area.frame("", nil)
	}
}
