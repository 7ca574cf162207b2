package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/topology"
)

func (a *app) eventsCommand() *cobra.Command {
	var (
		o            lifecycle.EventOptions
		since, until string
		follow       bool
	)
	c := a.jsonFlag(&cobra.Command{
		Use:   "events [STATION...]",
		Short: "Print what happened to stations: started, died, healthy, restarted, changed ...",
		Long: `Print what happened to the topology and its stations since the last down.
With stations named, only what happened to them.` + stationHelp,
		Example: `  platelayer events -f
  platelayer events --since 10m --json web/lb`,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if o.Since, err = parseMoment(since, time.Now()); err != nil {
				return &usageError{fmt.Errorf("--since %w", err)}
			}
			if o.Until, err = parseMoment(until, time.Now()); err != nil {
				return &usageError{fmt.Errorf("--until %w", err)}
			}
			name, which, err := a.stationsOf(args)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				o.Stations = ids(which)
			}
			o.Follow = follow
			encoder := json.NewEncoder(tameJSON{a.stdout})
			return lifecycle.Events(c.Context(), a.layout(), name, o, func(e lifecycle.Event) error {
				if a.json {
					return encoder.Encode(e)
				}
				_, err := fmt.Fprintln(a.stdout, eventLine(e))
				return err
			})
		},
	})
	c.Flags().Lookup("json").Usage = "print each event as a line of JSON"
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on")
	c.Flags().StringVar(&since, "since", "", "print only what is not older: 10m, 2006-01-02T15:04:05 or with a zone, or seconds since 1970")
	c.Flags().StringVar(&until, "until", "", "print only what is older; takes the same as --since")
	return c
}

// eventLine is an event for people.
func eventLine(e lifecycle.Event) string {
	parts := []string{e.Time.Local().Format("2006-01-02 15:04:05.000"), string(e.Kind)}
	if e.Station != "" {
		parts = append(parts, e.Station)
	}
	switch {
	case e.Killed > 0:
		parts = append(parts, fmt.Sprintf("(%d killed)", e.Killed))
	case e.OOM:
		parts = append(parts, "(out of memory)")
	case e.Signal != 0:
		parts = append(parts, fmt.Sprintf("(signal %d, %s)", int(e.Signal), e.Signal))
	case e.Code != nil:
		parts = append(parts, fmt.Sprintf("(code %d)", *e.Code))
	}
	if e.Detail != "" {
		show := topology.OneLine
		if e.Kind == lifecycle.EventUnhealthy || e.Kind == lifecycle.EventFailed { // with a station's words
			show = lifecycle.Shortened
		}
		parts = append(parts, show(strings.Join(strings.Fields(e.Detail), " ")))
	}
	return strings.Join(parts, "  ")
}
