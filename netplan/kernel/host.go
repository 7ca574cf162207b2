package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// Unattachable is an interface of the machine that can't become a port.
type Unattachable struct{ Name, Why string }

func (e *Unattachable) Error() string { return fmt.Sprintf("cannot attach %s: it %s", e.Name, e.Why) }

// mark is the alias (IFLA_IFALIAS) by which links on the machine are known as
// these options' own. A bridge has behind it which interfaces were attached,
// by index, and whether they had been up, so that a killed run's are given
// back too: at most 256 bytes in all.
func (o Options) mark() string {
	sum := sha256.Sum256([]byte(o.PinDir))
	return "platelayer " + o.Owner + " " + hex.EncodeToString(sum[:4])
}

// lent are interfaces of the machine that are ports of ours, and whether each
// had been up.
type lent map[int32]bool

func (m lent) text(mark string) string {
	var indexes []int32
	for i := range m {
		indexes = append(indexes, i)
	}
	slices.Sort(indexes)
	for _, i := range indexes {
		was := "-"
		if m[i] {
			was = "+"
		}
		mark += fmt.Sprintf(" %s%d", was, i)
	}
	return mark
}

// lentBy reads the alias of a bridge of ours.
func lentBy(alias, mark string) lent {
	m := lent{}
	for _, word := range strings.Fields(strings.TrimPrefix(alias, mark)) {
		if i, err := strconv.ParseInt(word[1:], 10, 32); err == nil {
			m[int32(i)] = word[0] == '+'
		}
	}
	return m
}

func (l *link) marked(mark string) bool {
	return mark != "" && (l.alias == mark || strings.HasPrefix(l.alias, mark+" "))
}

// host is the machine's own namespace, in which this process is.
type host struct {
	*socket
	mark   string
	byName map[string]*link
	sent   int
}

// onHost runs f with what the machine has. A thread of its own: others may be
// on their way through namespaces.
func onHost(o Options, f func(h *host) error) error {
	return onOwnThread(func() error {
		s, err := openSocket()
		if err != nil {
			return err
		}
		defer s.close()
		h := &host{socket: s, mark: o.mark()}
		if err := h.look(); err != nil {
			return err
		}
		return f(h)
	})
}

func (h *host) look() error {
	links, err := h.links()
	if err != nil {
		return err
	}
	h.byName = map[string]*link{}
	for i := range links {
		h.byName[links[i].name] = &links[i]
	}
	return nil
}

func (h *host) do(b *batch) error {
	h.sent += len(b.what)
	return h.send(b)
}

func hostBridges(p *netplan.Plan) []netplan.Bridge {
	return slices.DeleteFunc(slices.Clone(p.Fabric.Bridges), func(br netplan.Bridge) bool { return br.Host == nil })
}

// checkHost finds before anything is touched what would keep the machine's
// bridges of p from being made.
func checkHost(p *netplan.Plan, o Options) error {
	all := hostBridges(p)
	if len(all) == 0 {
		return nil
	}
	return onHost(o, func(h *host) error {
		var errs []error
		for _, br := range all {
			for _, name := range []string{br.Host.Name, br.Host.Wire} {
				if l := h.byName[name]; l != nil && !l.marked(h.mark) {
					errs = append(errs, interfaceTaken(name))
				}
			}
			for _, name := range br.Host.Attach {
				errs = append(errs, h.attachable(name))
			}
		}
		return errors.Join(errs...)
	})
}

// attachable tells whether an interface may become a port: the machine would
// lose what it reaches through it.
func (h *host) attachable(name string) error {
	l := h.byName[name]
	switch {
	case l == nil:
		return &Unattachable{name, "does not exist"}
	case l.marked(h.mark) || l.kind == "bridge":
		return &Unattachable{name, "is a bridge or belongs to one"}
	}
	if l.master != 0 {
		for _, m := range h.byName {
			if m.index == l.master && m.marked(h.mark) {
				return nil // attached already
			}
		}
		return &Unattachable{name, "belongs to another bridge or bond of the machine's"}
	}
	have, err := h.addresses()
	if err != nil {
		return err
	}
	for _, a := range have {
		if a.index == uint32(l.index) && !a.ip.Addr().IsLinkLocalUnicast() {
			return &Unattachable{name, "has the address " + a.ip.String() + ", and the machine would lose what it reaches through it"}
		}
	}
	routes, err := h.routes()
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.index == uint32(l.index) && r.proto == unix.RTPROT_STATIC {
			return &Unattachable{name, "has the route to " + r.to.String() + ", and the machine would lose it"}
		}
	}
	return nil
}

// pruneHost removes from the machine what is marked as o's and is not in p, and
// gives back what was attached to it.
func pruneHost(p *netplan.Plan, o Options) error {
	if o.Owner == "" {
		return nil
	}
	keep := map[string]bool{}
	for _, br := range hostBridges(p) {
		keep[br.Host.Name], keep[br.Host.Wire] = true, true
	}
	return onHost(o, func(h *host) error {
		var back, del batch
		for _, l := range h.byName {
			if keep[l.name] || !l.marked(h.mark) {
				continue
			}
			if l.kind == "bridge" {
				for index, up := range lentBy(l.alias, h.mark) {
					h.giveBack(&back, l, index, up)
				}
			}
			del.add(unix.RTM_DELLINK, 0, func() string { return "delete link " + l.name + " of the machine" }, bare(l.index))
		}
		if err := h.send(&back); err != nil && !gone(err) {
			return err
		}
		if err := h.send(&del); err != nil && !gone(err) {
			return err
		}
		return nil
	})
}

// giveBack frees an interface that is a port of bridge still.
func (h *host) giveBack(b *batch, bridge *link, index int32, up bool) {
	for _, l := range h.byName {
		if l.index != index || l.master != bridge.index {
			continue
		}
		msg := bare(index)
		if !up {
			msg.Change = unix.IFF_UP
		}
		b.add(unix.RTM_NEWLINK, 0, func() string { return "give " + l.name + " back" }, msg, attr(unix.IFLA_MASTER, nl.Uint32Attr(0)))
	}
}
