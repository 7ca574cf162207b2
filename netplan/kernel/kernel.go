// Package kernel turns a plan into namespaces, bridges, veths, addresses and
// routes, and takes them away again. It is the only user of netlink and of
// network namespaces.
//
// Nothing here keeps state of its own: what Apply makes hangs on one tmpfs of
// pins, so Remove needs no plan and works on any half-made state.
package kernel

import "fmt"

// Options say where namespaces are pinned and named.
type Options struct {
	// PinDir becomes a tmpfs that holds one pin per namespace, such as
	// /run/platelayer/hello/pins.
	PinDir string
	// NetNSDir is where `ip netns` looks for names: /run/netns.
	NetNSDir string
	// Owner is the topology's name: with PinDir it marks what is made on the
	// machine itself.
	Owner string
	// Workers is the number of threads at work; 0 is min(cores, 4).
	Workers int
}

// Taken says that a name which is needed on the machine belongs to somebody else.
type Taken struct {
	What string // "namespace" or "interface"
	Name string // a namespace's is a path
}

func (e *Taken) Error() string {
	return fmt.Sprintf("cannot use %s name %s: it exists and is not ours", e.What, e.Name)
}

func namespaceTaken(path string) error { return &Taken{"namespace", path} }
func interfaceTaken(name string) error { return &Taken{"interface", name} }

// Unsupported says that the kernel lacks a feature.
type Unsupported struct {
	Feature string
	Err     error
}

func (e *Unsupported) Error() string {
	return fmt.Sprintf("the kernel does not support %s: %v", e.Feature, e.Err)
}

func (e *Unsupported) Unwrap() error { return e.Err }
