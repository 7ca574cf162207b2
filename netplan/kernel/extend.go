package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"platelayer/netplan"
)

// Extend makes every namespace and bridge of p that does not exist yet, as
// Apply does, and leaves the others alone: Converge is for those. When it
// returns without an error the new ports forward and the other stations know
// the new addresses. It makes again what a killed run left unfinished.
func Extend(ctx context.Context, p *netplan.Plan, o Options) error {
	if err := os.MkdirAll(o.NetNSDir, 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w", o.NetNSDir, err)
	}
	extension := *p
	extension.Nodes = nil
	var names []string
	for i := range p.Nodes {
		there, err := pinned(o, p.Nodes[i].NetNS)
		if err != nil {
			return err
		}
		if !there {
			extension.Nodes = append(extension.Nodes, p.Nodes[i])
			names = append(names, p.Nodes[i].NetNS)
		}
	}
	if err := errors.Join(able(p, o), checkHost(p, o)); err != nil {
		return err
	}
	w := newWiring(&extension, o)
	there, err := pinned(o, p.Fabric.NetNS)
	if err != nil {
		return err
	}
	if there {
		err = w.extendFabric(names)
	} else {
		err = w.restartFabric(append(names, p.Fabric.NetNS))
	}
	if w.fabric != nil {
		defer w.fabric.Close()
	}
	if err != nil {
		return err
	}
	if !there {
		if _, err := settleHost(ctx, p, o, w.fabric); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return nil
	}
	if err := w.makeNodes(ctx); err != nil {
		return err
	}
	if err := onOwnThread(func() error { return w.waitForPorts(ctx) }); err != nil {
		return err
	}
	if err := finishLinked(ctx, p, o, extension.Nodes); err != nil {
		return err
	}
	return w.eachNode(ctx, func(i int, _ *socket) error { return w.announce(i, interfaceNames(&w.plan.Nodes[i])) })
}

func interfaceNames(n *netplan.Node) []string {
	var names []string
	for _, f := range n.Interfaces {
		names = append(names, f.Name)
	}
	return names
}

// clear makes room for the names of namespaces to be made.
func clear(o Options, names []string) error {
	for _, name := range names {
		// The file of a pin that was not mounted; a mounted one cannot be removed.
		if err := os.Remove(filepath.Join(o.PinDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove stale pin %s: %w", name, err)
		}
	}
	return freeNames(o, names)
}

// restartFabric makes the fabric where there is none.
func (w *wiring) restartFabric(names []string) error {
	if err := keepPinDir(w.options.PinDir); err != nil {
		return err
	}
	if err := clear(w.options, names); err != nil {
		return err
	}
	return onOwnThread(w.makeFabric)
}

// extendFabric adds bridges to the fabric, and makes room in it for the nodes:
// a killed run may have left ports of theirs.
func (w *wiring) extendFabric(names []string) error {
	if err := clear(w.options, names); err != nil {
		return err
	}
	ns, err := openPin(w.options, w.plan.Fabric.NetNS)
	if err != nil {
		return err
	}
	w.fabric = ns
	return onOwnThread(func() error {
		s, err := w.openFabric()
		if err != nil {
			return err
		}
		defer s.close()
		if len(names) == 0 {
			if there, err := w.hasBridges(s); err != nil || there {
				return err
			}
		}
		g, err := survey(s)
		if err != nil {
			return err
		}
		var stale []*link
		for name := range w.ports {
			if l := g.byName[name]; l != nil {
				stale = append(stale, l)
			}
		}
		if err := s.removeLinks(stale); err != nil {
			return err
		}
		first := g.nextPort.Load() + 1
		for i := range w.firstPort {
			w.firstPort[i] += first - firstPort
		}
		_, err = w.addBridges(s, g)
		return err
	})
}

func (w *wiring) hasBridges(s *socket) (bool, error) {
	links, err := s.bridges()
	if err != nil {
		return false, err
	}
	g := groundOf(links)
	for _, br := range w.plan.Fabric.Bridges {
		if l := g.byName[br.Name]; l == nil || l.kind != "bridge" {
			return false, nil
		}
	}
	return true, nil
}
