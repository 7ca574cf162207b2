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

// certificateDir has the certificates of registries, in folders named by
// host:port.
type certificateDir struct {
	path string
	read func(path string) ([]byte, error)
}

// certificateDirs are those of docker and podman, the user's own too
// (containers-certs.d(5)).
func certificateDirs(u User) []certificateDir {
	all := []certificateDir{{"/etc/containers/certs.d", os.ReadFile}, {"/etc/docker/certs.d", os.ReadFile}}
	if u.Home != "" {
		all = append(all, certificateDir{filepath.Join(u.Home, ".config/containers/certs.d"), u.read})
	}
	return all
}

var errCertificates = errors.New("the machine's certificates for it cannot be used")

// tlsConfig is what a host is spoken to with: the machine's authorities and
// those of *.crt in the host's folders, and *.cert with its *.key as the
// client's certificate.
func tlsConfig(dirs []certificateDir, host string) (*tls.Config, error) {
	c := &tls.Config{}
	names := []string{host}
	if short, found := strings.CutSuffix(host, ":443"); found {
		names = append(names, short)
	}
	for _, dir := range dirs {
		for _, name := range names {
			if err := dir.add(c, name); err != nil {
				return nil, fmt.Errorf("%w: %w", errCertificates, err)
			}
		}
	}
	return c, nil
}

func (d *certificateDir) add(c *tls.Config, host string) error {
	dir := filepath.Join(d.path, host)
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
			text, err := d.read(path)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
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
			key := strings.TrimSuffix(path, ".cert") + ".key"
			text, err := d.read(path)
			secret, keyErr := d.read(key)
			if err = errors.Join(err, keyErr); err != nil {
				return fmt.Errorf("%s and %s: %w", path, filepath.Base(key), err)
			}
			pair, err := tls.X509KeyPair(text, secret)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			c.Certificates = append(c.Certificates, pair)
		}
	}
	return nil
}

// hostTransport is an HTTP transport with each host's own certificates: what
// one is trusted with says nothing of another, to which it may redirect.
type hostTransport struct {
	dirs    []certificateDir
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
	response, err := transport.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	if to := response.Header.Get("Location"); to != "" {
		if _, err := q.URL.Parse(to); err != nil { // an error about it would show the address, which may hold a secret
			response.Body.Close()
			return nil, bad("it sends on to what is no address")
		}
	}
	return response, nil
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
