package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"platelayer/lifecycle"
)

func (a *app) inspectCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "inspect [STATION]",
		Short: "Print all there is to know about a topology or a station",
		Args:  atMost(1),
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
			if a.json {
				return a.printJSON(found)
			}
			return a.printYAML(found)
		},
	})
}

// printYAML prints a value as its JSON form reads in YAML: the same keys, in
// the same order.
func (a *app) printYAML(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var node yaml.Node // JSON is YAML
	if err := yaml.Unmarshal(text, &node); err != nil {
		return err
	}
	blockStyle(&node)
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(&node); err != nil {
		return err
	}
	_, err = a.stdout.Write(out.Bytes())
	return err
}

// blockStyle lets a node be written as people write YAML: a line each, and quotes
// only where they are needed.
func blockStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		blockStyle(c)
	}
}
