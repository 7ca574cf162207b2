package main

import "github.com/spf13/cobra"

func (a *app) netCommand() *cobra.Command {
	c := &cobra.Command{Use: "net", Short: "Look at a topology's network"}
	c.AddCommand(a.netLeaksCommand())
	return c
}
