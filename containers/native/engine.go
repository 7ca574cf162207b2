package native

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// Engine makes containers as children of this process.
type Engine struct {
	config  Config
	pool    *pool
	base    *base
	sys     []string // folders of /sys to mask
	common  *program
	filter  *unix.SockFprog
	cgroups *hierarchies
	devices int // the device filter's program, or -1

	initOnce sync.Once // the program for containers' process 1
	init     int
	initErr  error

	etcOnce sync.Once // the layer that hides what is private in /etc
	etcErr  error
}

// New makes what all containers share: worker threads, the base namespace, the
// compiled filters.
func New(c Config) (*Engine, error) {
	if !vforkSupported {
		return nil, &containers.Unsupported{Feature: "an engine for " + runtime.GOARCH}
	}
	if c.Workers <= 0 {
		c.Workers = min(runtime.NumCPU(), 4)
	}
	e := &Engine{config: c, sys: maskedSys(), common: commonSteps(), devices: -1, init: -1}
	var err error
	if e.filter, err = defaultFilter(defaultCaps); err != nil {
		return nil, err
	}
	e.cgroups = findHierarchies()
	if err := e.cgroups.make(c.Cgroup); err != nil {
		return nil, err
	}
	if e.devices, err = e.cgroups.loadDeviceFilter(nil); err != nil {
		return nil, err
	}
	err = onThread(func(t *thread) error {
		e.base, err = newBase(t)
		return err
	})
	if err != nil {
		closeFD(e.devices)
		return nil, err
	}
	e.pool = newPool(c.Workers)
	return e, nil
}

// Close gives back what the engine holds; containers run on.
func (e *Engine) Close() error {
	e.pool.close()
	e.base.close()
	closeFD(e.devices)
	closeFD(e.init)
	return nil
}

// Prepare assembles a container's root on one of the engine's threads.
func (e *Engine) Prepare(ctx context.Context, spec *containers.Spec) (containers.Container, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(spec.Args) == 0 {
		return nil, fmt.Errorf("cannot prepare %s: it has no command", spec.Name)
	}
	if err := checkResources(spec.MemoryBytes, spec.Pids, &spec.Resources); err != nil {
		return nil, fmt.Errorf("cannot prepare %s: %w", spec.Name, err)
	}
	c := &container{engine: e, spec: spec, ns: newNSSet(), baseFD: -1, cwd: -1, procFD: -1, shm: -1}
	var err error
	if c.powers, err = grantedPowers(specPowers(spec), e.filter); err != nil {
		return nil, fmt.Errorf("cannot prepare %s: %w", spec.Name, err)
	}
	if c.devices, err = findDevices(spec); err != nil {
		return nil, fmt.Errorf("cannot prepare %s: %w", spec.Name, err)
	}
	if spec.Init || spec.Idle {
		e.initOnce.Do(func() { e.init, e.initErr = openInit() })
		if e.initErr != nil {
			return nil, fmt.Errorf("cannot prepare %s: %w", spec.Name, e.initErr)
		}
	}
	if err := e.pool.do(func(t *thread) error { return c.prepare(ctx, t) }); err != nil {
		c.release()
		return nil, fmt.Errorf("cannot prepare %s: %w", spec.Name, err)
	}
	return c, nil
}

// container is a prepared container.
type container struct {
	engine  *Engine
	spec    *containers.Spec
	ns      nsSet
	root    *os.File
	baseFD  int // the base's root folder, in the container's mount namespace
	cwd     int
	procFD  int // the root's /proc folder
	shm     int // a clone of another container's /dev/shm, or -1
	user    *identity
	powers  *powers
	devices []device
	notices []string
	mounts  map[uint64]bool // ids of the overlays, whose files can be copied up

	before   *process // the last command of RunBefore
	isolated bool     // a command has mounted its /proc
}

// nsSet are descriptors of a container's namespaces.
type nsSet struct{ mnt, net, uts, ipc int }

func newNSSet() nsSet { return nsSet{-1, -1, -1, -1} }

func (c *container) Root() *os.File { return c.root }

// Notices tells what the user should know about the root.
func (c *container) Notices() []string { return c.notices }

// Discard gives the root back; its mounts go with their namespace.
func (c *container) Discard() error {
	c.release()
	return nil
}

func (c *container) release() {
	for _, fd := range []*int{&c.ns.mnt, &c.ns.net, &c.ns.uts, &c.ns.ipc, &c.baseFD, &c.cwd, &c.procFD, &c.shm} {
		closeFD(*fd)
		*fd = -1
	}
	if c.root != nil {
		_ = c.root.Close()
	}
}
