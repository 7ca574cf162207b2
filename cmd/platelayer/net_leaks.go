package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/topology"
)

func (a *app) netLeaksCommand() *cobra.Command {
	var follow bool
	c := a.jsonFlag(&cobra.Command{
		Use:   "leaks [FILE|NAME]",
		Short: "List what stations tried to reach outside of the topology",
		Long: `List what stations tried to reach outside of the topology since it came up: the
address, the name that DNS has called it, how often, when first and last, the
program of the first try, where it could be found, and what became of it:

  allowed   it was connected; of udp and icmp (ping): sent
  refused   egress does not allow it, and nothing left the machine
  failed    outside did not take it, or the machine could not

A line of protocol dns is a name that was asked for.`,
		Example: `  platelayer net leaks
  platelayer net leaks --follow --json shop`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := a.target(args)
			if err != nil {
				return err
			}
			if follow {
				encoder := json.NewEncoder(tameJSON{a.stdout})
				return lifecycle.FollowLeaks(c.Context(), a.layout(), name, func(l lifecycle.Leak) error {
					if a.json {
						return encoder.Encode(l)
					}
					_, err := fmt.Fprintln(a.stdout, leakLine(l, "  "))
					return err
				})
			}
			all, err := lifecycle.Leaks(a.layout(), name)
			if err != nil {
				return err
			}
			if a.json {
				if all == nil {
					all = []lifecycle.Leak{}
				}
				return a.printJSON(all)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "FIRST\tLAST\tSTATION\tPROTOCOL\tDESTINATION\tNAME\tTIMES\tOUTCOME\tPROCESS")
			for _, l := range all {
				fmt.Fprintln(w, leakLine(l, "\t"))
			}
			return w.Flush()
		},
	})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is tried from now on")
	return c
}

// leakLine is a record for people.
func leakLine(l lifecycle.Leak, gap string) string {
	to := "-"
	switch {
	case l.Address.IsValid() && l.Port == 0:
		to = l.Address.String()
	case l.Address.IsValid():
		to = netip.AddrPortFrom(l.Address, l.Port).String()
	case l.Name == "":
		to = "others"
	}
	outcome := l.Outcome
	if l.Reason != "" {
		outcome += " (" + l.Reason + ")"
	}
	moment := func(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
	line := moment(l.First) + gap + moment(l.Last)
	for _, word := range []string{l.Station, l.Protocol, to, cmp.Or(l.Name, "-"), fmt.Sprint(l.Count), outcome, cmp.Or(l.Process, "-")} {
		line += gap + topology.OneLine(word)
	}
	return line
}
