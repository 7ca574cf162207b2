package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
	"platelayer/policy"
	"platelayer/topology"
)

// gate is what stations and their images must pass before anything of them is
// fetched or made: the machine's policies and the topology's lock.
type gate struct {
	layout   Layout
	topology *topology.Topology
	project  string // the topology file's folder, without links
	policies []*policy.Policy
	lock     *Lock // nil is none
	registry func() (*image.Registry, error)
}

// newGate reads the policies, and the lock beside a topology file; file may be
// "". registry, which may be nil, is asked for signatures.
func newGate(l Layout, t *topology.Topology, file string, registry func() (*image.Registry, error)) (*gate, error) {
	g := &gate{layout: l, topology: t, project: realFolder(t.Dir), registry: registry}
	var err error
	if g.policies, err = policies(l); err != nil || file == "" {
		return g, err
	}
	g.lock, err = ReadLock(LockOf(file))
	return g, err
}

func policies(l Layout) (all []*policy.Policy, err error) {
	for _, path := range l.Policies {
		p, err := policy.Read(path)
		if err != nil {
			return nil, err
		}
		if p != nil {
			all = append(all, p)
		}
	}
	return all, nil
}

// admit refuses stations that a policy doesn't allow or whose image the lock
// doesn't have, all at once.
func (g *gate) admit(which []*topology.Station) error {
	var refused []policy.Refusal
	for _, p := range g.policies {
		refused = append(refused, p.Stations(g.topology, g.project, which)...)
		for _, s := range which {
			if s.Image == "" {
				continue
			}
			ref, err := image.ParseReference(s.Image)
			if err != nil {
				return err
			}
			if r := refusalOf(p, ref); r != nil {
				r.Place, r.Station = g.topology.Place(s.ID(), "image", ""), s.ID()
				refused = append(refused, *r)
			}
		}
	}
	if len(refused) > 0 {
		return &policy.RefusedError{Refusals: refused}
	}
	return g.covered(which)
}

// covered finds images that the lock doesn't have.
func (g *gate) covered(which []*topology.Station) error {
	if g.lock == nil {
		return nil
	}
	e := &LockError{Path: g.lock.path, Missing: true}
	for _, s := range which {
		if s.Image == "" {
			continue
		}
		locked, err := g.lock.find(s.Image, s.Platform)
		if err != nil {
			return err
		}
		if locked == nil {
			e.Problems = append(e.Problems, strings.TrimPrefix(fmt.Sprintf("%s: station %q: the image %s is not in it", g.topology.Place(s.ID(), "image", ""), s.ID(), s.Image), ": "))
		}
	}
	if len(e.Problems) > 0 {
		return e
	}
	return nil
}

// pinned is the name under which an image is obtained: by the digest that the
// lock has for it.
func (g *gate) pinned(w wantedImage) (string, error) {
	if g == nil || g.lock == nil {
		return w.name, nil
	}
	locked, err := g.lock.find(w.name, w.platform)
	if err != nil || locked == nil {
		return w.name, err
	}
	ref, err := image.ParseReference(w.name)
	if err != nil {
		return "", err
	}
	if ref.Digest != "" && ref.Digest != locked.Index {
		return w.name, nil // and pass compares
	}
	ref.Tag, ref.Digest = "", locked.Digest
	return ref.String(), nil
}

// explain tells why the locked image can't be had: another is here under the
// name, or the registry doesn't have it.
func (g *gate) explain(store *image.Store, w wantedImage, failed error) error {
	p, err := platformOf(w.platform)
	if err != nil {
		return failed
	}
	locked, _ := g.lock.find(w.name, w.platform)
	have, err := store.Here(w.name, p)
	if err != nil || locked == nil {
		return failed
	}
	var lacks *image.RegistryError
	switch {
	case have != nil && have.Digest.String() != locked.Digest:
	case errors.As(failed, &lacks) && lacks.Status == http.StatusNotFound:
		return &LockError{Path: g.lock.path, Problems: []string{fmt.Sprintf("the image %s is %s in the lock, which its registry does not have: %v", w.name, locked.Digest, failed)}}
	default:
		return failed
	}
	return &LockError{Path: g.lock.path, Problems: []string{fmt.Sprintf("the image %s is %s here and %s in the lock, which can't be had: %v", w.name, have.Digest, locked.Digest, failed)}}
}

// pass refuses an image that turns out to be another than the lock has, or that
// a policy doesn't allow.
func (g *gate) pass(ctx context.Context, w wantedImage, digest, index v1.Hash) error {
	if g == nil {
		return nil
	}
	if g.lock != nil {
		locked, err := g.lock.find(w.name, w.platform)
		if err != nil {
			return err
		}
		if locked == nil || locked.Digest != digest.String() {
			e := &LockError{Path: g.lock.path, Problems: []string{fmt.Sprintf("the image %s is not in it", w.name)}, Missing: locked == nil}
			if locked != nil {
				e.Problems[0] = fmt.Sprintf("the image %s is %s, and %s in the lock", w.name, digest, locked.Digest)
			}
			return e
		}
	}
	ref, err := image.ParseReference(w.name)
	if err != nil {
		return err
	}
	var refused []policy.Refusal
	for _, r := range g.digested(ctx, ref, digest, index) {
		for _, s := range g.topology.Stations() {
			if s.Image == w.name && s.Platform == w.platform {
				r.Place, r.Station = g.topology.Place(s.ID(), "image", ""), s.ID()
				refused = append(refused, r)
			}
		}
	}
	if len(refused) > 0 {
		return &policy.RefusedError{Refusals: refused}
	}
	return nil
}

// admitRecorded checks a topology that is up, or was, against the policies as
// they are now.
func admitRecorded(ctx context.Context, l Layout, i *Intent) error {
	g, err := newGate(l, i.Topology, "", nil)
	if err != nil || len(g.policies) == 0 {
		return err
	}
	g.project = i.project()
	which := i.Topology.Stations()
	if err := g.admit(which); err != nil {
		return err
	}
	list := slices.DeleteFunc(wanted(which, wantedBy), func(w wantedImage) bool { return w.digest == "" })
	if len(list) == 0 {
		return nil
	}
	store, err := image.OpenStore(l.images())
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range list {
		found, err := broughtUpWith(store, w)
		if err == nil {
			err = g.pass(ctx, w, found.Digest, found.Index)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
