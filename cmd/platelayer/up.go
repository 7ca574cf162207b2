package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"platelayer/backbone"
	"platelayer/lifecycle"
)

func (a *app) upCommand() *cobra.Command {
	var keep, attach bool
	c := &cobra.Command{
		Use:   "up [FILE]",
		Short: "Bring a topology up; returns when every station runs",
		Args:  atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := a.path(args)
			t, err := a.load(path)
			if err != nil {
				return err
			}
			abs, err := filepath.Abs(path)
			if err != nil {
				return err
			}
			result, err := lifecycle.Up(c.Context(), a.layout(), t, lifecycle.UpOptions{
				File: abs, Keep: keep,
				Progress: func(p lifecycle.Progress) { a.progress(p) },
			})
			var refused *lifecycle.IntegrityError
			if errors.As(err, &refused) {
				if logErr := lifecycle.LogIntegrity(t, refused, time.Now().UTC().Format(time.RFC3339)); logErr != nil {
					fmt.Fprintf(a.stderr, "platelayer: %v\n", logErr)
				}
			}
			if err != nil {
				return err
			}
			if result.Unchanged {
				fmt.Fprintf(a.stderr, "%s: up already, nothing has changed\n", t.Name)
			} else {
				fmt.Fprintf(a.stderr, "%s: %s up in %s\n", t.Name, plural(result.Stations, "station"), round(result.Took))
			}
			if !attach {
				return nil
			}
			a.name = t.Name
			return a.attach(c.Context())
		},
	}
	c.Flags().BoolVar(&keep, "keep", false, "leave what a failed launch made, to look at it")
	c.Flags().BoolVar(&attach, "attach", false, "follow the logs; Ctrl-C takes the topology down")
	return c
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
	if stop() {
		return err // it ended without us
	}
	return <-down
}

func (a *app) progress(p lifecycle.Progress) {
	switch {
	case p.Notice != "":
		fmt.Fprintf(a.stderr, "platelayer: %s\n", p.Notice)
	case a.verbose:
		fmt.Fprintf(a.stderr, "  %-10s %s\n", p.Step, round(p.Took))
	}
}

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down [FILE|NAME]",
		Short: "Take a topology down and leave the machine as it was",
		Args:  atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name, err := a.target(args)
			if err != nil {
				return err
			}
			return a.down(name)
		},
	}
}

func (a *app) down(name string) error {
	// Not the command's own context: what Ctrl-C ended is still taken down.
	ctx, stop := interruptible()
	defer stop()
	result, err := lifecycle.Down(ctx, a.layout(), name)
	if err != nil {
		return err
	}
	if !result.Found {
		fmt.Fprintf(a.stderr, "%s: nothing to take down\n", name)
		return nil
	}
	fmt.Fprintf(a.stderr, "%s: down in %s\n", name, round(result.Took))
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
	var keep bool
	c := &cobra.Command{
		Use:    "keeper",
		Hidden: true,
		RunE: func(*cobra.Command, []string) error {
			return lifecycle.RunKeeper(a.layout(), a.name, keep)
		},
	}
	c.Flags().BoolVar(&keep, "keep", false, "")
	return c
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
