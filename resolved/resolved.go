// Package resolved tells systemd-resolved, the machine's resolver where it
// runs, whom to ask about the names of a link (org.freedesktop.resolve1(5)).
// What it is told goes with the link.
package resolved

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

// patience is how long the bus and systemd-resolved may take for all of it.
const patience = 3 * time.Second

// ErrAbsent is a machine where systemd-resolved doesn't run, or not for this
// network namespace.
var ErrAbsent = errors.New("systemd-resolved does not run")

// Link is a network interface, and who is asked over it about which names.
type Link struct {
	Index   int          // of the interface
	Servers []netip.Addr // without any, what was set is forgotten
	Domains []string     // these and all below them are asked about there, and no others
}

const (
	name = "org.freedesktop.resolve1"
	path = "/org/freedesktop/resolve1"
)

// Set has systemd-resolved know a link, over the system bus whose socket it is
// given.
func Set(socket string, l Link) error {
	conn, err := net.DialTimeout("unix", socket, patience)
	if err != nil {
		return ErrAbsent
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	b, err := connect(conn)
	if err != nil {
		return fmt.Errorf("cannot use the bus at %s: %w", socket, err)
	}
	if here, err := b.servesUs(); err != nil {
		return fmt.Errorf("cannot find systemd-resolved: %w", err)
	} else if !here {
		return ErrAbsent
	}
	index := func(e *encoder) { e.uint32(uint32(l.Index)) }
	if len(l.Servers) == 0 {
		return b.set("RevertLink", "i", index)
	}
	// The answers are neither signed nor encrypted, and nobody is there to be
	// asked in other ways.
	for _, method := range []string{"SetLinkDNSSEC", "SetLinkDNSOverTLS", "SetLinkLLMNR", "SetLinkMulticastDNS"} {
		if err := b.set(method, "is", func(e *encoder) { index(e); e.string("no") }); err != nil {
			return err
		}
	}
	// Before there is a server: it is asked for nobody else's names, not for a
	// moment.
	if err := b.set("SetLinkDefaultRoute", "ib", func(e *encoder) { index(e); e.uint32(0) }); err != nil {
		return err
	}
	err = b.set("SetLinkDomains", "ia(sb)", func(e *encoder) {
		index(e)
		e.array(structs, func() {
			for _, domain := range l.Domains {
				e.align(structs)
				e.string(domain)
				e.uint32(1) // to route by, not to search in
			}
		})
	})
	if err != nil {
		return err
	}
	return b.set("SetLinkDNS", "ia(iay)", func(e *encoder) {
		const inet, inet6 = 2, 10 // AF_INET and AF_INET6
		index(e)
		e.array(structs, func() {
			for _, a := range l.Servers {
				family := uint32(inet)
				if a.Is6() {
					family = inet6
				}
				e.align(structs)
				e.uint32(family)
				e.array(1, func() { e.b = append(e.b, a.AsSlice()...) })
			}
		})
	})
}

func (b *bus) set(method, signature string, body func(*encoder)) error {
	_, err := b.call(name, path, name+".Manager", method, signature, body)
	if err != nil {
		return fmt.Errorf("cannot tell systemd-resolved: %s: %w", method, err)
	}
	return nil
}

// servesUs tells whether systemd-resolved runs, and in our network namespace:
// its interfaces are others elsewhere.
func (b *bus) servesUs() (bool, error) {
	body, err := b.call(busName, busPath, busName, "GetConnectionUnixProcessID", "s", func(e *encoder) { e.string(name) })
	if failed := new(busError); errors.As(err, &failed) && failed.name == busName+".Error.NameHasNoOwner" {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	its, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", body.uint32()))
	if err != nil {
		return false, nil // of another machine, as we see it
	}
	ours, err := os.Stat("/proc/self/ns/net")
	return err == nil && os.SameFile(its, ours), err
}
