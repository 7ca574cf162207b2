package main

import "github.com/spf13/cobra"

func (a *app) netCommand() *cobra.Command {
	c := a.reachCommand()
	c.AddCommand(a.netCheckCommand(), a.netDNSCommand(), a.netLeaksCommand())
	return c
}
