// Package native is the container engine that needs nothing installed: it makes
// namespaces, mounts, cgroups and filters itself and starts commands with one
// clone, without running the program once more for each container.
//
// Read engine.go for what is made once, prepare.go for a container's root and
// start.go for its command.
package native

import (
	"context"
	"os"
	"syscall"

	"platelayer/containers"
)

// Config is what an engine is told about its surroundings.
type Config struct {
	// Cgroup is the topology's cgroup, such as "platelayer/hello"; a
	// container's is Cgroup+"/"+Spec.Name.
	Cgroup string
	// StageDir is an existing folder which the engine may mount over in mount
	// namespaces of its own.
	StageDir string
	// Workers bounds how many containers are prepared or started at a time; 0
	// is the number of processors, at most four.
	Workers int
}

// Feature is one need of the engine and whether this machine meets it.
type Feature struct {
	Name     string
	OK       bool
	Detail   string
	Remedy   string
	Required bool
}

type Engine struct{}

func New(c Config) (*Engine, error) { return nil, syscall.ENOSYS }
func (e *Engine) Prepare(ctx context.Context, spec *containers.Spec) (containers.Container, error) {
	return nil, syscall.ENOSYS
}
func (e *Engine) Close() error { return nil }
func Exec(ctx context.Context, s *containers.ExecSpec) (containers.Process, error) {
	return nil, syscall.ENOSYS
}
func OpenPTY(ref containers.ProcessRef) (master, slave *os.File, err error) {
	return nil, nil, syscall.ENOSYS
}
func OpenRoot(ref containers.ProcessRef) (*os.File, error) { return nil, syscall.ENOSYS }
func OpenProcess(ref containers.ProcessRef) (containers.Process, error) {
	return nil, syscall.ENOSYS
}
func Alive(ref containers.ProcessRef) bool                            { return false }
func IgnoresSignal(ref containers.ProcessRef, sig syscall.Signal) bool { return false }
func Harden() error                                                   { return syscall.ENOSYS }
func Self() containers.ProcessRef                                     { return containers.ProcessRef{} }
func OpenCgroup(name string) (*os.File, error)                        { return nil, syscall.ENOSYS }
func JoinCgroup(name string, pid int) error                           { return syscall.ENOSYS }
func KillCgroup(ctx context.Context, name string) error               { return syscall.ENOSYS }
func RemoveCgroup(name string) error                                  { return syscall.ENOSYS }
func Probe() []Feature                                                { return nil }

// Noticer is met by containers of this engine that have something to tell the
// user, such as writes that are kept in memory because the disk can't hold them.
type Noticer interface{ Notices() []string }
