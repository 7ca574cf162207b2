package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/topology"
)

func (a *app) statsCommand() *cobra.Command {
	var once bool
	c := a.jsonFlag(&cobra.Command{
		Use:   "stats [STATION...]",
		Short: "Show what stations use: processors, memory, threads, block and network I/O",
		Long: `Show what stations that run use. On a terminal the table is drawn anew each
second until Ctrl-C; elsewhere, and with --json, it is printed once.
THREADS (pids in JSON) are those of all processes together, which pids_limit
limits; top lists the processes.`,
		Example: `  platelayer stats
  platelayer stats --no-stream web/lb`,
		RunE: func(c *cobra.Command, args []string) error {
			name, which, err := a.stationsOf(args)
			if err != nil {
				return err
			}
			if a.json || once || !terminalOf(a.stdout) {
				return a.statsOnce(c.Context(), name, which)
			}
			return a.statsLive(c.Context(), name, which)
		},
	})
	c.Flags().BoolVar(&once, "no-stream", false, "print the table once")
	return c
}

func (a *app) statsOnce(ctx context.Context, name string, which []*topology.Station) error {
	const span = 200 * time.Millisecond
	first, err := lifecycle.Stats(a.layout(), name, which, nil)
	if err != nil {
		return err
	}
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return ctx.Err()
	}
	used, err := lifecycle.Stats(a.layout(), name, which, first)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(used)
	}
	return writeStats(a.stdout, used)
}

func (a *app) statsLive(ctx context.Context, name string, which []*topology.Station) error {
	area := &liveArea{out: a.stdout, size: func() (int, int) { return terminalSize(a.stdout) }}
	var used []lifecycle.Usage
	for pause := 200 * time.Millisecond; ; pause = time.Second {
		var err error
		if used, err = lifecycle.Stats(a.layout(), name, which, used); err != nil {
			return err
		}
		var table strings.Builder
		if err := writeStats(&table, used); err != nil {
			return err
		}
		width, height := area.size()
		lines := strings.Split(strings.TrimRight(table.String(), "\n"), "\n")
		for i, line := range lines {
			lines[i] = line[:min(len(line), width-1)]
		}
		area.frame("", lines[:min(len(lines), max(1, height-1))])
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func writeStats(out io.Writer, used []lifecycle.Usage) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STATION\tCPU\tMEMORY\tLIMIT\tTHREADS\tNET IN\tNET OUT\tBLOCK IN\tBLOCK OUT")
	for _, u := range used {
		limit := "-"
		if u.MemoryLimit > 0 {
			limit = size(uint64(u.MemoryLimit))
		}
		fmt.Fprintf(w, "%s\t%.1f%%\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", u.Station, u.CPUPercent, size(uint64(u.Memory)), limit, u.Pids,
			size(u.NetReceive), size(u.NetSend), size(u.BlockRead), size(u.BlockWrite))
	}
	return w.Flush()
}

// size is a number of bytes for people.
func size(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, units := float64(n)/unit, "KMGT"
	for value >= unit && len(units) > 1 {
		value, units = value/unit, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, units[0])
}
