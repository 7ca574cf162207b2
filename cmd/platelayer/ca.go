package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
)

func (a *app) caCommand() *cobra.Command {
	var fingerprint bool
	c := a.jsonFlag(&cobra.Command{
		Use:   "ca [FILE|NAME]",
		Short: "Print the certificate authority of a topology, for the machine's browser",
		Long: `Print the certificate of the authority that signs for stations with tls, as
PEM: a browser that trusts it shows https://STATION without a warning. It may
sign for the topology's domains and subnets only, outlives down, and goes with
down --volumes. Its key never leaves the state folder.`,
		Example: `  platelayer ca > shop.pem
  curl --cacert shop.pem https://www.shop.example/
  platelayer ca --fingerprint`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name, err := a.target(args)
			if err != nil {
				return err
			}
			ca, err := lifecycle.ReadCA(a.layout(), name)
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(ca)
			case fingerprint:
				_, err = fmt.Fprintln(a.stdout, ca.Fingerprint)
			default:
				_, err = fmt.Fprint(a.stdout, ca.Certificate)
			}
			return err
		},
	})
	c.Flags().BoolVar(&fingerprint, "fingerprint", false, "print its SHA-256 fingerprint instead, as browsers show it")
	return c
}
