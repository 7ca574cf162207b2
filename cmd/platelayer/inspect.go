package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
)

func (a *app) inspectCommand() *cobra.Command {
	c := a.jsonFlag(&cobra.Command{
		Use:     "inspect [STATION]",
		Short:   "Print all there is to know about a topology or a station, as JSON",
		Long:    "Print all there is to know about a topology or a station, as JSON." + stationHelp,
		Example: `  platelayer inspect web/lb`,
		Args:    atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name, which, err := a.stationsOf(args)
			if err != nil {
				return err
			}
			var found any
			if len(args) == 0 {
				found, err = lifecycle.Inspect(a.layout(), name)
			} else if len(which) == 1 {
				found, err = lifecycle.InspectStation(a.layout(), name, which[0])
			} else {
				err = &usageError{fmt.Errorf("%s is several stations: name one", args[0])}
			}
			if err != nil {
				return err
			}
			return a.printJSON(found)
		},
	})
	c.Flags().Lookup("json").Usage = "changes nothing: it is JSON anyway"
	return c
}
