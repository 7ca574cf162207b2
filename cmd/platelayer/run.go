package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"platelayer/containers"
	"platelayer/lifecycle"
)

func (a *app) runCommand() *cobra.Command {
	var (
		o     lifecycle.RunOptions
		noTTY bool
	)
	c := &cobra.Command{
		Use:   "run STATION [COMMAND [ARG...]]",
		Short: "Run a command in a one-off copy of a station",
		Long: `Run a command in a one-off copy of a station of a topology that is up. Flags come
before the station's name. Without a command the copy runs the station's own.

The copy has the station's root, volumes, environment, user and limits, and its
seal is checked first. What it writes, its addresses and its name, by default
STATION-run-N, are its own; it does not answer to the station's name. It has no
health check and is never restarted. What the station depends on is started
first. Once the command has ended, or this program, the copy is removed.

With -d the copy's name is printed, and the command is the first process of the
copy, with its output in the log: the copy is removed when it has ended.

The exit code is the command's, or as of exec where there was none; 4 or 5 say
that the copy could not start.` + stationHelp,
		Example: `  platelayer run web sh
  platelayer run --no-deps -e DEBUG=1 backend/app ./migrate`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 {
				return &usageError{errors.New("run needs a station")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.Args = args[1:]
			o.TTY = !noTTY && !o.Detach && term.IsTerminal(int(a.stdin.Fd())) && term.IsTerminal(int(a.stdout.Fd()))
			return a.runOneOff(args[0], o)
		},
	}
	c.Flags().SetInterspersed(false)
	c.Flags().StringVarP(&o.User, "user", "u", "", "user to run as (default: the station's)")
	c.Flags().StringVarP(&o.WorkingDir, "workdir", "w", "", "folder to run in (default: the station's)")
	c.Flags().StringArrayVarP(&o.Env, "env", "e", nil, "set a variable, NAME=VALUE; NAME alone takes its value from here, or removes it")
	c.Flags().BoolVarP(&o.Detach, "detach", "d", false, "leave it running alone")
	c.Flags().BoolVarP(&noTTY, "no-tty", "T", false, "give no terminal")
	c.Flags().StringVar(&o.Name, "as", "", "name of the copy (default: STATION-run-N)")
	c.Flags().BoolVar(&o.NoDeps, "no-deps", false, "start nothing that the station depends on")
	c.Flags().Bool("rm", true, "the copy is removed anyway; taken for compose's sake")
	return c
}

func (a *app) runOneOff(ref string, o lifecycle.RunOptions) error {
	name, err := a.targetOf(ref)
	if err != nil {
		return err
	}
	a.tend(name)
	t, err := lifecycle.Recorded(a.layout(), name)
	if err != nil {
		return err
	}
	of, err := t.LookupAll(ref)
	if err != nil {
		return err
	}
	view := newProgress(a, name, "run")
	defer view.done("")
	o.Progress = view.tell
	o.Ready = func() { view.done("") }
	return a.follow(o.ExecOptions, func(x lifecycle.ExecOptions) (containers.Process, error) {
		o.ExecOptions = x
		// Until the command runs, a signal ends the wait for it.
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		container, process, end, err := lifecycle.Run(ctx, a.layout(), name, of[0], o)
		if err != nil {
			end()
			station := new(lifecycle.StationError)
			if errors.As(err, &station) && station.Container == container && station.Exit != nil && station.Message != "" {
				err = &exitCode{station.Exit.Code, err} // it could not be executed
			}
			return nil, err
		}
		if o.Detach {
			fmt.Fprintln(a.stdout, container)
			return nil, nil
		}
		return &ending{process, end}, nil
	})
}

// ending is a process after whose end there is something to do.
type ending struct {
	containers.Process
	end func()
}

func (e *ending) Wait() (containers.Exit, error) {
	defer e.end()
	return e.Process.Wait()
}
