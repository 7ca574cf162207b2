package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"platelayer/containers"
	"platelayer/containers/native"
	"platelayer/topology"
)

func (k *keeper) cgroup(container string) string { return cgroup(k.name) + "/" + container }

// notExecuted turns an engine's error about a command into the station's.
func (k *keeper) notExecuted(r *root, err error) error {
	if execErr := new(containers.ExecError); errors.As(err, &execErr) {
		code := execErr.Code()
		return &StationError{
			Container: r.spec.Name, Exit: &containers.Exit{Code: code, At: time.Now()},
			Message: fmt.Sprintf("cannot execute %q: %s (code %d)", execErr.Path, execErr.Reason(), code),
		}
	}
	return err // which names it
}

// start runs a prepared container's command.
func (k *keeper) start(ctx context.Context, r *root) (containers.Process, error) {
	process, err := r.container.Start(ctx)
	if err != nil {
		discard([]*root{r}) // one whose ctx has ended keeps its descriptors
		return nil, k.notExecuted(r, err)
	}
	r.container = nil
	return process, nil
}

// collect begins to read a container's output.
func (k *keeper) collect(container string, limits topology.Logging) (*collection, error) {
	return k.logs.collect(logPath(k.layout, k.name, container), limits,
		stream(k.layout, k.name, container, "stdout"), stream(k.layout, k.name, container, "stderr"))
}

func (k *keeper) logTail(container string) []string {
	return logTail(logPath(k.layout, k.name, container), 10)
}

// prepare assembles a container's root and tells its notices.
func (k *keeper) prepare(ctx context.Context, r *root) error {
	layered := false
	if r.station != nil {
		if err := confine(k.layout, k.project(), r); err != nil {
			return err
		}
	}
	if r.spec.Root.WritableDir != "" {
		var err error
		if layered, err = layer(k.layout, k.name, r.spec.Name, rootOf(r.station)); err != nil {
			return err
		}
	}
	if layered && r.station != nil && len(r.station.Integrity.Paths) > 0 {
		// The layer holds its own copies of what is sealed. A change of the
		// machine's files shows only on a root without it.
		if err := k.rehearse(ctx, r); err != nil {
			return err
		}
	}
	if r.station != nil {
		if err := errors.Join(k.makeVolumes(r), furnish(r), k.certify(r), k.join(r)); err != nil {
			return err
		}
	}
	var err error
	if r.container, err = k.engine.Prepare(ctx, r.spec); err != nil {
		return err
	}
	if n, ok := r.container.(native.Noticer); ok {
		for _, notice := range n.Notices() {
			k.tell(Progress{Notice: r.spec.Name + ": " + notice})
		}
	}
	return nil
}

func (k *keeper) project() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.intent.project()
}

func (k *keeper) rehearseAnew(ctx context.Context, m *member) error {
	r, err := k.newRoot(m)
	if err != nil {
		return err
	}
	return k.rehearse(ctx, r)
}

// rehearse assembles a station's root as it would be had the station never
// written anything, checks its seal, and gives it back.
func (k *keeper) rehearse(ctx context.Context, r *root) error {
	spec := *r.spec
	spec.Root.WritableDir, spec.Stdout, spec.Stderr = "", "", ""
	spec.Mounts = slices.Clone(spec.Mounts)
	scratch := &root{spec: &spec, station: r.station}
	if err := confine(k.layout, k.project(), scratch); err != nil {
		return err
	}
	if err := errors.Join(k.makeVolumes(scratch), furnish(scratch), k.certify(scratch)); err != nil {
		return err
	}
	var err error
	if scratch.container, err = k.engine.Prepare(ctx, &spec); err != nil {
		return err
	}
	defer discard([]*root{scratch})
	return checkSeals(ctx, []*root{scratch})
}
