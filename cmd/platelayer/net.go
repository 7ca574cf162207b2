package main

import "github.com/spf13/cobra"

func (a *app) netCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "net",
		Short: "Look at the network of a topology",
		Args:  cobra.NoArgs,
	}
	c.AddCommand(a.netDNSCommand())
	return c
}
