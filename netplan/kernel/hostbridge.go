package kernel

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"platelayer/netplan"
)

// firstWire is the index of the first wire's end in the fabric: apart from
// those that the machine gives, for the reason that requests.go tells.
const firstWire = 3_000_000

// settleHost brings the machine's bridges to what p says and returns how many
// requests that took. What the plan does not have any more pruneHost removes.
func settleHost(ctx context.Context, p *netplan.Plan, o Options, fabric *os.File) (int, error) {
	all := hostBridges(p)
	if len(all) == 0 {
		return 0, nil
	}
	sent := 0
	err := onHost(o, func(h *host) error {
		defer func() { sent = h.sent }()
		machine, err := os.Open(threadNetNS)
		if err != nil {
			return fmt.Errorf("cannot open the machine's network namespace: %w", err)
		}
		defer machine.Close()
		nsid, err := h.nsid(fabric)
		if err != nil {
			return err
		}
		for _, br := range all {
			if err := h.settleBridge(br); err != nil {
				return err
			}
			if err := h.settleWire(ctx, br, nsid, machine, fabric); err != nil {
				return err
			}
			if err := h.settleAttached(br.Host); err != nil {
				return err
			}
		}
		return nil
	})
	return sent, err
}

// settleBridge makes the machine's bridge, deaf: the machine does not answer
// stations on it. Without an address of its own on the interface every packet
// fails the check of its source, where there is one (fib_validate_source).
func (h *host) settleBridge(br netplan.Bridge) error {
	name := br.Host.Name
	own := netplan.Bridge{Name: name, MAC: br.Host.MAC, MTU: br.MTU}
	if l := h.byName[name]; l != nil && (!l.marked(h.mark) || l.kind != "bridge") {
		return interfaceTaken(name)
	}
	if h.byName[name] == nil {
		var b batch
		mac, err := net.ParseMAC(br.Host.MAC)
		if err != nil {
			return fmt.Errorf("cannot add bridge %s: %w", name, err)
		}
		b.add(unix.RTM_NEWLINK, create, func() string { return "add bridge " + name + " on the machine" }, bare(0),
			attr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)), attr(unix.IFLA_IFALIAS, []byte(h.mark)), attr(unix.IFLA_ADDRESS, mac),
			attr(unix.IFLA_MTU, nl.Uint32Attr(uint32(br.MTU))), bridgeInfo(false, false))
		if err := h.do(&b); err != nil {
			return unsupported(featureBridges, err)
		}
		if err := h.look(); err != nil {
			return err
		}
	}
	if err := h.deafen(name); err != nil {
		return err
	}
	var b batch
	if err := b.setBridge(own, h.byName[name], "the machine"); err != nil {
		return err
	}
	return h.do(&b)
}

// deafen sets an interface of ours so that the machine takes no packet from it
// for itself.
func (h *host) deafen(name string) error {
	written, err := keepSysctls([]netplan.Sysctl{
		{Key: "net.ipv6.conf." + name + ".disable_ipv6", Value: "1", Optional: true},
		{Key: "net.ipv4.conf." + name + ".arp_ignore", Value: "8"}, // never
		{Key: "net.ipv4.conf." + name + ".rp_filter", Value: "1"},
		{Key: "net.ipv4.conf." + name + ".forwarding", Value: "0"},
	})
	h.sent += written
	if err != nil {
		return fmt.Errorf("cannot configure %s: %w", name, err)
	}
	return nil
}

// settleWire joins the machine's bridge with the fabric's.
func (h *host) settleWire(ctx context.Context, br netplan.Bridge, nsid int32, machine, fabric *os.File) error {
	t := br.Host
	bridge := h.byName[t.Name]
	wire := h.byName[t.Wire]
	port, free, err := portIn(fabric, t.Port, br.Name)
	if err != nil {
		return err
	}
	leads := wire != nil && wire.kind == "veth" && nsid >= 0 && wire.nsid == nsid && wire.peer == port.index
	good := leads && wire.mac == t.WireMAC && port.master == free[1] && port.up && port.mtu == br.MTU && port.mac == t.PortMAC
	if wire != nil && !good {
		if !wire.marked(h.mark) && !leads {
			return interfaceTaken(t.Wire)
		}
		var b batch
		b.add(unix.RTM_DELLINK, 0, func() string { return "delete link " + t.Wire + " of the machine" }, bare(wire.index))
		if err := h.do(&b); err != nil && !gone(err) {
			return err
		}
	}
	if !good {
		if err := h.addWire(br, port, free, machine, fabric); err != nil {
			return err
		}
		if err := h.look(); err != nil {
			return err
		}
		if wire = h.byName[t.Wire]; wire == nil {
			return fmt.Errorf("cannot add link %s to the machine: it vanished", t.Wire)
		}
	}
	if err := h.deafen(t.Wire); err != nil {
		return err
	}
	if wire.master == bridge.index && wire.up && wire.mtu == br.MTU && wire.alias == h.mark {
		return nil
	}
	var b batch
	msg := bare(wire.index)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	b.add(unix.RTM_NEWLINK, 0, func() string { return "set link " + t.Wire + " of the machine" }, msg,
		attr(unix.IFLA_MTU, nl.Uint32Attr(uint32(br.MTU))), attr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge.index))),
		attr(unix.IFLA_IFALIAS, []byte(h.mark)))
	if err := h.do(&b); err != nil {
		return err
	}
	return h.await(ctx, t.Wire)
}

// portIn finds a wire's end in the fabric, its zero value where there is none,
// the bridge that it is a port of, and an index for a new one.
func portIn(fabric *os.File, name, bridge string) (port link, free [2]int32, err error) {
	err = onOwnThread(func() error {
		s, err := openSocketIn(fabric)
		if err != nil {
			return err
		}
		defer s.close()
		links, err := s.links()
		if err != nil {
			return err
		}
		free = [2]int32{firstWire, 0}
		for _, l := range links {
			if l.index >= free[0] {
				free[0] = l.index + 1
			}
			switch l.name {
			case name:
				port = l
			case bridge:
				free[1] = l.index
			}
		}
		return nil
	})
	return port, free, err
}

// addWire makes it in the fabric, where its end becomes a port at once.
func (h *host) addWire(br netplan.Bridge, old link, free [2]int32, machine, fabric *os.File) error {
	t := br.Host
	f := netplan.Interface{Name: t.Wire, MAC: t.WireMAC, Peer: t.Port, PeerMAC: t.PortMAC, MTU: br.MTU}
	w := &wiring{plan: &netplan.Plan{Fabric: netplan.Fabric{Bridges: []netplan.Bridge{br}}}}
	return onOwnThread(func() error {
		s, err := openSocketIn(fabric)
		if err != nil {
			return err
		}
		defer s.close()
		if old.index != 0 {
			if err := s.removeLinks([]*link{&old}); err != nil {
				return err
			}
		}
		var b batch
		if err := b.addVeth(f, veth{netns: "the machine", netnsFD: int(machine.Fd()), port: free[0], bridge: free[1]}); err != nil {
			return fmt.Errorf("cannot add link %s to the machine: %w", t.Wire, err)
		}
		if want := w.vlansOf(t.Port); want != nil {
			b.setVLANs(free[0], *want, untouched())
		}
		h.sent += len(b.what)
		return unsupported("veth", s.send(&b))
	})
}

// await returns once an interface of the machine carries packets.
func (h *host) await(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, portsWait)
	defer cancel()
	for {
		up, err := h.portsUp(map[string]bool{name: true})
		if err != nil || up == 1 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot bring up link %s of the machine: %w", name, ctx.Err())
		case <-time.After(portsPeriod):
		}
	}
}

// settleAttached takes the interfaces that the plan names and gives back those
// that it names no more. What was is written before it is changed.
func (h *host) settleAttached(t *netplan.HostBridge) error {
	bridge := h.byName[t.Name]
	had := lentBy(bridge.alias, h.mark)
	want := lent{}
	var take, leave batch
	for _, name := range t.Attach {
		if err := h.attachable(name); err != nil {
			return err
		}
		l := h.byName[name]
		was, known := had[l.index]
		if !known || l.master == 0 {
			was = l.up
		}
		want[l.index] = was
		if l.master != bridge.index || !l.up {
			msg := bare(l.index)
			msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
			take.add(unix.RTM_NEWLINK, 0, func() string { return "attach " + name }, msg, attr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge.index))))
		}
	}
	for index, up := range had {
		if _, stays := want[index]; !stays {
			h.giveBack(&leave, bridge, index, up)
		}
	}
	if err := h.do(&leave); err != nil && !gone(err) {
		return err
	}
	if err := h.note(bridge, want); err != nil {
		return err
	}
	return h.do(&take)
}

// note writes on the bridge what is attached to it.
func (h *host) note(bridge *link, m lent) error {
	alias := m.text(h.mark)
	if alias == bridge.alias {
		return nil
	}
	var b batch
	b.add(unix.RTM_NEWLINK, 0, func() string { return "note what is attached to " + bridge.name }, bare(bridge.index), attr(unix.IFLA_IFALIAS, []byte(alias)))
	return h.do(&b)
}
