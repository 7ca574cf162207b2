package lifecycle

import (
	"errors"

	"platelayer/containers"
	"platelayer/containers/image"
	"platelayer/containers/native"
	"platelayer/netplan/kernel"
)

// Finding is one thing the machine can or cannot do.
type Finding struct {
	Part     string `json:"part"` // containers or network
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Required bool   `json:"required"`
	Detail   string `json:"detail"`
	Remedy   string `json:"remedy,omitempty"`
}

// Trust says what running a topology file means.
const Trust = "running a topology file trusts it as one trusts a root script; parsing it never harms"

// Doctor looks at what this machine can and cannot do. It changes nothing.
func Doctor() []Finding {
	var all []Finding
	for _, f := range native.Probe() {
		all = append(all, Finding{"containers", f.Name, f.OK, f.Required, f.Detail, f.Remedy})
	}
	for _, f := range kernel.Probe() {
		all = append(all, Finding{"network", f.Name, f.OK, f.Required, f.Detail, f.Remedy})
	}
	return append(all, Finding{Part: "containers", Name: "trust", OK: true, Detail: Trust})
}

// missingFeature names the feature whose lack made err, or "".
func missingFeature(err error) string {
	var (
		engine  *containers.Unsupported
		network *kernel.Unsupported
		dynamic image.DynamicError
		keepers *lacking
	)
	switch {
	case errors.As(err, &engine):
		return engine.Feature
	case errors.As(err, &network):
		return network.Feature
	case errors.As(err, &dynamic):
		return "static program"
	case errors.As(err, &keepers):
		return keepers.feature
	}
	return ""
}

// Unsupported reports whether err means that the machine can't do it.
func Unsupported(err error) bool { return missingFeature(err) != "" }
