package image

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	dirs []string
	mu   sync.Mutex
	each map[string]*http.Transport
}

func (t *hostTransport) RoundTrip(q *http.Request) (*http.Response, error) {
	transport, err := t.of(q.URL.Host)
	if err != nil {
		if q.Body != nil {
			q.Body.Close()
		}
		return nil, err
	}
	return transport.RoundTrip(q)
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
	dialer := &net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
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
