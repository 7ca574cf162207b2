package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"platelayer/netplan"
	"platelayer/topology"
)

// atMost checks the number of arguments; too many are wrong usage.
func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := cobra.MaximumNArgs(n)(c, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}

func (a *app) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a commented first topology file",
		Args:  atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := a.path(args)
			f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s is there already", path)
			}
			if err != nil {
				return fmt.Errorf("cannot write the topology file: %w", err)
			}
			_, err = f.WriteString(topology.Starter())
			if err = errors.Join(err, f.Close(), chownToInvoker(path)); err != nil {
				return fmt.Errorf("cannot write the topology file: %w", err)
			}
			fmt.Fprintf(a.stderr, "wrote %s; bring it up with: platelayer up %s\n", path, path)
			return nil
		},
	}
}

// checked is what `check --json` prints.
type checked struct {
	OK       bool               `json:"ok"`
	Name     string             `json:"name,omitempty"`
	Stations int                `json:"stations"`
	Problems []topology.Problem `json:"problems"`
}

func (a *app) checkCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a topology file and tell all its problems",
		Args:  atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := a.path(args)
			t, err := a.load(path)
			var problems topology.Problems
			if a.json && (err == nil || errors.As(err, &problems)) {
				result := checked{OK: err == nil, Problems: append([]topology.Problem{}, problems...)}
				if t != nil && err == nil {
					result.Name, result.Stations = t.Name, countStations(t)
				}
				if err := a.printJSON(result); err != nil {
					return err
				}
				if !result.OK {
					return &exitCode{code: exitInvalid}
				}
				return nil
			}
			if err != nil {
				return err
			}
			if _, err := netplan.Build(t); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s: topology %q is fine: %s, %s\n", path, t.Name, plural(len(t.Clusters), "cluster"), plural(countStations(t), "station"))
			return nil
		},
	})
}

func countStations(t *topology.Topology) int {
	n := 0
	for _, c := range t.Clusters {
		n += len(c.Stations)
	}
	return n
}

func (a *app) configCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "config [FILE]",
		Short: "Print the topology file with everything filled in",
		Args:  atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := a.load(a.path(args))
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(t)
			}
			text, err := t.YAML()
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(text)
			return err
		},
	})
}

func (a *app) planCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "plan [FILE]",
		Short: "Print what up would make of the network, as iproute2 would say it",
		Args:  atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := a.load(a.path(args))
			if err != nil {
				return err
			}
			plan, err := netplan.Build(t)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(plan)
			}
			_, err = a.stdout.WriteString(plan.Text())
			return err
		},
	})
}

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of topology files, for editors",
		Args:  atMost(0),
		RunE: func(*cobra.Command, []string) error {
			text, err := topology.Schema()
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(text)
			return err
		},
	}
}
