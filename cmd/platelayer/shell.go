package main

import (
	"errors"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"platelayer/lifecycle"
)

func (a *app) shellCommand() *cobra.Command {
	var o lifecycle.ExecOptions
	c := &cobra.Command{
		Use:   "shell STATION",
		Short: "Open a shell in a running station: bash where it has one, sh otherwise",
		Example: `  platelayer shell web/lb
  platelayer shell -u nobody lb`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{errors.New("shell needs a station")}
			}
			o.Args = []string{"/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash; exec sh"}
			o.TTY = term.IsTerminal(int(a.stdin.Fd())) && term.IsTerminal(int(a.stdout.Fd()))
			return a.exec(args[0], o)
		},
	}
	c.Flags().StringVarP(&o.User, "user", "u", "", "user to run as (default: the station's)")
	return c
}
