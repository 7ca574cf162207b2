package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"platelayer/lifecycle"
	"platelayer/topology"
)

// logStyle is how records are printed.
type logStyle struct {
	timestamps bool
	noPrefix   bool
	noColour   bool
	raw        bool
}

func (a *app) logsCommand() *cobra.Command {
	var (
		o                  lifecycle.LogOptions
		style              logStyle
		tail, since, until string
	)
	c := a.jsonFlag(&cobra.Command{
		Use:   "logs [STATION...]",
		Short: "Print what stations wrote to their output",
		Long: `Print what stations wrote to their output.
On a terminal colours and tabs are shown, and other control sequences are
written out, so that no station can steer it; elsewhere, and with --raw, all is
as the station wrote it. No station named means all.` + stationHelp,
		Example: `  platelayer logs -f --tail 20
  platelayer logs --since 10m web/lb`,
		RunE: func(c *cobra.Command, args []string) error {
			now := time.Now()
			var err error
			if o.Tail, err = parseTail(tail); err != nil {
				return &usageError{fmt.Errorf("--tail %s: %w", tail, err)}
			}
			if o.Since, err = parseMoment(since, now); err != nil {
				return &usageError{fmt.Errorf("--since %s: %w", since, err)}
			}
			if o.Until, err = parseMoment(until, now); err != nil {
				return &usageError{fmt.Errorf("--until %s: %w", until, err)}
			}
			return a.printLogs(c.Context(), args, o, style)
		},
	})
	flags := c.Flags()
	flags.Lookup("json").Usage = "print each record as a line of JSON"
	flags.BoolVarP(&o.Follow, "follow", "f", false, "go on with what they write from now on")
	flags.StringVar(&tail, "tail", "all", "print only this many of each station's last lines")
	flags.StringVar(&since, "since", "", "print only what is not older: 10m, 2006-01-02T15:04:05 or with a zone, or seconds since 1970")
	flags.StringVar(&until, "until", "", "print only what is older; takes the same as --since")
	flags.BoolVarP(&style.timestamps, "timestamps", "t", false, "print when each line was written")
	flags.BoolVar(&style.noColour, "no-color", false, "print no colours of our own")
	flags.BoolVar(&style.raw, "raw", false, "write control sequences other than colours to a terminal too, as they are")
	flags.BoolVar(&style.noPrefix, "no-prefix", false, "do not print whose line it is")
	return c
}

// logs prints everything, or the last lines, as `up --attach` does.
func (a *app) logs(ctx context.Context, refs []string, follow bool, tail int) error {
	return a.printLogs(ctx, refs, lifecycle.LogOptions{Follow: follow, Tail: tail}, logStyle{})
}

// printLogs prints the records of the stations that refs name, or of all.
func (a *app) printLogs(ctx context.Context, refs []string, o lifecycle.LogOptions, style logStyle) error {
	var name string
	var err error
	if len(refs) > 0 {
		name, err = a.targetOf(refs[0])
	} else {
		name, err = a.target(nil)
	}
	if err != nil {
		return err
	}
	t, err := lifecycle.Recorded(a.layout(), name)
	if err != nil {
		return err
	}
	if o.Stations, err = lookupAll(t, refs); err != nil {
		return err
	}
	print := &logPrinter{
		out:        logStream{w: a.stdout, mark: "|"},
		err:        logStream{w: a.stderr, mark: "|"},
		prefix:     len(o.Stations) != 1 && !style.noPrefix,
		timestamps: style.timestamps,
	}
	print.out.tame = !style.raw && term.IsTerminal(int(a.stdout.Fd()))
	print.err.tame = !style.raw && term.IsTerminal(int(a.stderr.Fd()))
	if terminalOf(a.stdout) {
		print.out.pad = longestName(t, o.Stations)
		print.out.colour = coloured(a.stdout) && !style.noColour
	}
	if terminalOf(a.stderr) {
		print.err.pad = longestName(t, o.Stations)
		print.err.mark = "!" // where both streams meet
		print.err.colour = coloured(a.stderr) && !style.noColour
	}
	emit := print.emit
	if a.json {
		encoder := json.NewEncoder(tameJSON{a.stdout})
		emit = func(r lifecycle.Record) error { return encoder.Encode(r) }
	}
	return lifecycle.Logs(ctx, a.layout(), name, o, emit)
}

// longestName is how many columns the names in front of records need: those of
// the stations, or of all, with the cluster where the name alone is ambiguous.
func longestName(t *topology.Topology, which []*topology.Station) int {
	same := map[string]int{}
	var all []*topology.Station
	for i := range t.Clusters {
		for j := range t.Clusters[i].Stations {
			s := &t.Clusters[i].Stations[j]
			same[s.Name]++
			all = append(all, s)
		}
	}
	if len(which) == 0 {
		which = all
	}
	longest := 0
	for _, s := range which {
		name := s.Name
		if same[name] > 1 {
			name = s.ID()
		}
		longest = max(longest, len(name))
	}
	return longest
}
