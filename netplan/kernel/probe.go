package kernel

// Feature is one thing that the network part asks of a machine.
type Feature struct {
	Name     string
	OK       bool
	Detail   string
	Remedy   string
	Required bool
}

// Probe tells what of the network part this machine can do.
func Probe() []Feature { return nil }
