package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/topology"
)

func (a *app) netDNSCommand() *cobra.Command {
	count := 0
	c := a.jsonFlag(&cobra.Command{
		Use:   "dns [FILE|NAME]",
		Short: "Print DNS questions as stations ask them, and what they are answered",
		Long: `Print each DNS question that the backbone answers from now on, until you press
Ctrl-C or the topology is down: when, which station asked for what, the answer, and
where it is from: own (the topology's names), cache or upstream. Nothing is noted
while nobody looks.`,
		Example: `  platelayer net dns
  platelayer net dns --count 1 --json shop`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := a.target(args)
			if err != nil {
				return err
			}
			a.tend(name)
			encoder, n := json.NewEncoder(tameJSON{a.stdout}), 0
			ctx, stop := context.WithCancel(c.Context())
			defer stop()
			return lifecycle.Questions(ctx, a.layout(), name, func(q lifecycle.Question) (err error) {
				if a.json {
					err = encoder.Encode(q)
				} else {
					_, err = fmt.Fprintln(a.stdout, questionLine(q))
				}
				if n++; n == count {
					stop()
				}
				return err
			})
		},
	})
	c.Flags().Lookup("json").Usage = "print each question as a line of JSON"
	c.Flags().IntVar(&count, "count", 0, "end after this many questions; 0 is never")
	return c
}

// questionLine is a question for people.
func questionLine(q lifecycle.Question) string {
	who := q.Station
	if who == "" {
		who = q.From.String()
	}
	line := fmt.Sprintf("%s  %s  %s %s  %s", q.Time.Local().Format("15:04:05.000"), who, q.Type, q.Name, q.Rcode)
	if len(q.Answer) > 0 {
		line += "  " + strings.Join(q.Answer, ", ")
	}
	line += fmt.Sprintf("  (%s, %s)", q.Source, q.Took.Round(time.Microsecond))
	if q.Lost > 0 {
		line += fmt.Sprintf("  %d before it were lost", q.Lost)
	}
	return topology.OneLine(line)
}
