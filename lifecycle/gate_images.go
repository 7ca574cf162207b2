package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"platelayer/containers/image"
	"platelayer/policy"
)

// refusalOf tells what a policy says against an image's name; nil is nothing.
func refusalOf(p *policy.Policy, ref image.Reference) *policy.Refusal {
	problem, rule, line := p.Named(policy.Image{Registry: ref.Registry, Repository: ref.Repository})
	if problem == "" {
		return nil
	}
	return &policy.Refusal{Rule: rule, Line: line, Problem: problem}
}

// AdmitImage refuses an image by its name that a policy doesn't allow, and gives
// what looks at it when its digest is known.
func AdmitImage(l Layout, ref image.Reference, registry func() (*image.Registry, error)) (func(ctx context.Context, digest, index v1.Hash) error, error) {
	var err error
	g := &gate{layout: l, registry: registry}
	if g.policies, err = policies(l); err != nil {
		return nil, err
	}
	var refused []policy.Refusal
	for _, p := range g.policies {
		if r := refusalOf(p, ref); r != nil {
			refused = append(refused, *r)
		}
	}
	if len(refused) > 0 {
		return nil, &policy.RefusedError{Refusals: refused}
	}
	return func(ctx context.Context, digest, index v1.Hash) error {
		if refused := g.digested(ctx, ref, digest, index); len(refused) > 0 {
			return &policy.RefusedError{Refusals: refused}
		}
		return nil
	}, nil
}

// digested tells what policies say against an image with a digest.
func (g *gate) digested(ctx context.Context, ref image.Reference, digest, index v1.Hash) []policy.Refusal {
	i := policy.Image{Registry: ref.Registry, Repository: ref.Repository, Digests: []string{digest.String()}}
	if index != (v1.Hash{}) {
		i.Digests = append(i.Digests, index.String())
	}
	var refused []policy.Refusal
	for _, p := range g.policies {
		had, hadErr := g.signatures(p, i.Digests)
		problem, rule, line := p.Digested(i, func() ([]policy.Signature, error) { return had, hadErr })
		if rule == "signed" && g.registry != nil { // somebody may have signed it since
			problem, rule, line = p.Digested(i, sync.OnceValues(func() ([]policy.Signature, error) {
				given, err := g.ask(ctx, ref, i.Digests)
				return append(given, had...), errors.Join(hadErr, err)
			}))
		}
		if problem != "" {
			refused = append(refused, policy.Refusal{Rule: rule, Line: line, Problem: problem})
		}
	}
	return refused
}

// signatures gathers those of an image that are here: the administrator's, the
// project's, and what a registry gave earlier. It needs no trust to keep them
// anywhere: who signed is what counts.
func (g *gate) signatures(p *policy.Policy, digests []string) ([]policy.Signature, error) {
	if !p.WantsSignatures() {
		return nil, nil
	}
	dirs := []string{p.SignaturesDir()}
	if g.topology != nil {
		dirs = append(dirs, filepath.Join(g.topology.Dir, "signatures"))
	}
	dirs = append(dirs, g.layout.signatures())
	var all []policy.Signature
	var errs []error
	for _, d := range digests {
		var files []string
		for _, dir := range dirs {
			path := filepath.Join(dir, strings.Replace(d, ":", "-", 1))
			files = append(files, path+".minisig", path+".json")
		}
		for _, file := range files {
			data, err := ReadSource(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			var found []policy.Signature
			if err == nil {
				found, err = policy.ReadSignatures(data)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("cannot read the signature %s: %w", file, err))
			}
			all = append(all, found...)
		}
	}
	return all, errors.Join(errs...)
}

// ask asks an image's registry for signatures.
func (g *gate) ask(ctx context.Context, ref image.Reference, digests []string) (all []policy.Signature, err error) {
	for _, d := range digests {
		found, failed := g.askFor(ctx, ref, d)
		all, err = append(all, found...), errors.Join(err, failed)
	}
	return all, err
}

// askFor asks for those of one digest, and keeps them.
func (g *gate) askFor(ctx context.Context, ref image.Reference, digest string) ([]policy.Signature, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, err
	}
	registry, err := g.registry()
	if err != nil {
		return nil, err
	}
	given, err := registry.Signatures(ctx, ref, h)
	if err != nil {
		return nil, fmt.Errorf("cannot ask for signatures: %w", err)
	}
	var all []policy.Signature
	for _, s := range given {
		if one, err := policy.CosignSignature(s.Payload, s.Signature); err == nil {
			all = append(all, one)
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	if err := os.MkdirAll(g.layout.signatures(), 0o700); err != nil {
		return all, err
	}
	text, err := json.Marshal(all)
	if err == nil {
		err = writeData(filepath.Join(g.layout.signatures(), strings.Replace(digest, ":", "-", 1)+".json"), text, false)
	}
	return all, err
}
