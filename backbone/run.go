package backbone

import (
	"context"
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
// the topology are answered as before, others over the spare sockets.
func Run(ctx context.Context, conn *os.File, logw io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return run(ctx, conn, logw, dnsPort)
}

func run(ctx context.Context, conn *os.File, logw io.Writer, port uint16) error {
	p, err := newPipe(conn)
	if err != nil {
		return err
	}
	defer p.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	logf := log.New(logw, "", 0).Printf
	requests := newRequests(p)
	b := &backbone{
		port:      port,
		upstream:  &upstream{open: requests.open},
		listeners: map[netip.Addr]*listener{},
	}
	b.server = newServer(ctx, b.upstream, logf)
	defer b.server.tasks.Wait()
	defer b.close()
	defer cancel()

	messages := make(chan *message)
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { p.close() })
	defer stop()
	go func() {
		ended <- receiveAll(ctx, p, requests, messages)
		requests.end()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if ctx.Err() != nil {
				return nil
			}
			if len(b.listeners) == 0 {
				return fmt.Errorf("cannot get a configuration from the keeper: %w", err)
			}
			logf("the keeper has gone (%v): upstream names depend on the sockets at hand", err)
			ended = nil
		case m := <-messages:
			reply := &message{Type: msgReady, Version: protocol, ID: m.ID}
			err := b.configure(ctx, m)
			if err != nil {
				logf("%v", err)
				reply.Type, reply.Error = msgFailed, err.Error()
			}
			if serr := p.send(reply); serr != nil {
				logf("cannot answer the keeper: %v", serr)
			}
			if len(b.listeners) == 0 && err != nil {
				return err
			}
			b.server.tasks.Go(func() { b.upstream.reserve(ctx) })
		}
	}
}

// receiveAll passes configurations on and answers requests, until the
// connection ends.
func receiveAll(ctx context.Context, p *pipe, requests *requests, messages chan<- *message) error {
	defer p.drop()
	for {
		m, err := p.receive()
		if err != nil {
			return err
		}
		if m.Type == msgSocket {
			requests.answer(m)
			continue
		}
		if m.file != nil {
			m.file.Close()
		}
		if m.Type != msgConfig {
			continue
		}
		select {
		case messages <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// backbone is what a running backbone consists of.
type backbone struct {
	port      uint16
	server    *server
	upstream  *upstream
	listeners map[netip.Addr]*listener
}

// configure works from a new configuration. After an error all is as before.
func (b *backbone) configure(ctx context.Context, m *message) error {
	if m.Version != protocol || m.Config == nil {
		return fmt.Errorf("cannot read the keeper's configuration: version %d, and this is version %d", m.Version, protocol)
	}
	if len(m.Config.DNS.Listen) == 0 {
		return errors.New("cannot answer DNS: no address to listen on")
	}
	wanted := map[netip.Addr]bool{}
	added := map[netip.Addr]*listener{}
	for _, addr := range m.Config.DNS.Listen {
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
	b.server.zones.Store(newZones(m.Config.DNS))
	b.upstream.set(m.Config.Upstream)
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

func (b *backbone) close() {
	for _, l := range b.listeners {
		l.close()
	}
}
