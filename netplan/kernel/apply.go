package kernel

import (
	"context"
	"errors"

	"platelayer/netplan"
)

// Apply brings everything in p up, from nothing.
func Apply(ctx context.Context, p *netplan.Plan, o Options) error {
	return errors.New("cannot apply: not written yet")
}
