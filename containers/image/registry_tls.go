package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// certificateDirs are where docker and podman have the certificates of
// registries, in folders named by host:port (containers-certs.d(5)).
func certificateDirs() []string { return []string{"/etc/containers/certs.d", "/etc/docker/certs.d"} }

var errCertificates = errors.New("the machine's certificates for it cannot be used")

// tlsConfig is what a host is spoken to with: the machine's authorities and
// those of *.crt in the host's folders, and *.cert with its *.key as the
// client's certificate.
func tlsConfig(dirs []string, host string) (*tls.Config, error) {
	c := &tls.Config{}
	names := []string{host}
	if short, found := strings.CutSuffix(host, ":443"); found {
		names = append(names, short)
	}
	for _, dir := range dirs {
		for _, name := range names {
			if err := addCertificates(c, filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("%w: %w", errCertificates, err)
			}
		}
	}
	return c, nil
}

func addCertificates(c *tls.Config, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(path) {
		case ".crt":
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if c.RootCAs == nil {
				if c.RootCAs, err = x509.SystemCertPool(); err != nil {
					return err
				}
			}
			if !c.RootCAs.AppendCertsFromPEM(text) {
				return fmt.Errorf("%s holds no certificate", path)
			}
		case ".cert":
			pair, err := tls.LoadX509KeyPair(path, strings.TrimSuffix(path, ".cert")+".key")
			if err != nil {
				return err
			}
			c.Certificates = append(c.Certificates, pair)
		}
	}
	return nil
}

// hostTransport is an HTTP transport with each host's own certificates: what
// one is trusted with says nothing of another, to which it may redirect.
type hostTransport struct {
	dirs    []string
	mu      sync.Mutex
	each    map[string]*http.Transport
	reached map[string]netip.Addr // where each host was last
}

func (t *hostTransport) RoundTrip(q *http.Request) (*http.Response, error) {
	transport, err := t.of(q.URL.Host)
	if err != nil {
		if q.Body != nil {
			q.Body.Close()
		}
		return nil, err
	}
	from, sent := q.Context().Value(sender{}).(string)
	if q.Response != nil { // somebody has redirected to it
		from, sent = q.Response.Request.URL.Host, true
	}
	if proxy, err := http.ProxyFromEnvironment(q); err != nil || proxy != nil {
		from = "" // what is dialled is the user's own choice
	}
	if sent {
		q = q.WithContext(context.WithValue(q.Context(), sender{}, from))
	}
	return transport.RoundTrip(q)
}

// sender is the context's key for the host that has sent a request elsewhere: by
// a redirect, for a token, or with an upload.
type sender struct{}

// sentBy marks what a site has asked for at another host.
func (p *site) sentBy(ctx context.Context, host string) context.Context {
	if host == p.host {
		return ctx
	}
	return context.WithValue(ctx, sender{}, p.host)
}

// mayDial refuses what only this machine can reach to registries elsewhere: its own
// services, and a cloud's that trust whoever asks.
func (t *hostTransport) mayDial(ctx context.Context, _, address string, _ syscall.RawConn) error {
	from, _ := ctx.Value(sender{}).(string)
	to, err := netip.ParseAddrPort(address)
	if from == "" || err != nil {
		return nil
	}
	t.mu.Lock()
	there := t.reached[(&url.URL{Host: from}).Hostname()]
	t.mu.Unlock()
	ip := to.Addr().Unmap()
	switch {
	case ip.IsLoopback() && there.IsLoopback(), ip.IsLinkLocalUnicast() && there.IsLinkLocalUnicast():
		return nil
	case ip.IsLoopback(), ip.IsLinkLocalUnicast(), ip.IsUnspecified():
		return bad("%s sends to %s, which only this machine can reach", shorten(from), address)
	}
	return nil
}

// dial notes where each host was reached.
func (t *hostTransport) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second, ControlContext: t.mayDial}
	c, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(address)
	if at, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.reached == nil {
			t.reached = map[string]netip.Addr{}
		}
		t.reached[host] = at.Addr().Unmap()
	}
	return c, nil
}

func (t *hostTransport) of(host string) (*http.Transport, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if transport := t.each[host]; transport != nil {
		return transport, nil
	}
	config, err := tlsConfig(t.dirs, host)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         t.dial,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 20 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
		// A digest is of what was stored, not of what a server packs on the way.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 256 << 10,
		WriteBufferSize:        64 << 10,
		ReadBufferSize:         64 << 10,
	}
	t.each[host] = transport
	return transport, nil
}

func (t *hostTransport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, each := range t.each {
		each.CloseIdleConnections()
	}
}
