package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"platelayer/containers/image"
	"platelayer/graph"
	"platelayer/lifecycle"
	"platelayer/netplan"
	"platelayer/topology"
)

func (a *app) graphCommand() *cobra.Command {
	var (
		o      graph.Options
		out    string
		format string
	)
	c := &cobra.Command{
		Use:   "graph [FILE|NAME]",
		Short: "Draw the network, for a wiki",
		Long: `Draw the network, for a wiki: clusters with their switches, the backbone,
gateways, links, addresses, published ports, and what leads to the machine and
outside; of a topology that is named, and not its file, the state of its stations
too, and the ports that they got.`,
		Example: `  platelayer graph -o network.svg
  platelayer graph --dark shop > shop.svg
  platelayer graph --format dot | dot -Tpng > network.png`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			t, name, err := a.described(args)
			if err != nil {
				return err
			}
			if name != "" {
				if o.States, err = a.states(name); err != nil {
					return err
				}
				if t, err = a.published(t, name); err != nil {
					return err
				}
			}
			uplink, _ := netplan.BuildUplink(t, nil)
			o.Routed = uplink.Routes
			text := ""
			switch format {
			case "svg":
				text = graph.SVG(t, o)
			case "mermaid":
				text = graph.Mermaid(t, o)
			case "dot":
				text = graph.Dot(t, o)
			default:
				return &usageError{fmt.Errorf("no format %q: it is svg, mermaid or dot", format)}
			}
			if out == "" || out == "-" {
				_, err = a.stdout.WriteString(text)
				return err
			}
			err = image.WriteFile(out, 0o644, invoker(), func(w io.Writer, _ string) error {
				_, err := io.WriteString(w, text)
				return err
			})
			if err != nil {
				return fmt.Errorf("cannot write the picture: %w", err)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&o.Dark, "dark", false, "draw on a dark ground")
	c.Flags().StringVarP(&out, "output", "o", "", "write to this file")
	c.Flags().StringVar(&format, "format", "svg", "svg, mermaid or dot")
	return c
}

// published has the ports that a running topology really has in the place of
// those of the file: free ones are chosen by up.
func (a *app) published(t *topology.Topology, name string) (*topology.Topology, error) {
	ports, err := lifecycle.Ports(a.layout(), name)
	if err != nil || len(ports) == 0 {
		return t, err
	}
	for _, s := range t.Stations() {
		s.Ports = nil
		for _, p := range ports {
			if p.Station == s.ID() {
				s.Ports = append(s.Ports, topology.Port{Target: p.Target, Protocol: p.Protocol, HostIP: p.HostIP, Published: p.Port})
			}
		}
	}
	return t, nil
}

// states are those of a topology's stations, in a word.
func (a *app) states(name string) (map[string]graph.State, error) {
	list, err := lifecycle.Ps(a.layout(), name)
	if err != nil {
		return nil, err
	}
	all := map[string]graph.State{}
	for _, s := range list {
		state := graph.State{Word: s.State, Tone: toneOf(s)}
		if s.Health != nil && s.State == lifecycle.Running {
			state.Word = *s.Health
		}
		all[s.Cluster+"/"+s.Name] = state
	}
	return all, nil
}

func toneOf(s lifecycle.Station) graph.Tone {
	health := "healthy"
	if s.Health != nil {
		health = *s.Health
	}
	switch {
	case s.State == lifecycle.Running && health == "healthy":
		return graph.Good
	case s.State == lifecycle.Running && health == "unhealthy", s.State == lifecycle.Refused:
		return graph.Bad
	case s.State == lifecycle.Exited && s.ExitCode != nil && *s.ExitCode == 0, s.State == lifecycle.Stopped, s.State == lifecycle.Created:
		return graph.Idle
	case s.State == lifecycle.Exited:
		return graph.Bad
	}
	return graph.Busy
}
