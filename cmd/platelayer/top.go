package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/topology"
)

func (a *app) topCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "top [STATION...]",
		Short: "Show the processes that stations run",
		Long: `Show the processes that stations run: PID is a process's number on the machine,
INSIDE the one in its station, CPU its share of one processor since it started,
MEMORY what of it is in memory. No station named means all.` + stationHelp,
		Example: `  platelayer top web/lb`,
		RunE: func(_ *cobra.Command, args []string) error {
			name, which, err := a.stationsOf(args)
			if err != nil {
				return err
			}
			processes, err := lifecycle.Top(a.layout(), name, which)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(processes)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "STATION\tUSER\tPID\tINSIDE\tCPU\tMEMORY\tTIME\tCOMMAND")
			for _, p := range processes {
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%.1f%%\t%s\t%s\t%s\n", p.Station, topology.OneLine(p.User), p.Pid, p.InnerPid,
					p.CPUPercent, size(uint64(p.Memory)), p.CPU.Round(10*time.Millisecond), topology.OneLine(p.Command))
			}
			return w.Flush()
		},
	})
}
