package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/topology"
)

func (a *app) psCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "ps [FILE|NAME]",
		Short: "List a topology's stations, their health and restarts",
		Example: `  platelayer ps
  platelayer ps --json shop`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name, err := a.target(args)
			if err != nil {
				return err
			}
			a.tend(name)
			list, err := lifecycle.Ps(a.layout(), name)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(list)
			}
			if ailing := lifecycle.Ailing(a.layout(), name); ailing != "" {
				fmt.Fprintf(a.stderr, "platelayer: topology %q: %s\n", name, ailing)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			onImages := slices.ContainsFunc(list, func(s lifecycle.Station) bool { return s.Digest != "" })
			fmt.Fprintln(w, "STATION\tCLUSTER\tSTATE\tADDRESSES\tPID\tSINCE"+columnIf(onImages, "IMAGE"))
			for _, s := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s%s\n", s.Name, s.Cluster, stateOf(s), joinAddrs(s.Addresses), pidOf(s), since(s.StartedAt),
					columnIf(onImages, imageText(s.Image, s.Digest)))
			}
			return w.Flush()
		},
	})
}

// columnIf is one more cell of a row, or none.
func columnIf(there bool, text string) string {
	if !there {
		return ""
	}
	return "\t" + text
}

// imageText is an image's name and as much of its digest as people compare.
func imageText(name, digest string) string {
	if h, err := v1.NewHash(digest); err == nil {
		return name + " " + short(h)
	}
	return name
}

func stateOf(s lifecycle.Station) string {
	var more []string
	if s.ExitCode != nil {
		more = append(more, fmt.Sprint(*s.ExitCode))
	}
	if s.OOM {
		more = append(more, "out of memory")
	}
	if s.OOMKills > 0 && !s.OOM {
		more = append(more, plural(s.OOMKills, "OOM kill"))
	}
	if s.Health != nil {
		more = append(more, *s.Health)
	}
	if s.Restarts > 0 {
		more = append(more, plural(s.Restarts, "restart"))
	}
	if len(more) == 0 {
		return s.State
	}
	return s.State + " (" + strings.Join(more, ", ") + ")"
}

func pidOf(s lifecycle.Station) string {
	if s.Pid == 0 {
		return "-"
	}
	return fmt.Sprint(s.Pid)
}

func joinAddrs(addrs []netip.Addr) string {
	text := make([]string, len(addrs))
	for i, a := range addrs {
		text[i] = a.String()
	}
	return strings.Join(text, ",")
}

func since(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return max(0, time.Since(*t)).Round(time.Second).String()
}

func (a *app) lsCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "ls",
		Short:   "List the topologies on this machine",
		Example: `  platelayer ls`,
		Args:    atMost(0),
		RunE: func(*cobra.Command, []string) error {
			list, err := lifecycle.Ls(a.layout())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(list)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tSTATUS\tRUNNING\tSINCE\tFILE")
			for _, t := range list {
				fmt.Fprintf(w, "%s\t%s\t%d/%d\t%s\t%s\n", t.Name, t.Status, t.Running, t.Stations, since(t.Started), topology.OneLine(t.File))
			}
			return w.Flush()
		},
	})
}
