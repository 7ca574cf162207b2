package main

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
)

// windowsNames is how many names of a line Windows reads.
const windowsNames = 9

func (a *app) hostsCommand() *cobra.Command {
	var windows bool
	c := a.jsonFlag(&cobra.Command{
		Use:   "hosts [FILE|NAME]",
		Short: "Print the stations' names and addresses as a hosts file has them",
		Long: `Print the stations' names and addresses as lines for a hosts file. up --hosts puts
them into the machine's own, until down.

With --windows they are for the hosts file of the Windows that runs this machine
in WSL. It reaches the addresses where it has a route to them.`,
		Example: `  platelayer hosts
  platelayer hosts --windows shop`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name, err := a.target(args)
			if err != nil {
				return err
			}
			t, err := lifecycle.Recorded(a.layout(), name)
			if unknown := new(lifecycle.NotKnown); errors.As(err, &unknown) && len(args) == 0 {
				t, err = a.load(a.path(nil))
			}
			if err != nil {
				return err
			}
			lines := lifecycle.HostLines(t)
			if a.json {
				return a.printJSON(lines)
			}
			end, most := "\n", math.MaxInt
			if windows {
				end, most = "\r\n", windowsNames
				fmt.Fprintf(a.stdout, "# for C:\\Windows\\System32\\drivers\\etc\\hosts%s", end)
			}
			for _, l := range lines {
				for names := range slices.Chunk(l.Names, most) {
					fmt.Fprintf(a.stdout, "%s%s", lifecycle.HostLine{Address: l.Address, Names: names}, end)
				}
			}
			return nil
		},
	})
	c.Flags().BoolVar(&windows, "windows", false, "print them for the hosts file of Windows")
	return c
}
