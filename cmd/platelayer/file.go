package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/netplan"
	"platelayer/topology"
)

// atMost checks the number of arguments; too many are wrong usage.
func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		return &usageError{fmt.Errorf("%q is too much: the command is used as %s", args[n], strings.TrimSuffix(c.UseLine(), " [flags]"))}
	}
}

// subcommand refuses what is no command below another, and says which was meant.
func subcommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	c.SuggestionsMinimumDistance = 2
	err := fmt.Errorf("there is no command %s %s", c.Name(), args[0])
	near := below(c, args[0])
	if len(near) == 0 {
		near = c.SuggestionsFor(args[0])
	}
	if len(near) > 0 {
		err = fmt.Errorf("%w: %s?", err, strings.Join(near, " or "))
	}
	return &usageError{err}
}

// below finds a command one level further down, such as image pull, which others
// have at the top, or by another name.
func below(c *cobra.Command, name string) (paths []string) {
	for _, group := range c.Commands() {
		for _, s := range group.Commands() {
			if s.Name() == name || slices.Contains(s.SuggestFor, name) {
				paths = append(paths, group.Name()+" "+s.Name())
			}
		}
	}
	return paths
}

func (a *app) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "init [FILE]",
		Short:   "Write a commented first topology file",
		Example: `  platelayer init && platelayer up`,
		Args:    atMost(1),
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
			if err = errors.Join(err, invoker().Give(f), f.Close()); err != nil {
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
		Example: `  platelayer check
  platelayer check --json test/platelayer.yaml`,
		Args: atMost(1),
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
	secrets := false
	c := a.jsonFlag(&cobra.Command{
		Use:   "config [FILE]",
		Short: "Print the topology file with everything filled in",
		Long: `Print the topology file with everything filled in. What secrets hold is left
out without --secrets; one of the environment's is printed by the variable's name.`,
		Example: `  platelayer config
  platelayer config -n copy shop/platelayer.yaml`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := a.load(a.path(args))
			if err != nil {
				return err
			}
			if !secrets {
				t = t.WithoutSecrets()
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
	c.Flags().BoolVar(&secrets, "secrets", false, "print what secrets hold too")
	return c
}

// planned is what `plan --json` prints: the plan, the machine's way to the
// stations, null for none, and what up would change of a running topology, null
// where none runs.
type planned struct {
	*netplan.Plan
	Uplink  *netplan.Uplink          `json:"uplink"`
	Changes []lifecycle.Change       `json:"changes"`
	Images  []lifecycle.PlannedImage `json:"images,omitempty"`
}

// imagesText tells which images a plan's stations run on.
func imagesText(images []lifecycle.PlannedImage) string {
	if len(images) == 0 {
		return ""
	}
	text := "\n# images\n"
	for _, i := range images {
		text += fmt.Sprintf("image %s %s  %s\n", i.Name, cmp.Or(i.Digest, "(not known here)"), strings.Join(i.Stations, " "))
	}
	return text
}

func (a *app) planCommand() *cobra.Command {
	var (
		all, recreate bool
		only          []string
	)
	c := a.jsonFlag(&cobra.Command{
		Use:   "plan [FILE]",
		Short: "Print what up would do, and do nothing",
		Long: `Print what up would do, and do nothing: the whole network, in the words of
iproute2; or, where the topology runs, what of it would change, and why:

  + create   ~ change in place   ! recreate   > start   - remove

Only root can see what runs.`,
		Example: `  platelayer plan
  platelayer plan --only web/lb --json`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := a.load(a.path(args))
			if err != nil {
				return err
			}
			t, chosen, err := a.selected(t, only)
			if err != nil {
				return err
			}
			plan, err := netplan.Build(t)
			if err != nil {
				return err
			}
			uplink, without, err := lifecycle.PlanUplink(t)
			if err != nil {
				return err
			}
			var changes []lifecycle.Change
			up := false
			if os.Geteuid() == 0 { // nobody else may see what runs
				if changes, up, err = lifecycle.Pending(a.layout(), t, recreate, chosen); err != nil {
					return err
				}
			}
			images, err := lifecycle.PlannedImages(a.layout(), t)
			if err != nil {
				return err
			}
			switch {
			case a.json:
				if up && changes == nil {
					changes = []lifecycle.Change{}
				}
				return a.printJSON(planned{plan, uplink, changes, images})
			case up && !all && len(changes) == 0:
				fmt.Fprintf(a.stdout, "%s: up already, nothing would change\n", t.Name)
				return nil
			case up && !all:
				lifecycle.WriteChanges(a.stdout, changes)
				return nil
			}
			text := plan.Text()
			if uplink != nil {
				text += uplink.Text(t.Name)
			}
			if len(without) > 0 {
				text += "\n# " + strings.Join(without, "\n# ") + "\n"
			}
			_, err = a.stdout.WriteString(text + imagesText(images))
			return err
		},
	})
	c.Flags().BoolVar(&all, "all", false, "print the whole plan of a running topology too")
	c.Flags().BoolVar(&recreate, "recreate", false, "as up --recreate")
	c.Flags().StringSliceVar(&only, "only", nil, "as up --only")
	c.Flags().StringToIntVar(&a.scale, "scale", nil, "as up --scale")
	return c
}

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of topology files, for editors",
		Example: `  platelayer schema >platelayer.schema.json`,
		Args:    atMost(0),
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
