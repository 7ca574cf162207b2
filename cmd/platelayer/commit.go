package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
)

func (a *app) commitCommand() *cobra.Command {
	var o lifecycle.CommitOptions
	c := a.jsonFlag(&cobra.Command{
		Use:   "commit STATION NAME",
		Short: "Make an image of what a station wrote",
		Long: `Make an image of what a station wrote: one more layer on the image that it runs
on. Of a station on a folder, on the machine's own programs or on the built-in image,
all of its root becomes one layer. A station that runs is paused meanwhile.

Volumes and what else is mounted is no part of it, nor are sockets and the
files that the program itself writes: /etc/hosts, hostname and resolv.conf. The
configuration is the image's, not what the topology says instead; a change is one
of a Dockerfile's instructions, as in image import. With SOURCE_DATE_EPOCH, in
seconds, the same files give the same digest.` + stationHelp,
		Example: `  platelayer commit web/www1 shop/www:patched -m 'with the fix'
  platelayer commit db shop/db:filled -c 'CMD ["postgres"]'`,
		Args:              atLeast(2, "commit needs a station and a name for the image"),
		ValidArgsFunction: a.completeSecond,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if err := atMost(2)(c, args); err != nil {
				return err
			}
			if o.Name, err = newName(args[1]); err != nil {
				return err
			}
			if o.Created, err = buildTime(); err != nil {
				return err
			}
			name, which, err := a.stationsOf(args[:1])
			if err != nil {
				return err
			}
			if len(which) != 1 {
				return &usageError{fmt.Errorf("%s is %d stations: name one", args[0], len(which))}
			}
			o.Notice = func(text string) {
				if !a.quiet {
					fmt.Fprintf(a.stderr, "platelayer: %s\n", harmless(text))
				}
			}
			i, err := lifecycle.Commit(c.Context(), a.layout(), name, which[0], o)
			if err != nil {
				return fmt.Errorf("cannot make an image of %s: %w", which[0].ID(), err)
			}
			if a.json {
				return a.printJSON(map[string]string{"name": o.Name, "digest": i.Digest.String()})
			}
			fmt.Fprintf(a.stdout, "%s %s\n", shortName(o.Name), i.Digest)
			return nil
		},
	})
	c.Flags().StringArrayVarP(&o.Changes, "change", "c", nil, "change its configuration: 'ENV A=B', 'CMD [\"/bin/sh\"]', ...")
	c.Flags().StringVarP(&o.Comment, "message", "m", "", "a comment for its history")
	c.Flags().StringVarP(&o.Author, "author", "a", "", "who made it")
	return c
}
