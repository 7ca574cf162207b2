package backbone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
)

const dnsPort = 53

// Run is the command of the backbone's container. conn is the end of the
// socket pair that the keeper handed in; Run takes it over. It answers DNS
// until SIGTERM, SIGINT or the end of ctx. It survives the keeper: names of
// the topology are answered as before, others over the spare sockets, until
// another keeper connects to SocketName.
func Run(ctx context.Context, conn *os.File, logw io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return run(ctx, conn, logw, dnsPort, SocketName)
}

func run(ctx context.Context, conn *os.File, logw io.Writer, port uint16, socket string) error {
	p, err := newPipe(conn)
	if err != nil {
		return err
	}
	door, err := openDoor(socket)
	if err != nil {
		p.close()
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	b := &backbone{
		port:      port,
		logf:      log.New(logw, "", 0).Printf,
		upstream:  newUpstream(),
		listeners: map[netip.Addr]*listener{},
		inbox:     make(chan delivery),
	}
	b.server = newServer(ctx, b.upstream, b.logf)
	b.keeper = newSession(p, &b.shelf, b.server)
	moving := newRelays(ctx, &b.server.tasks)
	b.ports = newPorts(&b.shelf, b.logf, moving)
	b.divert = newDivert(ctx, b.logf, &b.server.tasks, b.server.names, moving)
	b.divert.keeper.Store(b.keeper)
	b.server.ledger = newLedger(func(all []Asked) {
		_ = b.divert.keeper.Load().pipe.send(&message{Type: msgSought, Sought: all}) // without a keeper nobody counts
	})
	defer moving.pipes.close()
	defer b.server.tasks.Wait()
	defer b.close()
	defer door.Close()
	defer cancel()
	first := b.keeper
	b.server.tasks.Go(func() { b.attend(ctx, first, func() {}) })
	b.server.tasks.Go(func() { b.admit(ctx, door) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-b.inbox:
			if err := b.take(ctx, d); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		}
	}
}

// backbone is what a running backbone consists of. Its fields belong to the
// loop in run.
type backbone struct {
	port      uint16
	logf      func(format string, args ...any)
	server    *server
	upstream  *upstream
	divert    *divert
	listeners map[netip.Addr]*listener
	// configured: there has been a configuration to work from.
	configured bool
	keeper     *session // whose configuration is worked from
	inbox      chan delivery
	shelf      shelf // guards itself: every session's
	ports      *ports
}

// delivery is a configuration from a keeper, or the end of its connection.
type delivery struct {
	from   *session
	config *message
	err    error
}

// attend receives from one keeper until its connection ends. introduced is
// called once, after the first configuration or the end.
func (b *backbone) attend(ctx context.Context, s *session, introduced func()) {
	stop := context.AfterFunc(ctx, s.end)
	defer stop()
	deliver := func(d delivery) {
		select {
		case b.inbox <- d:
		case <-ctx.Done():
		}
	}
	m, err := s.next()
	introduced()
	for err == nil {
		deliver(delivery{from: s, config: m})
		m, err = s.next()
	}
	s.end()
	deliver(delivery{from: s, err: err})
}

// take works on one delivery. An error ends the backbone: without a first
// configuration it is of no use, and its keeper waits for the reason.
func (b *backbone) take(ctx context.Context, d delivery) error {
	useless := d.from == b.keeper && !b.configured
	switch {
	case d.from.dismissed:
		return nil
	case d.config != nil:
	case useless:
		return fmt.Errorf("cannot get a configuration from the keeper: %w", d.err)
	case d.from == b.keeper:
		b.logf("the keeper has gone (%v): upstream names depend on the sockets at hand", d.err)
		return nil
	default:
		b.logf("a keeper has gone without a configuration: %v", d.err)
		return nil
	}

	reply := &message{Type: msgReady, Version: protocol, ID: d.config.ID}
	err := b.configure(ctx, d.from, d.config)
	if err != nil {
		b.logf("%v", err)
		reply.Type, reply.Error = msgFailed, err.Error()
	}
	if serr := d.from.pipe.send(reply); serr != nil {
		b.logf("cannot answer the keeper: %v", serr)
	}
	if err != nil {
		if useless {
			return err
		}
		if d.from != b.keeper {
			dismiss(d.from)
		}
		return nil
	}
	b.server.tasks.Go(func() { b.upstream.reserve(ctx) })
	return nil
}

// configure works from a new configuration, and from now on with the keeper
// that sent it. After an error all is as before.
func (b *backbone) configure(ctx context.Context, from *session, m *message) error {
	if m.Version != protocol {
		return fmt.Errorf("cannot read the keeper's configuration: %w", &VersionError{Theirs: m.Version, Ours: protocol})
	}
	var config *Config
	if err := json.Unmarshal(m.Config, &config); err != nil {
		return fmt.Errorf("cannot read the keeper's configuration: %w", err)
	}
	if config == nil || config.DNS.Listen == nil { // an empty list: no cluster has the backbone in it
		return errors.New("cannot answer DNS: no address to listen on")
	}
	known, err := newZones(config.DNS, config.Out)
	if err != nil {
		return err
	}
	wanted := map[netip.Addr]bool{}
	added := map[netip.Addr]*listener{}
	for _, addr := range config.DNS.Listen {
		wanted[addr] = true
		if b.listeners[addr] != nil || added[addr] != nil {
			continue
		}
		l, err := listen(ctx, netip.AddrPortFrom(addr, b.port))
		if err != nil {
			for _, l := range added {
				l.close()
			}
			return err
		}
		added[addr] = l
	}
	if err := b.divert.set(from, config); err != nil {
		for _, l := range added {
			l.close()
		}
		return err
	}
	b.configured = true
	b.server.zones.Store(known)
	b.ports.set(config)
	b.server.config.Store(config)
	b.server.names.list(config.Listed)
	// Before the earlier keeper's connection closes: what that one leaves
	// undone then finds the new way.
	b.upstream.set(from.open, config)
	if from != b.keeper {
		b.logf("another keeper has taken over")
		dismiss(b.keeper)
		b.keeper = from
	}
	for addr, l := range added {
		b.listeners[addr] = l
		b.server.serve(l)
	}
	for addr, l := range b.listeners {
		if !wanted[addr] {
			l.close()
			delete(b.listeners, addr)
		}
	}
	return nil
}

func dismiss(s *session) {
	s.dismissed = true
	s.end()
}

func (b *backbone) close() {
	b.divert.close()
	for _, l := range b.listeners {
		l.close()
	}
	b.ports.close()
}
