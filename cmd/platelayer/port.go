package main

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
)

func (a *app) portCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "port [STATION [PORT[/PROTOCOL]]]",
		Short: "Show the machine's ports that lead to stations",
		Long: `Show the machine's ports that lead to stations: those of all, those of one, or
the one that leads to one port.` + stationHelp,
		Example: `  platelayer port
  platelayer port www1 80
  platelayer port dns 53/udp`,
		Args: atMost(2),
		RunE: func(_ *cobra.Command, args []string) error {
			name, which, err := a.stationsOf(args[:min(len(args), 1)])
			if err != nil {
				return err
			}
			ports, err := lifecycle.Ports(a.layout(), name)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				ports = slices.DeleteFunc(ports, func(p lifecycle.PublishedPort) bool { return !slices.Contains(ids(which), p.Station) })
			}
			if len(args) == 2 {
				target, protocol, given := strings.Cut(args[1], "/")
				if !given {
					protocol = "tcp"
				}
				ports = slices.DeleteFunc(ports, func(p lifecycle.PublishedPort) bool {
					return strconv.Itoa(int(p.Target)) != target || p.Protocol != protocol
				})
				if len(ports) == 0 {
					return fmt.Errorf("port %s/%s of station %s is not published", target, protocol, args[0])
				}
			}
			switch {
			case a.json:
				return a.printJSON(ports)
			case len(args) == 2:
				for _, p := range ports {
					fmt.Fprintln(a.stdout, publishedAt(p))
				}
				return nil
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "STATION\tPORT\tPUBLISHED")
			for _, p := range ports {
				fmt.Fprintf(w, "%s\t%d/%s\t%s\n", p.Station, p.Target, p.Protocol, publishedAt(p))
			}
			return w.Flush()
		},
	})
}

// publishedAt is where a port listens, all addresses as compose has them.
func publishedAt(p lifecycle.PublishedPort) string {
	host := "0.0.0.0"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(p.Port)))
}
