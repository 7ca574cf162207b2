package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"platelayer/authority"
	"platelayer/containers"
	"platelayer/topology"
)

// Files in topology.TLSDir.
const (
	trustedFile = topology.TLSDir + "/ca.pem"
	bundleFile  = topology.TLSDir + "/bundle.pem"
	keyFile     = topology.TLSDir + "/key.pem"
	certFile    = topology.TLSDir + "/cert.pem"
)

// NoAuthority is a topology that has no certificate authority.
type NoAuthority struct{ Name string }

func (e *NoAuthority) Error() string {
	return fmt.Sprintf("%q has no certificate authority", e.Name)
}

// BadAuthority is a certificate authority whose file is not one any more.
type BadAuthority struct {
	Name   string `json:"name"` // of the topology
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

func (e *BadAuthority) Error() string { return fmt.Sprintf("cannot use %s: %s", e.Path, e.Reason) }

// environment is what a station's commands get. Where it trusts the topology's
// authority, programs are told: OpenSSL, Go, curl and Python by SSL_CERT_FILE,
// which replaces what they know of the root's, requests by a variable of its
// own, and Node.js by one that adds.
func environment(s *topology.Station) []string {
	env := s.Environment
	if !s.Trust {
		return env
	}
	set := map[string]bool{}
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		set[name] = true
	}
	env = append([]string{}, env...)
	for _, v := range [][2]string{{"SSL_CERT_FILE", bundleFile}, {"REQUESTS_CA_BUNDLE", bundleFile}, {"NODE_EXTRA_CA_CERTS", trustedFile}} {
		if !set[v[0]] {
			env = append(env, v[0]+"="+v[1])
		}
	}
	return env
}

// certify puts a station's certificate, new at each start, and what it trusts
// into its root. They are held in memory; keys are nowhere else.
func (k *keeper) certify(r *root) error {
	s := r.station
	if !s.Trust {
		return nil
	}
	a, err := k.signer()
	if err != nil {
		return err
	}
	const readable = 0o444
	r.spec.Files = append(r.spec.Files,
		containers.File{Target: trustedFile, Content: a.Trusted(), Mode: readable},
		containers.File{Target: bundleFile, Content: a.Trusted(), Mode: readable, Roots: true})
	if s.TLS == nil {
		return nil
	}
	key, cert, err := a.Issue(s.TLS.Names, s.TLS.Days, time.Now())
	if err != nil {
		return fmt.Errorf("cannot certify %q: %w", r.spec.Name, err)
	}
	r.spec.Files = append(r.spec.Files,
		containers.File{Target: keyFile, Content: key, Mode: 0o400, Own: true},
		containers.File{Target: certFile, Content: cert, Mode: readable, Own: true})
	return nil
}

// signer is the topology's authority for what the keeper's intent asks for. One
// that is new or wider is written once the launch or change can't be refused
// any more.
func (k *keeper) signer() (*authority.Authority, error) {
	k.mu.Lock()
	t, launching := k.intent.Topology, k.state.Status == StatusStarting
	named := t.Without(slices.Collect(maps.Keys(k.intent.OneOffs))...) // nobody else calls a one-off
	k.mu.Unlock()
	k.signing.Lock()
	defer k.signing.Unlock()
	if k.authority != nil && k.signsFor == t {
		return k.authority, nil
	}
	a, err := readAuthority(k.layout, k.name)
	if missing := new(NoAuthority); err != nil && !errors.As(err, &missing) {
		return nil, err
	}
	now, scope := time.Now(), authority.ScopeOf(named)
	switch {
	case a == nil || launching && a.Spent(now): // what runs trusts no other
		if a != nil {
			k.tell(Progress{Notice: "the certificate authority of " + k.name + " is near its end, there is a new one: platelayer ca prints it for the browser"})
		}
		a, err = authority.New(k.name, scope, now)
		k.unsaved = true
	case !a.Covers(scope):
		k.tell(Progress{Notice: "there are names or addresses that the machine's copy of the authority of " + k.name + " is not for: platelayer ca prints a new one for the browser"})
		err = a.Widen(scope, now)
		k.unsaved = true
	default:
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make the certificate authority of %q: %w", k.name, err)
	}
	k.authority, k.signsFor = a, t
	return a, nil
}

// keepAuthority writes the authority where it is new.
func (k *keeper) keepAuthority() error {
	k.signing.Lock()
	defer k.signing.Unlock()
	if !k.unsaved {
		return nil
	}
	text, err := k.authority.Encode()
	if err != nil {
		return fmt.Errorf("cannot keep the certificate authority of %q: %w", k.name, err)
	}
	path := k.layout.authority(k.name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cannot keep the certificate authority of %q: %w", k.name, err)
	}
	if err := writeData(path, text, true); err != nil { // of mode 0600
		return err
	}
	k.unsaved = false
	return nil
}

// dropAuthority forgets what was made for a change that is refused.
func (k *keeper) dropAuthority() {
	k.signing.Lock()
	k.authority, k.signsFor, k.unsaved = nil, nil, false
	k.signing.Unlock()
}

func readAuthority(l Layout, name string) (*authority.Authority, error) {
	text, err := os.ReadFile(l.authority(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NoAuthority{name}
	}
	if err != nil {
		return nil, err
	}
	a, err := authority.Parse(text)
	if err != nil {
		return nil, &BadAuthority{name, l.authority(name), err.Error()}
	}
	return a, nil
}

// removeAuthority removes the authority of a topology, if it has one.
func removeAuthority(l Layout, name string) error {
	if err := os.Remove(l.authority(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the certificate authority of %q: %w", name, err)
	}
	if err := os.Remove(l.authorities()); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot remove %s: %w", l.authorities(), err)
	}
	return nil
}

// CA is the certificate authority of a topology, as a browser is to know it.
type CA struct {
	Certificate string    `json:"certificate"` // PEM
	Fingerprint string    `json:"fingerprint"` // SHA-256
	Names       []string  `json:"names"`       // the domains and subnets that it may sign for
	Until       time.Time `json:"until"`
}

// ReadCA gives the certificate authority of a topology, also of one that is
// down.
func ReadCA(l Layout, name string) (*CA, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	a, err := readAuthority(l, name)
	if err != nil {
		return nil, err
	}
	return &CA{Certificate: string(a.Certificate()), Fingerprint: a.Fingerprint(), Names: a.Names(), Until: a.Until()}, nil
}
