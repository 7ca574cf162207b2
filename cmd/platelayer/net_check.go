package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/netplan"
)

func (a *app) netCheckCommand() *cobra.Command {
	sample := 0
	c := a.jsonFlag(&cobra.Command{
		Use:   "check [FILE|NAME]",
		Short: "Compare who reaches whom with real packets",
		Long: `Compare who reaches whom with real packets: ICMP echo requests between all
stations of a running topology, from inside their network namespaces. Kernels ask
and answer, no program of a station takes part. Where an answer is another than
the plan says, the pair is printed and the exit code is 1: a filter on a station,
a changed route, an interface that is down.`,
		Example: `  platelayer net check
  platelayer net check --sample 0 --json shop`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			if sample < 0 {
				return &usageError{fmt.Errorf("--sample %d is less than none", sample)}
			}
			name, err := a.target(args)
			if err != nil {
				return err
			}
			began := time.Now()
			result, err := lifecycle.CheckNet(c.Context(), a.layout(), name, sample)
			if err != nil {
				return err
			}
			differ := len(result.Differences)
			switch {
			case a.json:
				if err := a.printJSON(result); err != nil {
					return err
				}
				if differ > 0 {
					return &exitCode{code: exitFailed}
				}
				return nil
			case differ > 0:
				if err := a.printDifferences(result.Differences); err != nil {
					return err
				}
				return fmt.Errorf("%d of %d pairs are not as planned", differ, result.Asked)
			}
			of := ""
			if result.Asked < result.Pairs {
				of = fmt.Sprintf(" of %d", result.Pairs)
			}
			fmt.Fprintf(a.stdout, "%s: %s%s as planned, %d answered, in %s\n", name, plural(result.Asked, "pair"), of, result.Answered, round(time.Since(began)))
			return nil
		},
	})
	c.Flags().IntVar(&sample, "sample", 20000, "ask at most this many pairs, the same ones each time; 0 is all")
	return c
}

func (a *app) printDifferences(all []lifecycle.NetDifference) error {
	const most = 100
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FROM\tTO\tADDRESS\tPLAN\tPACKETS")
	for _, d := range all[:min(most, len(all))] {
		packets := "no answer"
		if d.Answered {
			packets = "an answer"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.From, d.To, d.Address, planOf(&d.Path), packets)
	}
	if len(all) > most {
		fmt.Fprintf(w, "and %d more\n", len(all)-most)
	}
	return w.Flush()
}

// planOf words what the plan says of a pair.
func planOf(r *netplan.Reach) string {
	if broken := r.Broken(); broken != nil {
		return "no: " + string(broken.Why)
	}
	var through []string
	for _, h := range r.There.Hops[1 : len(r.There.Hops)-1] {
		through = append(through, h.Name)
	}
	if len(through) == 0 {
		return "direct"
	}
	return "through " + strings.Join(through, ", ")
}
