package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platelayer/backbone"
	"platelayer/lifecycle"
	"platelayer/topology"
)

// upFlags are the choices of up, and of scale, which is up with other numbers.
type upFlags struct {
	options lifecycle.UpOptions
	only    []string
	attach  bool
	marked  bool
}

func (a *app) upCommand() *cobra.Command {
	var f upFlags
	var atBoot bool
	c := &cobra.Command{
		Use:   "up [FILE]",
		Short: "Bring a topology up, or change a running one to what its file says now",
		Long: `Bring a topology up, and return when every station runs, and is healthy where it
has a healthcheck. Whatever fails is undone.

A running topology is changed to what its file says now. Only what differs is
touched (platelayer plan tells what), and stations keep what they wrote.
Stations that have stopped are started.`,
		Example: `  platelayer up
  platelayer up --attach --pull always shop/platelayer.yaml
  platelayer up -n copy --scale web/www=3`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("at-boot") { // --at-boot=false takes the mark away
				f.options.AtBoot = &atBoot
			}
			if f.options.Timeout < 0 {
				return &usageError{errors.New("--timeout must not be negative")}
			}
			if p := f.options.Images.Pull; p != "" && !slices.Contains([]string{topology.PullAlways, topology.PullMissing, topology.PullNever}, p) {
				return &usageError{fmt.Errorf("--pull must be always, missing or never, not %q", p)}
			}
			if f.marked && len(args) > 0 {
				return &usageError{errors.New("--marked takes no file: it brings up what was recorded")}
			}
			if f.marked {
				return a.upMarked(c.Context())
			}
			return a.up(c.Context(), a.path(args), f)
		},
	}
	flags := c.Flags()
	flags.BoolVar(&f.options.Keep, "keep", false, "leave what a failed launch made, to look at it")
	flags.BoolVar(&f.options.Recreate, "recreate", false, "start stations anew, without what they wrote: all, or those of --only")
	flags.DurationVar(&f.options.Timeout, "timeout", 0, "give up when not all stations are ready after this time, like 2m")
	flags.BoolVar(&atBoot, "at-boot", false, "have up --marked bring it up again, at the machine's start (docs/platelayer.service)")
	flags.BoolVar(&f.options.Hosts, "hosts", false, "put the stations' names into the machine's hosts file, and tell systemd-resolved where it runs, until down")
	flags.StringVar(&f.options.Images.Pull, "pull", "", "when to ask the registries for images: always, missing or never, instead of the stations' pull_policy")
	flags.BoolVar(&f.marked, "marked", false, "bring up what is marked with --at-boot and not up")
	flags.StringToIntVar(&a.scale, "scale", nil, "run this many of a station, STATION=N")
	flags.StringSliceVar(&f.only, "only", nil, "bring up only these stations and what they need; what runs stays")
	c.MarkFlagsMutuallyExclusive("marked", "at-boot")
	c.MarkFlagsMutuallyExclusive("marked", "only")
	c.MarkFlagsMutuallyExclusive("marked", "pull")
	flags.BoolVar(&f.attach, "attach", false, "follow the logs; Ctrl-C takes the topology down")
	return c
}

func (a *app) up(ctx context.Context, path string, f upFlags) error {
	all, err := a.load(path)
	if err != nil {
		return err
	}
	if f.options.File, err = filepath.Abs(path); err != nil {
		return err
	}
	t, only, err := a.selected(all, f.only)
	if err != nil {
		return err
	}
	f.options.Only = only
	if err := a.upAs(ctx, t, f.options); err != nil || !f.attach {
		return err
	}
	a.name = t.Name
	return a.attach(ctx)
}

// selected is the part of a topology that the profiles and --only ask for, with
// what is up of it already. Only is who was named; nil is all.
func (a *app) selected(all *topology.Topology, refs []string) (part *topology.Topology, only []string, err error) {
	if refs == nil {
		part, err = all.Select(topology.Selection{Profiles: a.profiles})
		return part, nil, err
	}
	named, err := lookupAll(all, refs)
	if err != nil {
		return nil, nil, err
	}
	only = append([]string{}, ids(named)...)
	for _, id := range lifecycle.UpStations(a.layout(), all.Name) {
		if _, err := all.Lookup(id); err == nil {
			refs = append(refs, id)
		}
	}
	part, err = all.Select(topology.Selection{Profiles: a.profiles, Only: refs})
	return part, only, err
}

// upAs brings a loaded topology up and tells how it went.
func (a *app) upAs(ctx context.Context, t *topology.Topology, o lifecycle.UpOptions) error {
	view := newProgress(a, t.Name, "up")
	defer view.done("")
	o.Progress = view.tell
	pull := o.Images.Pull
	o.Images = a.imageOptions(view)
	o.Images.Pull = pull
	if from := lifecycle.UpFrom(a.layout(), o.File); a.name == "" && !slices.Contains(from, t.Name) {
		for _, other := range from {
			view.tell(lifecycle.Progress{Notice: fmt.Sprintf("this file is also up as %q, a copy or the name that it had: platelayer down %s takes that down", other, other)})
		}
	}
	result, err := lifecycle.Up(ctx, a.layout(), t, o)
	var refused *lifecycle.IntegrityError
	if errors.As(err, &refused) {
		if logErr := lifecycle.LogIntegrity(t, refused); logErr != nil {
			view.tell(lifecycle.Progress{Notice: logErr.Error()})
		}
	}
	if err != nil {
		return err
	}
	switch {
	case result.Unchanged:
		view.done(t.Name + ": up already, nothing has changed")
	case result.Changed:
		view.done(fmt.Sprintf("%s: %s in %s", t.Name, countChanges(result.Changes), round(result.Took)))
	default:
		view.done(fmt.Sprintf("%s: %s up in %s", t.Name, plural(result.Stations, "station"), round(result.Took)))
	}
	return nil
}

// countChanges says how much of what was done.
func countChanges(changes []lifecycle.Change) string {
	counts := map[lifecycle.Action]int{}
	for _, c := range changes {
		counts[c.Action]++
	}
	var parts []string
	for _, done := range []struct {
		action lifecycle.Action
		word   string
	}{
		{lifecycle.ActionCreate, "created"}, {lifecycle.ActionChange, "changed in place"}, {lifecycle.ActionRecreate, "recreated"},
		{lifecycle.ActionStart, "started"}, {lifecycle.ActionRemove, "removed"},
	} {
		if n := counts[done.action]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, done.word))
		}
	}
	if len(parts) == 0 {
		return "changed"
	}
	return strings.Join(parts, ", ")
}

// upMarked brings up what is marked, as it was recorded; one that fails does
// not keep the others from it.
func (a *app) upMarked(ctx context.Context) error {
	marked, err := lifecycle.Marked(a.layout())
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range marked {
		err := a.upAs(ctx, i.Topology, lifecycle.UpOptions{File: i.File})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", i.Topology.Name, err))
		}
	}
	return errors.Join(errs...)
}

// attach follows the logs until the topology is down; when ctx ends it takes
// it down, and goes on following meanwhile.
func (a *app) attach(ctx context.Context) error {
	down := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		fmt.Fprintf(a.stderr, "%s: stopping; Ctrl-C again ends it at once\n", a.name)
		down <- a.down(a.name)
	})
	err := a.logs(context.Background(), nil, true, -1)
	if !stop() {
		return <-down
	}
	if err != nil { // nobody reads any more
		return errors.Join(err, a.down(a.name))
	}
	return nil // it ended without us
}

func (a *app) downCommand() *cobra.Command {
	var volumes, v bool
	c := &cobra.Command{
		Use:   "down [FILE|NAME]",
		Short: "Take a topology down and leave the machine as it was",
		Long: `Take a topology down: stop its stations, dependents first, and remove everything
of it, also what stations wrote and their logs. Its name is enough, and so is a
file that has changed since. It works after any crash.

Named volumes stay for the next up, and go with --volumes, also those that an
earlier down or an edit has left. One that another topology has stays.`,
		Example: `  platelayer down
  platelayer down --volumes shop`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if v {
				return &usageError{errors.New("down takes no -v, which is --volumes in compose and --verbose here: say which")}
			}
			name, err := a.target(args)
			if err != nil {
				return err
			}
			return a.downWith(name, volumes)
		},
	}
	c.Flags().BoolVar(&volumes, "volumes", false, "remove its named volumes too, those that earlier downs kept as well")
	// Neither habit may do what the other means.
	c.Flags().BoolVar(&a.verbose, "verbose", false, "say what is done and how long it takes")
	c.Flags().BoolVarP(&v, "v", "v", false, "")
	c.Flags().MarkHidden("v")
	return c
}

func (a *app) down(name string) error { return a.downWith(name, false) }

func (a *app) downWith(name string, volumes bool) error {
	// Not the command's own context: what Ctrl-C ended is still taken down.
	ctx, stop := interruptible()
	defer stop()
	view := newProgress(a, name, "down")
	defer view.done("")
	result, err := lifecycle.Down(ctx, a.layout(), name, volumes, view.tell)
	if err != nil {
		return err
	}
	gone := ""
	if len(result.Volumes) > 0 {
		gone = ", with " + plural(len(result.Volumes), "volume")
	}
	if !result.Found && gone == "" {
		view.done(name + ": nothing to take down")
		return nil
	}
	view.done(fmt.Sprintf("%s: down in %s%s", name, round(result.Took), gone))
	return nil
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func round(d time.Duration) time.Duration {
	if d < 100*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

func (a *app) keeperCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "keeper",
		Hidden: true,
		RunE: func(*cobra.Command, []string) error {
			return lifecycle.RunKeeper(a.layout(), a.name)
		},
	}
}

func (a *app) undoCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "undo",
		Hidden: true,
		RunE: func(*cobra.Command, []string) error {
			return lifecycle.Undo(a.layout(), a.name)
		},
	}
}

func (a *app) backboneCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "backbone",
		Hidden: true,
		RunE: func(c *cobra.Command, _ []string) error {
			return backbone.Run(c.Context(), os.NewFile(3, "keeper"), a.stderr)
		},
	}
}
