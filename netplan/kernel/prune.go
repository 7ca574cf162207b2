package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"platelayer/netplan"
)

// Prune removes what is pinned below o and not in p: namespaces with their
// names, ports and bridges. The links of such a namespace are gone when it
// returns, whoever still lives in it.
func Prune(p *netplan.Plan, o Options) error {
	if err := pruneHost(p, o); err != nil {
		return err
	}
	if err := pruneFabric(p, o); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	keep := map[string]bool{}
	for _, name := range p.NetNSNames() {
		keep[name] = true
	}
	entries, err := os.ReadDir(o.PinDir)
	if err != nil {
		return fmt.Errorf("cannot list namespaces: %w", err)
	}
	var failed []error
	for _, e := range entries {
		if keep[e.Name()] || !e.Type().IsRegular() {
			continue
		}
		ns, err := openPin(o, e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			_ = ns.Close()
			err = unpin(o, e.Name())
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// pruneFabric deletes the ports and bridges that p does not have.
func pruneFabric(p *netplan.Plan, o Options) error {
	keep := map[string]bool{}
	for _, br := range p.Fabric.Bridges {
		keep[br.Name] = true
		if br.Host != nil {
			keep[br.Host.Port] = true
		}
	}
	for i := range p.Nodes {
		for _, f := range p.Nodes[i].Interfaces {
			keep[f.Peer] = keep[f.Peer] || !f.Linked()
		}
	}
	ns, err := openPin(o, p.Fabric.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	return onOwnThread(func() error {
		s, err := openSocketIn(ns)
		if err != nil {
			return err
		}
		defer s.close()
		links, err := s.links()
		if err != nil {
			return err
		}
		var stale []*link
		for i := range links {
			if l := &links[i]; l.ours() && !keep[l.name] {
				stale = append(stale, l)
			}
		}
		return s.removeLinks(stale)
	})
}
