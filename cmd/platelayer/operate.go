package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/topology"
)

func (a *app) startCommand() *cobra.Command {
	return a.operation(lifecycle.Start, "Start stations that do not run, and what they depend on", "started")
}

func (a *app) stopCommand() *cobra.Command {
	return a.operation(lifecycle.Stop, "Stop stations until start, restart or up; what they wrote stays", "stopped")
}

func (a *app) restartCommand() *cobra.Command {
	return a.operation(lifecycle.Restart, "Stop stations and start them again, after their seals have been checked", "restarted")
}

func (a *app) pauseCommand() *cobra.Command {
	return a.operation(lifecycle.Pause, "Freeze stations where they are", "paused")
}

func (a *app) unpauseCommand() *cobra.Command {
	return a.operation(lifecycle.Unpause, "Let paused stations go on", "unpaused")
}

// operation is a command that has the keeper do something with stations; none
// named are all.
func (a *app) operation(op lifecycle.Operation, short, did string) *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:     string(op) + " [STATION...]",
		Short:   short,
		Long:    short + ".\nNo station named means all." + stationHelp,
		Example: "  platelayer " + string(op) + "\n  platelayer " + string(op) + " web/lb",
		RunE: func(c *cobra.Command, args []string) error {
			name, which, err := a.stationsOf(args)
			if err != nil {
				return err
			}
			return a.control(c.Context(), op, did, name, which, len(args) == 0, timeout)
		},
	}
	if op == lifecycle.Start || op == lifecycle.Restart {
		c.Flags().DurationVar(&timeout, "timeout", 0, "give up when not all of them are ready after this time, like 2m")
	}
	return c
}

func (a *app) control(ctx context.Context, op lifecycle.Operation, did, name string, which []*topology.Station, all bool, timeout time.Duration) error {
	view := newProgress(a, name, string(op))
	defer view.done("")
	count := len(which)
	o := lifecycle.ControlOptions{Timeout: timeout, Progress: func(p lifecycle.Progress) {
		if p.Stations != nil { // those that follow or are needed, too
			count = len(p.Stations)
		}
		if p.Phase == lifecycle.PhaseKept {
			count--
		}
		view.tell(p)
	}}
	if !all {
		o.Stations = ids(which)
	}
	began := time.Now()
	if err := lifecycle.Control(ctx, a.layout(), name, op, o); err != nil {
		return err
	}
	view.done(fmt.Sprintf("%s: %s %s in %s", name, plural(count, "station"), did, round(time.Since(began))))
	return nil
}

func ids(which []*topology.Station) []string {
	var all []string
	for _, s := range which {
		all = append(all, s.ID())
	}
	return all
}

// stationsOf finds the topology that stations are of, and them; none named are
// all.
func (a *app) stationsOf(refs []string) (name string, which []*topology.Station, err error) {
	if len(refs) > 0 {
		name, err = a.targetOf(refs[0])
	} else {
		name, err = a.target(nil)
	}
	if err != nil {
		return "", nil, err
	}
	a.tend(name)
	t, err := lifecycle.Recorded(a.layout(), name)
	if err != nil {
		return "", nil, err
	}
	if len(refs) == 0 {
		return name, t.Stations(), nil
	}
	which, err = lookupAll(t, refs)
	return name, which, err
}

// tend gives a topology whose keeper was lost a new one; whatever keeps it from
// that is told, and the command goes on.
func (a *app) tend(name string) {
	notice := func(p lifecycle.Progress) {
		if !a.quiet {
			fmt.Fprintf(a.stderr, "platelayer: %s\n", harmless(p.Notice))
		}
	}
	if err := lifecycle.Tend(context.Background(), a.layout(), name, notice); err != nil {
		fmt.Fprintf(a.stderr, "platelayer: %s\n", harmless(err.Error()))
	}
}

func (a *app) killCommand() *cobra.Command {
	sig := "SIGKILL"
	c := &cobra.Command{
		Use:   "kill [STATION...]",
		Short: "Send a signal to stations, as a crash would; their restart policy applies",
		Long: `Send a signal to the first process of stations. What becomes of one that ends is
its restart policy's decision, as after a crash; to keep it down use stop.
No station named means all.` + stationHelp,
		Example: `  platelayer kill -s HUP web/lb`,
		RunE: func(_ *cobra.Command, args []string) error {
			number, ok := topology.SignalNumber(sig)
			if !ok {
				return &usageError{fmt.Errorf("-s %s is not a signal", sig)}
			}
			name, which, err := a.stationsOf(args)
			if err != nil {
				return err
			}
			return lifecycle.Kill(a.layout(), name, which, syscall.Signal(number))
		},
	}
	c.Flags().StringVarP(&sig, "signal", "s", sig, "the signal's name or number")
	return c
}

func (a *app) rmCommand() *cobra.Command {
	var stop, force bool
	c := &cobra.Command{
		Use:   "rm [STATION...]",
		Short: "Throw away what stopped stations wrote, and their logs; start makes them anew",
		Long: `Throw away what stopped stations wrote, and their logs; start makes them anew.
No station named means all that do not run.` + stationHelp,
		Example: `  platelayer rm --stop web/www3`,
		RunE: func(c *cobra.Command, args []string) error {
			name, which, err := a.stationsOf(args)
			if err != nil {
				return err
			}
			if len(args) == 0 && !stop {
				if which, err = a.notRunning(name, which); err != nil || len(which) == 0 {
					return err
				}
			}
			if stop {
				if err := a.control(c.Context(), lifecycle.Stop, "stopped", name, which, false, 0); err != nil {
					return err
				}
			}
			return a.control(c.Context(), lifecycle.Remove, "removed", name, which, false, 0)
		},
	}
	c.Flags().BoolVarP(&stop, "stop", "s", false, "stop them first")
	c.Flags().BoolVar(&force, "force", false, "no question is asked anyway; taken for compose's sake")
	return c
}

// notRunning are those of the stations that are stopped or ended.
func (a *app) notRunning(name string, which []*topology.Station) ([]*topology.Station, error) {
	list, err := lifecycle.Ps(a.layout(), name)
	if err != nil {
		return nil, err
	}
	running := map[string]bool{}
	for _, s := range list {
		running[s.Cluster+"/"+s.Name] = s.Pid != 0
	}
	var rest []*topology.Station
	for _, s := range which {
		if !running[s.ID()] {
			rest = append(rest, s)
		}
	}
	return rest, nil
}

func (a *app) scaleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "scale STATION=N...",
		Short: "Run another number of a station's replicas, until the next up",
		Long: `Run another number of a station's replicas than the file says, until the next up.
No other station is touched, and no address moves.`,
		Example: `  platelayer scale web/www=3`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{errors.New("scale needs STATION=N")}
			}
			a.scale = map[string]int{}
			for _, arg := range args {
				ref, count, ok := strings.Cut(arg, "=")
				n, err := strconv.Atoi(count)
				if !ok || err != nil || n < 0 {
					return &usageError{fmt.Errorf("%s is not STATION=N", arg)}
				}
				a.scale[ref] = n
			}
			name, err := a.target(nil)
			if err != nil {
				return err
			}
			path, err := lifecycle.FileOf(a.layout(), name)
			if err != nil {
				return err
			}
			a.name = name
			return a.rescale(c.Context(), path)
		},
	}
}

// rescale is up with other numbers: of the stations that are up, and the new
// replicas.
func (a *app) rescale(ctx context.Context, path string) error {
	all, err := a.load(path)
	if err != nil {
		return err
	}
	refs := []string{}
	for ref, n := range a.scale {
		if n > 0 {
			refs = append(refs, ref)
		}
	}
	t, only, err := a.selected(all, refs)
	if err != nil {
		return err
	}
	changes, _, err := lifecycle.Pending(a.layout(), t, false, only)
	if err != nil {
		return err
	}
	// Pending has given them the images that their names mean now.
	if all, err = a.load(path); err != nil {
		return err
	}
	if t, only, err = a.selected(all, refs); err != nil {
		return err
	}
	var gone []string
	for _, c := range changes {
		if c.Object == "station" && c.Action == lifecycle.ActionRemove {
			gone = append(gone, c.Name)
		}
	}
	o := lifecycle.UpOptions{File: path, Only: only, SameImages: true}
	o.Admitted = func() {
		if len(gone) > 0 && !a.quiet {
			fmt.Fprintf(a.stderr, "platelayer: %s will be gone, with what was written there\n", strings.Join(gone, ", "))
		}
	}
	return a.upAs(ctx, t, o)
}
