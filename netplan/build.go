package netplan

import (
	"errors"

	"platelayer/topology"
)

// Build turns a topology into its plan.
func Build(t *topology.Topology) (*Plan, error) {
	return nil, errors.New("cannot plan: not written yet")
}

// Text is the plan in iproute2's words.
func (p *Plan) Text() string { return "" }
